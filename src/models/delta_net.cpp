// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/delta_net.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

extern const Model model_delta_net;
const Model model_delta_net{"delta_net", load_delta_net<CpuExec>};

}  // namespace v0
}  // namespace ashlar
