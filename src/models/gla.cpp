// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/gla.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const Model model_gla;
const Model model_gla{"gla", load_gla<CpuExec>};

}  // namespace v0
}  // namespace ashlar
