// SPDX-License-Identifier: Apache-2.0
#include "src/models/common/gemma.hpp"

namespace ashlar {
inline namespace v0 {

GemmaConfig Gemma2Config::from(const Value& config) {
  GemmaConfig c = gemma_config(config, 8192, 2);
  c.sliding_rope = *rope_of(config, "sliding_attention", c, 10000);
  c.full_rope = *rope_of(config, "full_attention", c, 10000);
  c.score_soft_cap = soft_cap_of(config, "attn_logit_softcapping", 50);
  c.logit_soft_cap = soft_cap_of(config, "final_logit_softcapping", 30);
  return c;
}

extern const Model model_gemma2;
const Model model_gemma2{"gemma2", load_gemma2<CpuExec>};

}  // namespace v0
}  // namespace ashlar
