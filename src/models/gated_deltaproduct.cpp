// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gated_deltaproduct.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const Model model_gated_deltaproduct;
const Model model_gated_deltaproduct{"gated_deltaproduct", load_gated_deltaproduct<CpuExec>};

}  // namespace v0
}  // namespace ashlar
