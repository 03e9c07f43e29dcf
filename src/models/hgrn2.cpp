// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/hgrn2.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const Model model_hgrn2;
const Model model_hgrn2{"hgrn2", load_hgrn2<CpuExec>};

}  // namespace v0
}  // namespace ashlar
