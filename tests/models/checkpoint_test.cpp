// SPDX-License-Identifier: Apache-2.0
// The spellings of a checkpoint that must give the same model, and what must be refused.
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

std::unique_ptr<Model> load(const Architecture& a, const Parameters& parameters, CpuExec& exec) {
  return load_decoder_lm(parse_json(a.config, "config"), parameters, exec);
}
Logits logits_of(const Architecture& a, const Parameters& parameters) {
  CpuExec exec;
  const auto model = load(a, parameters, exec);
  return full_forward(*model, random_ids(*model, 9, 1), exec);
}

// Rows [begin, end) of a tensor, as a tensor.
Parameter rows(const Parameter& p, Index begin, Index end) {
  Parameter part = p;
  part.shape[0] = end - begin;
  part.data = static_cast<const float*>(p.data) + begin * (p.size() / p.shape[0]);
  return part;
}
void rename(KeptParameters& p, const std::string& from, const std::string& to) {
  const auto tensors = p.tensors;
  for (const auto& [name, tensor] : tensors) {
    const std::size_t at = name.find(from);
    if (at == std::string::npos) continue;
    p.tensors.erase(name);
    p.tensors[concat(name.substr(0, at), to, name.substr(at + from.size()))] = tensor;
  }
}

TEST(Checkpoint, OlmoHybridMayBeSpelledAsAnyWriterDoes) {
  const KeptParameters usual = random_checkpoint(kOlmoHybrid);
  const Logits want = logits_of(kOlmoHybrid, usual);
  ASSERT_TRUE(usual.contains("model.layers.0.input_layernorm.weight"));
  ASSERT_TRUE(usual.contains("model.layers.3.post_attention_layernorm.weight"));

  KeptParameters other = usual;
  rename(other, "input_layernorm", "attention_layer_norm");
  rename(other, "post_attention_layernorm", "feedforward_layer_norm");
  rename(other, "linear_attn.o_proj", "linear_attn.out_proj");
  rename(other, "linear_attn.o_norm", "linear_attn.norm");
  other.tensors["mtp.layers.0.anything"] = usual.at("lm_head.weight");
  other.tensors["model.rotary_emb.inv_freq"] = usual.at("lm_head.weight");
  EXPECT_EQ(logits_of(kOlmoHybrid, other), want);
}

TEST(Checkpoint, ConvolutionsMayBeCutAnywhere) {
  const KeptParameters usual = random_checkpoint(kOlmoHybrid);  // one conv1d of 2 * 14 + 60 channels
  const Logits want = logits_of(kOlmoHybrid, usual);
  for (auto [first, second] : {std::array<Index, 2>{14, 28}, {30, 60}, {29, 58}}) {  // by width, in thirds
    KeptParameters cut = usual;
    for (const char* layer : {"0", "1", "2"}) {
      const std::string prefix = concat("model.layers.", layer, ".linear_attn.");
      const Parameter whole = usual.at(prefix + "conv1d.weight");
      ASSERT_EQ(whole.shape, (std::vector<Index>{88, 1, 3}));
      cut.tensors.erase(prefix + "conv1d.weight");
      cut.tensors[prefix + "q_conv1d.weight"] = rows(whole, 0, first);
      cut.tensors[prefix + "k_conv1d.weight"] = rows(whole, first, second);
      cut.tensors[prefix + "v_conv1d.weight"] = rows(whole, second, 88);
    }
    EXPECT_EQ(logits_of(kOlmoHybrid, cut), want);
    cut.tensors["model.layers.1.linear_attn.v_conv1d.weight"].shape[0] -= 1;
    CpuExec exec;
    EXPECT_EQ(
        refusal([&] { load(kOlmoHybrid, cut, exec); }),
        "checkpoint: \"model.layers.1.linear_attn.{q,k,v}_conv1d.weight\" have 87 channels, expected 88");
  }
}

TEST(Checkpoint, OlmoHybridNormsStandWhereTheirNamesSay) {
  // A linear layer with its norms behind the parts is another model, and both are legal.
  const KeptParameters usual = random_checkpoint(kOlmoHybrid);
  KeptParameters behind = usual;
  rename(behind, "0.post_attention_layernorm", "0.post_feedforward_layernorm");
  rename(behind, "0.input_layernorm", "0.post_attention_layernorm");
  EXPECT_GT(error(logits_of(kOlmoHybrid, behind), logits_of(kOlmoHybrid, usual)), 0.01);
  KeptParameters both = usual;
  both.tensors["model.layers.0.post_feedforward_layernorm.weight"] = usual.at("model.norm.weight");
  CpuExec exec;
  EXPECT_EQ(refusal([&] { load(kOlmoHybrid, both, exec); }),
            "checkpoint: \"model.layers.0.\" has both input_layernorm and post_feedforward_layernorm, "
            "expected one of "
            "them");
}

TEST(Checkpoint, AHeadThatIsAbsentIsTheEmbedding) {
  KeptParameters p = random_checkpoint(kOlmo3), copied = p;
  p.tensors.erase("lm_head.weight");
  copied.tensors["lm_head.weight"] = copied.at("model.embed_tokens.weight");
  EXPECT_EQ(logits_of(kOlmo3, p), logits_of(kOlmo3, copied));
  // With tie_word_embeddings a copy in the file is not looked at.
  KeptParameters tied = random_checkpoint(kLlama);
  const Logits want = logits_of(kLlama, tied);
  tied.tensors["lm_head.weight"] = tied.at("model.norm.weight");
  EXPECT_EQ(logits_of(kLlama, tied), want);
}

TEST(Checkpoint, HalfPrecisionIsWidened) {
  const KeptParameters usual = random_checkpoint(kLlama);
  KeptParameters half = usual, rounded = usual;
  for (auto& [name, p] : half.tensors) {
    auto narrow = std::make_shared<Tensor<f16, 1>>(std::array<Index, 1>{p.size()});
    auto wide = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{p.size()});
    for (Index i = 0; i < p.size(); ++i) {
      narrow->data()[i] = f16(static_cast<const float*>(p.data)[i]);
      wide->data()[i] = static_cast<float>(narrow->data()[i]);
    }
    rounded.tensors[name] = {wide->data(), DType::f32, p.shape, wide};
    p = {narrow->data(), DType::f16, p.shape, narrow};
  }
  EXPECT_EQ(logits_of(kLlama, half), logits_of(kLlama, rounded));
}

TEST(Checkpoint, RefusesMissingMisshapenAndUnusedTensors) {
  const KeptParameters usual = random_checkpoint(kLlama);
  CpuExec exec;
  auto refused = [&](const KeptParameters& p) { return refusal([&] { load(kLlama, p, exec); }); };
  KeptParameters p = usual;
  p.tensors.erase("model.layers.1.mlp.up_proj.weight");
  EXPECT_EQ(refused(p), "checkpoint: there is no tensor \"model.layers.1.mlp.up_proj.weight\"");
  p = usual;
  p.tensors.erase("model.layers.0.self_attn.k_proj.bias");
  EXPECT_EQ(refused(p), "checkpoint: there is no tensor \"model.layers.0.self_attn.k_proj.bias\"");
  p = usual;
  p.tensors["model.norm.weight"].shape = {20, 2};
  EXPECT_EQ(refused(p), "checkpoint: tensor \"model.norm.weight\" has shape [20, 2], expected [40]");
  p = usual;
  p.tensors["model.layers.0.mlp.up_proj.weight"].dtype = DType::i32;
  EXPECT_EQ(refused(p),
            "checkpoint: tensor \"model.layers.0.mlp.up_proj.weight\" is of type i32, expected f32, bf16, "
            "f16 or f64");
  p = usual;
  p.tensors["model.layers.2.mlp.up_proj.weight"] = usual.at("model.norm.weight");
  EXPECT_EQ(refused(p), "checkpoint: the model does not use 1 tensor: \"model.layers.2.mlp.up_proj.weight\"");
  for (const char* more : {"a", "b", "c", "d"}) p.tensors[more] = usual.at("model.norm.weight");
  EXPECT_EQ(refused(p), "checkpoint: the model does not use 5 tensors: \"a\", \"b\", \"c\", \"d\", ...");
  p = random_checkpoint(kOlmoHybrid);
  p.tensors.erase("model.layers.0.linear_attn.o_proj.weight");
  EXPECT_EQ(refusal([&] { load(kOlmoHybrid, p, exec); }),
            "checkpoint: there is no tensor \"model.layers.0.linear_attn.o_proj.weight\" (nor "
            "model.layers.0.linear_attn.out_proj.weight)");
}

}  // namespace
}  // namespace ashlar
