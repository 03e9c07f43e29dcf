// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/hybrid.hpp"

#include "ashlar/nn/mixers/attention.hpp"
#include "ashlar/nn/mixers/gated_delta_net.hpp"
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

TEST(LayerPlan, RepeatsARatio) {
  auto kinds = [](const LayerPlan& plan) {
    std::vector<Index> all;
    for (Index i = 0; i < plan.size(); ++i) all.push_back(plan[i]);
    return all;
  };
  EXPECT_EQ(kinds(LayerPlan::ratio(3, 8)), (std::vector<Index>{0, 0, 0, 1, 0, 0, 0, 1}));
  EXPECT_EQ(kinds(LayerPlan::ratio(2, 7, 0)), (std::vector<Index>{1, 0, 0, 1, 0, 0, 1}));
  EXPECT_EQ(kinds(LayerPlan::ratio(0, 2)), (std::vector<Index>{1, 1}));
  EXPECT_EQ(kinds(LayerPlan(3).set(1, 2)), (std::vector<Index>{0, 2, 0}));
  EXPECT_EQ(refusal([] { LayerPlan plan(0); }), "LayerPlan: layers is 0, expected 1 or more");
  EXPECT_EQ(refusal([] { LayerPlan(3).set(3, 1); }), "LayerPlan: layer is 3, expected 0 to 2");
  EXPECT_EQ(refusal([] { LayerPlan::ratio(-1, 3); }), "LayerPlan::ratio: r is -1, expected 0 or more");
}

// What the header shows.
TEST(Hybrid, GatedDeltaNetThreeToOneWithAttentionTakesTenLines) {
  CpuExec exec;
  const DecoderConfig c{
      .vocab_size = 61, .hidden_size = 32, .intermediate_size = 48, .layers = 4, .max_positions = 40};
  const LayerPlan plan = LayerPlan::ratio(3, c.layers);
  const auto model = make_hybrid_lm<CpuExec>(
      c, RandomParameters(DType::f32), exec, [&](Index layer, const auto& r) -> MixerPtr<CpuExec> {
        if (plan[layer] == 1) return make_mixer<Attention>(r, AttentionConfig{32, 4, 2, 8});
        return make_mixer<GatedDeltaNet>(r, GatedDeltaNetConfig{32, 2, 2, 12, 24, 4});
      });

  const Ids ids = random_ids(*model, 30, 1);
  const Logits all = full_forward(*model, ids, exec);
  Cache cache = model->new_cache(40);
  Logits last = prefill(*model, std::span(ids).first(20), cache, exec);
  for (std::size_t t = 20; t < 30; ++t) last = decode(*model, ids[t], cache, exec);
  EXPECT_LE(error(last, std::span(all).last(61)), 200 * kEps);
}

// A plan of attention alone is a Llama, whose checkpoint has other names.
TEST(Hybrid, OfAttentionAloneIsATransformer) {
  const Architecture llama{"llama", R"({"model_type": "llama", "vocab_size": 61, "hidden_size": 40,
    "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1,
    "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 500.0})"};
  CpuExec exec;
  const auto checkpoint = random_checkpoint(llama);
  const auto want = load_decoder_lm(parse_json(llama.config, "config"), checkpoint, exec);
  DecoderConfig c{
      .vocab_size = 61, .hidden_size = 40, .intermediate_size = 72, .layers = 2, .max_positions = 64};
  c.norm_eps = 1e-5f;
  HybridNames names;
  names.mixer = "self_attn";
  names.mixer_norm = "input_layernorm.weight", names.mlp_norm = "post_attention_layernorm.weight";
  const RopeFrequencies rope = rope_frequencies(8, 500);
  AttentionConfig attention{40, 5, 1, 8};
  attention.rope = &rope;
  const auto got = make_hybrid_lm<CpuExec>(
      c, checkpoint, exec, [&](Index, const auto& r) { return make_mixer<Attention>(r, attention); }, names);
  const Ids ids = random_ids(*got, 20, 2);
  EXPECT_EQ(full_forward(*got, ids, exec), full_forward(*want, ids, exec));
}

}  // namespace
}  // namespace ashlar
