// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gated_deltanet.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const Model model_gated_deltanet;
const Model model_gated_deltanet{"gated_deltanet", load_gated_deltanet<CpuExec>};

}  // namespace v0
}  // namespace ashlar
