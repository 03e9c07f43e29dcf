// SPDX-License-Identifier: Apache-2.0
// Synthesizer and Linformer, whose parameters belong to positions, and the layer around all of the efficient
// attentions.
#include "ashlar/nn/mixers/linformer_attention.hpp"
#include "ashlar/nn/mixers/local_attention.hpp"
#include "ashlar/nn/mixers/synthesizer_attention.hpp"
#include "tests/nn/efficient_attention_support.hpp"

namespace ashlar {
namespace {

using namespace test;
using Config = SynthesizerAttentionConfig;

constexpr Index kLength = 25, kRank = 3;

// Random weights with biases.
const RandomParameters kWeights(DType::f32, 5, [](std::string_view) { return true; });

std::vector<double> values(const std::string& name, std::vector<Index> shape) {
  const Tensor<float, 1> v = to_floats(kWeights.make(name, shape));
  return {v.data(), v.data() + v.size()};
}

// The synthetic logits of the configuration.
Logit logits(Heads& a, const Config& c) {
  std::vector<std::vector<double>> hidden;  // relu(x W1^T + b1), a token
  if (c.dense) {
    const auto w = values("dense_syn.weight", {a.hidden, a.hidden}), b = values("dense_syn.bias", {a.hidden});
    for (Index t = 0; t < 40; ++t) {
      hidden.emplace_back(b);
      for (Index o = 0; o < a.hidden; ++o) {
        double& e = hidden.back()[static_cast<std::size_t>(o)];
        for (Index i = 0; i < a.hidden; ++i)
          e += w[static_cast<std::size_t>(o * a.hidden + i)] * a.x.view()(t, i);
        e = std::max(e, 0.0);
      }
    }
  }
  const auto full = values("random", {a.heads, kLength, kLength}),
             left = values("random1", {a.heads, kLength, kRank}),
             right = values("random2", {a.heads, kRank, kLength}),
             w2 = values("dense_syn_len.weight", {kLength, a.dim}),
             b2 = values("dense_syn_len.bias", {kLength});
  return [=, &a](Index n, Index h, Index i, Index j) {
    auto at = [](const std::vector<double>& m, Index index) { return m[static_cast<std::size_t>(index)]; };
    double s = c.dot_product ? scaled_product(a, n, h, i, j) : 0;
    if (c.causal && j > i) return kUnseen;
    if (c.random == Config::full) s += at(full, (h * kLength + i) * kLength + j);
    for (Index m = 0; c.random == Config::factorized && m < kRank; ++m)
      s += at(left, (h * kLength + i) * kRank + m) * at(right, (h * kRank + m) * kLength + j);
    if (c.dense) {
      const Index begin = a.starts[static_cast<std::size_t>(n)],
                  length = a.starts[static_cast<std::size_t>(n) + 1] - begin;
      const Index row = c.released ? h * length + i : i * a.heads + h;  // of [L, H]
      for (Index m = 0; m < a.dim; ++m)
        s += at(hidden[static_cast<std::size_t>(begin + row / a.heads)], row % a.heads * a.dim + m) *
             at(w2, j * a.dim + m);
      s += at(b2, j);
    }
    return s;
  };
}

TEST(SynthesizerAttention, AddsTheLogitsThatAreChosen) {
  Heads a(2, 5);
  CpuExec exec;
  const ParameterReader<CpuExec> r(kWeights, exec);
  for (Config::Random random : {Config::none, Config::full, Config::factorized})
    for (int options = 0; options < 16; ++options) {
      Config c{a.hidden, a.heads, a.dim, kLength, random, kRank};
      c.dense = options & 1, c.dot_product = options & 2, c.causal = options & 4, c.released = options & 8;
      if (random == Config::none && !c.dense) continue;
      const SynthesizerAttention<CpuExec> attention(r, c);
      expect_attended(a, a.run(attention, exec), attended(a, logits(a, c)));
      expect_alone_as_packed(a, attention);
    }
}

TEST(SynthesizerAttention, ReadsNoMoreThanItNeeds) {
  Heads a(2, 5);
  CpuExec exec;
  const Config c{a.hidden, a.heads, a.dim, kLength, Config::full};
  HeadBatch all = a.batch();
  all.x = {}, all.q = all.k = {};
  SynthesizerAttention<CpuExec>(ParameterReader<CpuExec>(kWeights, exec), c)(all, exec);
  expect_attended(a, a.out.cview(), attended(a, logits(a, c)));
}

TEST(SynthesizerAttention, RefusesWhatDoesNotFit) {
  Heads a(2, 5);
  CpuExec exec;
  const ParameterReader<CpuExec> r(kWeights, exec);
  Config c{a.hidden, a.heads, a.dim, 22};
  EXPECT_EQ(refusal([&] { SynthesizerAttention<CpuExec>(r, c); }),
            "SynthesizerAttention: neither random nor dense logits are chosen, expected one of them or both");
  c.dense = true;
  EXPECT_EQ(refusal([&] { a.run(SynthesizerAttention<CpuExec>(r, c), exec); }),
            "SynthesizerAttention: sequence 0 has 23 tokens, expected at most 22");
  c.max_length = 23;
  HeadBatch all = a.batch();
  all.x = {};
  EXPECT_EQ(refusal([&] { SynthesizerAttention<CpuExec>(r, c)(all, exec); }),
            "SynthesizerAttention: x has shape [0, 0], expected [40, 10]");
}

TEST(LinformerAttention, AttendsToMixturesOfTheSequence) {
  Heads a(2, 5);
  CpuExec exec;
  const ParameterReader<CpuExec> r(kWeights, exec);
  for (Index own : {Index{0}, a.heads})
    for (const char* value : {"proj_v", "proj_k"}) {
      LinformerAttentionConfig c{kLength, kRank};
      c.value = value, c.heads = own;
      const LinformerAttention<CpuExec> attention(r, c);
      a.run(attention, exec);
      std::vector<Index> shape{kLength, kRank};
      if (own > 0) shape.insert(shape.begin(), own);
      const auto e = values("proj_k", shape), f = values(value, shape);
      // The mixtures as sequences of their own.
      std::vector<double> want(static_cast<std::size_t>(40 * a.hidden));
      for (std::size_t n = 0; n < 3; ++n)
        for (Index h = 0; h < a.heads; ++h) {
          const Index begin = a.starts[n], end = a.starts[n + 1];
          auto mixture = [&](Array<3>& of, const std::vector<double>& w, Index m, Index channel) {
            double sum = 0;
            for (Index t = begin; t < end; ++t)
              sum += w[static_cast<std::size_t>(((own > 0 ? h : 0) * kLength + t - begin) * kRank + m)] *
                     of.view()(t, h, channel);
            return sum;
          };
          for (Index t = begin; t < end; ++t) {
            double total = 0;
            double* o = &want[static_cast<std::size_t>((t * a.heads + h) * a.dim)];
            for (Index m = 0; m < kRank; ++m) {
              double s = 0;
              for (Index i = 0; i < a.dim; ++i) s += a.q.view()(t, h, i) * mixture(a.k, e, m, i);
              const double p = std::exp(s / std::sqrt(static_cast<double>(a.dim)));
              total += p;
              for (Index i = 0; i < a.dim; ++i) o[i] += p * mixture(a.v, f, m, i);
            }
            for (Index i = 0; i < a.dim; ++i) o[i] /= total;
          }
        }
      // Mixtures of 23 keys: logits are up to 5 times as large as those of single keys.
      expect_close(a.out.cview(), View<const double, 3>(want.data(), a.out.cview().shape),
                   [&](Index) { return 1000 * kEps * 5; });
      expect_alone_as_packed(a, attention);
    }
}

TEST(LinformerAttention, TheIdentityAsProjectionIsDenseAttention) {
  Heads a(2, 5), b(2, 5);
  a.starts = b.starts = {0, 20, 40};
  CpuExec exec;
  auto identity = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{20 * 20});
  for (Index i = 0; i < 20; ++i) identity->data()[i * 21] = 1;
  ParameterMap parameters;
  parameters.set("proj_k", {identity->data(), DType::f32, {20, 20}, identity});
  parameters.set("proj_v", parameters.at("proj_k"));
  a.run(LinformerAttention<CpuExec>(ParameterReader<CpuExec>(parameters, exec), {20, 20}), exec);
  attend(b.batch(), AttentionPattern{}, exec);
  expect_close(a.out.cview(), b.out.cview(), [](Index) { return 50 * 7 * kEps; });
}

TEST(LinformerAttention, RefusesLongerSequences) {
  Heads a(2, 5);
  CpuExec exec;
  const LinformerAttention<CpuExec> attention(ParameterReader<CpuExec>(kWeights, exec), {22, 4});
  EXPECT_EQ(refusal([&] { a.run(attention, exec); }),
            "length_projection: sequence 0 has 23 tokens, expected at most the 22 that weight has");
  EXPECT_EQ(refusal([&] {
              LinformerAttention<CpuExec>(ParameterReader<CpuExec>(kWeights, exec), {0, 4});
            }),
            "LinformerAttention: max_length is 0 and rank 4, expected 1 or more");
}

TEST(ProjectedAttention, IsTheProjectionsAroundTheAttention) {
  Heads a(2, 5);
  CpuExec exec;
  const ParameterReader<CpuExec> r(kWeights, exec);
  ProjectedAttentionConfig c{a.hidden, a.heads, a.dim};
  SequenceBatch<CpuExec> batch;
  batch.offsets = a.starts;
  for (const char* key : {"to_k", "to_q"})
    for (const char* output : {"to_out", ""}) {
      c.key = key, c.output = output;
      const ProjectedAttention<CpuExec> layer(
          r, c, std::make_unique<LocalAttention<CpuExec>>(LocalAttentionConfig{.block = 4}));
      Tensor<float, 2> got({40, a.hidden}), q({40, a.hidden}), k({40, a.hidden}), v({40, a.hidden}),
          mixed({40, a.hidden}), want({40, a.hidden});
      layer(a.x.cview(), got.view(), batch, exec);
      auto project = [&](const char* name, View<const float, 2> x, View<float, 2> out) {
        Linear<CpuExec>(r, name, a.hidden, a.hidden)(x, out, Phase::prefill, exec);
      };
      project("to_q", a.x.cview(), q.view());
      project(key, a.x.cview(), k.view());
      project("to_v", a.x.cview(), v.view());
      HeadBatch heads{
          {},      q.view().split(1, 5), k.view().split(1, 5), v.view().split(1, 5), mixed.view().split(1, 5),
          a.starts};
      LocalAttention<CpuExec>({.block = 4})(heads, exec);
      if (*output == 0)
        want = mixed;
      else
        project(output, mixed.view(), want.view());
      expect_close(got.view(), View<const float, 2>(want.view()), [](Index) { return 0; });
    }
}

TEST(ProjectedAttention, RefusesWhatItHasNoUseFor) {
  Heads a(2, 5);
  CpuExec exec;
  const ParameterReader<CpuExec> r(kWeights, exec);
  ProjectedAttentionConfig c{a.hidden, a.heads, a.dim};
  auto local = [] { return std::make_unique<LocalAttention<CpuExec>>(LocalAttentionConfig{.block = 4}); };
  EXPECT_EQ(refusal([&] { ProjectedAttention<CpuExec>(r, c, nullptr); }),
            "ProjectedAttention: there is no attention, expected one");
  const ProjectedAttention<CpuExec> layer(r, c, local());
  LayerState<CpuExec> state = layer.new_state(4);
  LayerState<CpuExec>* const states[] = {&state};
  SequenceBatch<CpuExec> batch;
  batch.states = states;
  EXPECT_EQ(refusal([&] { layer(a.x.cview(), a.x.view(), batch, exec); }),
            "ProjectedAttention: 1 states were given, expected none: sequences are read whole");
  c.key = "";
  const ProjectedAttention<CpuExec> keyless(r, c, local());
  batch.states = {};
  EXPECT_EQ(refusal([&] { keyless(a.x.cview(), a.x.view(), batch, exec); }),
            "LocalAttention: k has shape [0, 0, 0], expected [40, 2, 5]");
  c.output = "", c.head_dim = 4;
  EXPECT_EQ(
      refusal([&] { ProjectedAttention<CpuExec>(r, c, local()); }),
      "ProjectedAttention: there is no output projection from 8 channels to 10, expected one or as many "
      "channels");
  EXPECT_EQ(refusal([] { LocalAttention<CpuExec>({.block = 0}); }),
            "LocalAttention: blocks have 0 tokens, expected 1 or more");
}

}  // namespace
}  // namespace ashlar
