// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/qwen3_5.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// `config` with members before its own.
Value with(Value::Object members, const Value& config) {
  if (config.object() != nullptr)
    members.insert(members.end(), config.object()->begin(), config.object()->end());
  return members;
}

}  // namespace

Qwen3NextConfig Qwen3_5Config::from(const Value& config) {
  const Value text = text_part(config);
  const bool experts = config.get_string("model_type", "").starts_with("qwen3_5_moe");
  // Neither kind mixes layers with and without experts, and the chosen experts' weights sum to 1.
  for (const char* key : {"mlp_only_layers", "decoder_sparse_step"})
    if (const Value* setting = text.find(key); setting != nullptr && !setting->is_null())
      if ((setting->array() == nullptr || !setting->array()->empty()) &&
          (setting->integer() == nullptr || *setting->integer() != 1))
        unsupported(key, "set", "every layer alike");
  if (!text.get_boolean("norm_topk_prob", true)) unsupported("norm_topk_prob", "false", "true");
  Value::Object counts{{"num_experts", std::int64_t{0}}};
  if (experts)
    counts = {{"num_experts", std::int64_t{positive(text, "num_experts", 256)}},
              {"num_experts_per_tok", std::int64_t{positive(text, "num_experts_per_tok", 8)}}};
  Qwen3NextConfig c = Qwen3NextConfig::from(with(std::move(counts), text));
  c.projections = Qwen3NextConfig::Projections::separate;
  return c;
}

DecoderNames qwen3_5_names(const Parameters& parameters) {
  DecoderNames names;
  if (!parameters.contains("model.embed_tokens.weight")) {
    names.embedding = "model.language_model.embed_tokens.weight";
    names.norm = "model.language_model.norm.weight";
    names.layers = "model.language_model.layers";
  }
  names.ignored = [](std::string_view name) { return name.starts_with("model.visual."); };
  return names;
}

extern const Model model_qwen3_5;
const Model model_qwen3_5{
    "qwen3_5", load_qwen3_5<CpuExec>, {"qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"}};

}  // namespace v0
}  // namespace ashlar
