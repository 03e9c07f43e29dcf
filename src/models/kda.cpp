// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/kda.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const Model model_kda;
const Model model_kda{"kda", load_kda<CpuExec>};

}  // namespace v0
}  // namespace ashlar
