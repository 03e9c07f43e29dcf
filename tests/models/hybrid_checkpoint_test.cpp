// SPDX-License-Identifier: Apache-2.0
// The spellings of the hybrids' checkpoints and configurations that must give the same model.
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

Logits logits_of(const char* config, const Parameters& parameters) {
  CpuExec exec;
  const auto model = load_decoder_lm(parse_json(config, "config"), parameters, exec);
  return full_forward(*model, random_ids(*model, 9, 1), exec);
}
// With `from` in a name replaced by `to`, where it is.
KeptParameters renamed(const KeptParameters& p, const std::string& from, const std::string& to) {
  KeptParameters other;
  for (const auto& [name, tensor] : p.tensors) {
    std::string changed = name;
    if (const auto at = changed.find(from); at != std::string::npos) changed.replace(at, from.size(), to);
    other.tensors[changed] = tensor;
  }
  return other;
}
// One tensor of the concatenated values.
Parameter joined(std::span<const Parameter> parts, std::vector<Index> shape) {
  Index size = 0;
  for (const Parameter& p : parts) size += p.size();
  auto all = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{size});
  float* to = all->data();
  for (const Parameter& p : parts) to = std::copy_n(static_cast<const float*>(p.data), p.size(), to);
  return {all->data(), DType::f32, std::move(shape), all};
}
KeptParameters without(KeptParameters p, const std::string& part) {
  std::erase_if(p.tensors, [&](const auto& entry) { return entry.first.find(part) != std::string::npos; });
  return p;
}

TEST(HybridCheckpoint, ExpertsMayBeFused) {
  const KeptParameters usual = random_checkpoint(kQwen3Next);
  KeptParameters fused = without(usual, ".experts.");
  for (int layer : {0, 2, 3}) {
    const std::string experts = concat("model.layers.", layer, ".mlp.experts.");
    std::vector<Parameter> both, down;
    for (Index e = 0; e < 6; ++e) {
      for (const char* part : {".gate_proj.weight", ".up_proj.weight"})
        both.push_back(usual.at(concat(experts, e, part)));
      down.push_back(usual.at(concat(experts, e, ".down_proj.weight")));
    }
    fused.tensors[experts + "gate_up_proj"] = joined(both, {6, 36, 28});
    fused.tensors[experts + "down_proj"] = joined(down, {6, 28, 18});
  }
  const Logits want = logits_of(kQwen3Next.config, usual);
  EXPECT_EQ(logits_of(kQwen3Next.config, fused), want);
  // Mixtral's names.
  KeptParameters numbered = usual;
  for (const auto& [from, to] : {std::pair("gate_proj", "w1"), {"up_proj", "w3"}, {"down_proj", "w2"}}) {
    KeptParameters next;
    for (const auto& [name, p] : numbered.tensors) {
      std::string changed = name;
      if (const auto at = changed.find(from);
          at != std::string::npos && name.find(".experts.") != std::string::npos)
        changed.replace(at, std::string_view(from).size(), to);
      next.tensors[changed] = p;
    }
    numbered = next;
  }
  EXPECT_EQ(logits_of(kQwen3Next.config, numbered), want);
}

// Rows [begin, begin + count) of each group of `stride` rows, one group after another.
Parameter rows_of(const Parameter& p, Index groups, Index stride, Index begin, Index count) {
  std::vector<Index> rows;
  for (Index g = 0; g < groups; ++g)
    for (Index i = 0; i < count; ++i) rows.push_back(g * stride + begin + i);
  return take(p, rows);
}

TEST(HybridCheckpoint, QwensTwoOrdersOfLinearProjectionsAreTheSame) {
  // Dense, so that both architectures have the same layers: 2 key heads, 6 value heads, K 7, V 10.
  const std::string config(kQwen3Next.config);
  std::string next = config, separate = config;
  next.replace(next.find("\"num_experts\": 6"), 16, "\"num_experts\": 0");
  separate.replace(separate.find("qwen3_next"), 10, "qwen3_5_text");
  const Architecture a{"qwen3_next", next.c_str()};
  const KeptParameters usual = random_checkpoint(a);
  KeptParameters apart = without(usual, ".in_proj_");
  for (int layer : {0, 1, 2}) {
    const std::string in = concat("model.layers.", layer, ".linear_attn.in_proj_");
    const Parameter qkvz = usual.at(in + "qkvz.weight"), ba = usual.at(in + "ba.weight");
    const Index stride = 2 * 7 + 2 * 3 * 10;
    const Parameter qkv[] = {rows_of(qkvz, 2, stride, 0, 7), rows_of(qkvz, 2, stride, 7, 7),
                             rows_of(qkvz, 2, stride, 14, 30)};
    apart.tensors[in + "qkv.weight"] = joined(qkv, {28 + 60, 28});
    apart.tensors[in + "z.weight"] = rows_of(qkvz, 2, stride, 44, 30);
    apart.tensors[in + "b.weight"] = rows_of(ba, 2, 6, 0, 3);
    apart.tensors[in + "a.weight"] = rows_of(ba, 2, 6, 3, 3);
  }
  const std::string mixed = "\"mlp_only_layers\": [1], ";
  std::string dense = separate;
  dense.erase(dense.find(mixed), mixed.size());
  EXPECT_EQ(logits_of(dense.c_str(), apart), logits_of(next.c_str(), usual));
  EXPECT_EQ(refusal([&] { logits_of(separate.c_str(), apart); }),
            "config: \"mlp_only_layers\" is \"set\", which is not supported; supported: every layer alike");
}

TEST(HybridCheckpoint, AQwenThatAlsoSeesIsReadForItsText) {
  const KeptParameters usual = random_checkpoint(kQwen3_5);
  KeptParameters nested = renamed(usual, "model.", "model.language_model.");
  nested.tensors["model.visual.patch_embed.proj.weight"] = usual.at("model.norm.weight");
  nested.tensors["mtp.norm.weight"] = usual.at("model.norm.weight");
  const std::string config =
      concat(R"({"model_type": "qwen3_5", "tie_word_embeddings": false, "text_config": )", kQwen3_5.config,
             R"(, "vision_config": {"depth": 2}})");
  EXPECT_EQ(logits_of(config.c_str(), nested), logits_of(kQwen3_5.config, usual));
  EXPECT_EQ(logits_of(config.c_str(), usual), logits_of(kQwen3_5.config, usual));
}

TEST(HybridCheckpoint, MiniMaxsBuffersAreNotLookedAt) {
  const KeptParameters usual = random_checkpoint(kMiniMax);
  KeptParameters more = renamed(usual, "nothing", "");
  for (const char* buffer : {"slope_rate", "query_decay", "key_decay", "diagonal_decay"})
    more.tensors[concat("model.layers.1.self_attn.", buffer)] = usual.at("model.norm.weight");
  EXPECT_EQ(logits_of(kMiniMax.config, more), logits_of(kMiniMax.config, usual));
}

TEST(HybridCheckpoint, TheFileSaysHowWideLfm2sMlpIs) {
  KeptParameters p = random_checkpoint(kLfm2);  // 48: two thirds of 66, a multiple of 8
  EXPECT_EQ(p.at("model.layers.1.feed_forward.w1.weight").shape, (std::vector<Index>{48, 30}));
  for (const char* part : {"w1", "w3"}) {
    Parameter& w = p.tensors[concat("model.layers.1.feed_forward.", part, ".weight")];
    w = slice(w, 0, 40);
  }
  Parameter& down = p.tensors["model.layers.1.feed_forward.w2.weight"];
  down = transpose(slice(transpose(down), 0, 40));
  for (float e : logits_of(kLfm2.config, p)) ASSERT_TRUE(std::isfinite(e));
}

}  // namespace
}  // namespace ashlar
