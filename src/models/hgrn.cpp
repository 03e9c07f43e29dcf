// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/hgrn.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const Model model_hgrn;
const Model model_hgrn{"hgrn", load_hgrn<CpuExec>};

}  // namespace v0
}  // namespace ashlar
