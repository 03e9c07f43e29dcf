// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/retnet.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const Model model_retnet;
const Model model_retnet{"retnet", load_retnet<CpuExec>};

}  // namespace v0
}  // namespace ashlar
