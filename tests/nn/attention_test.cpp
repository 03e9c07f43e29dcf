// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/mixers/attention.hpp"

#include "ashlar/nn/random_parameters.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

constexpr Index kTokens = 12, kHidden = 24;

std::vector<float> run(const AttentionConfig& c, const Parameters& parameters, CpuExec& exec) {
  std::mt19937 rng(3);
  Array<2> x({kTokens, kHidden}, 0);
  x.normal(rng);
  std::vector<float> out(static_cast<std::size_t>(kTokens * kHidden), NAN);
  std::array<Index, kTokens> positions;
  for (Index t = 0; t < kTokens; ++t) positions[static_cast<std::size_t>(t)] = t;
  const Attention<CpuExec> attention(ParameterReader<CpuExec>(parameters, exec), c);
  SequenceBatch<CpuExec> batch;
  batch.positions = {positions.data(), {kTokens}};
  attention(x.cview(), {out.data(), {kTokens, kHidden}}, batch, exec);
  return out;
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return worst;
}

const RandomParameters kWeights(DType::f32, 5);

TEST(Attention, AWindowAsLongAsTheSequenceIsNone) {
  CpuExec exec;
  AttentionConfig c{kHidden, 4, 2, 6};
  const auto full = run(c, kWeights, exec);
  c.window = kTokens;
  EXPECT_LE(difference(run(c, kWeights, exec), full), 20 * test::kEps);
  c.window = kTokens - 1;
  EXPECT_GT(difference(run(c, kWeights, exec), full), 1e-3);
}

TEST(Attention, AWindowOfOneGivesTheToken) {
  // softmax over the token itself: out = W_o v, whatever q and k are.
  CpuExec exec;
  AttentionConfig c{kHidden, 4, 4, 6};
  c.window = 1;
  const auto out = run(c, kWeights, exec);
  c.qk_norm = QkNorm::head;
  EXPECT_EQ(run(c, kWeights, exec), out);
}

TEST(Attention, GroupedHeadsAreRepeatedOnes) {
  struct Repeated : RandomParameters {
    using RandomParameters::RandomParameters;
    // [4 * 6, hidden] from the rows of two heads, each twice.
    Parameter make(std::string_view name, std::span<const Index> shape) const override {
      if (!name.starts_with("k_proj") && !name.starts_with("v_proj"))
        return RandomParameters::make(name, shape);
      const std::array<Index, 2> half{shape[0] / 2, shape[1]};
      const Parameter two = RandomParameters::make(name, half);
      auto four = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{2 * two.size()});
      const Index head = 6 * shape[1];
      for (Index i = 0; i < four->size(); ++i)
        four->data()[i] = static_cast<const float*>(two.data)[i / (2 * head) * head + i % head];
      return {four->data(), DType::f32, {shape.begin(), shape.end()}, four};
    }
  };
  CpuExec exec;
  const RopeFrequencies rope = rope_frequencies(6, 100);
  AttentionConfig grouped{kHidden, 4, 2, 6}, whole{kHidden, 4, 4, 6};
  grouped.rope = whole.rope = &rope;
  EXPECT_LE(difference(run(grouped, kWeights, exec), run(whole, Repeated(DType::f32, 5), exec)),
            20 * test::kEps);
}

TEST(Attention, ScalingTheProjectionsDoesNotChangeNormalisedKeys) {
  struct Scaled : RandomParameters {
    using RandomParameters::RandomParameters;
    Parameter make(std::string_view name, std::span<const Index> shape) const override {
      const Parameter p = RandomParameters::make(name, shape);
      if (!name.starts_with("k_proj")) return p;
      auto twice = std::make_shared<Tensor<float, 1>>(to_floats(p));
      // All of it, or only the second head's rows.
      for (Index i = first_row * shape[1]; i < p.size(); ++i) twice->data()[i] *= 2;
      return {twice->data(), DType::f32, p.shape, twice};
    }
    Index first_row = 0;
  };
  CpuExec exec;
  Scaled all(DType::f32, 5), second(DType::f32, 5);
  second.first_row = 6;
  AttentionConfig c{kHidden, 4, 2, 6};
  EXPECT_GT(difference(run(c, all, exec), run(c, kWeights, exec)), 1e-2);
  const double bound = 100 * test::kEps;  // eps 1e-6 in the norm is not scaled: about 1e-6 relative
  for (QkNorm norm : {QkNorm::projection, QkNorm::head}) {
    c.qk_norm = norm;
    EXPECT_LE(difference(run(c, all, exec), run(c, kWeights, exec)), bound);
  }
  // Heads with norms of their own do not see each other.
  EXPECT_LE(difference(run(c, second, exec), run(c, kWeights, exec)), bound);
  c.qk_norm = QkNorm::projection;
  EXPECT_GT(difference(run(c, second, exec), run(c, kWeights, exec)), 1e-2);
}

// The same numbers from a plain layer: gate rows taken out of q_proj, or zero-centred norms made ordinary.
struct Rearranged : RandomParameters {
  using RandomParameters::RandomParameters;
  Parameter make(std::string_view name, std::span<const Index> shape) const override {
    if (name == "q_proj.weight" && shape[0] == 4 * 6) {
      const std::array<Index, 2> both{2 * shape[0], shape[1]};
      std::vector<Index> rows;
      for (Index h = 0; h < 4; ++h)
        for (Index i = 0; i < 6; ++i) rows.push_back(h * 12 + i + (gate ? 6 : 0));
      return take(RandomParameters::make(name, both), rows);
    }
    Parameter p = RandomParameters::make(name, shape);
    if (!add_one || name.find("norm") == std::string_view::npos) return p;
    auto sum = std::make_shared<Tensor<float, 1>>(to_floats(p));
    for (Index i = 0; i < sum->size(); ++i) sum->data()[i] += 1;
    return {sum->data(), DType::f32, p.shape, sum};
  }
  bool gate = false, add_one = false;
};

TEST(Attention, TheOutputGateMultipliesWhatAttentionGives) {
  CpuExec exec;
  // W_o the identity in both: what comes out is softmax(q k^T) v, and that times sigmoid(z).
  struct Identity : Rearranged {
    using Rearranged::Rearranged;
    Parameter make(std::string_view name, std::span<const Index> shape) const override {
      if (name != "o_proj.weight") return Rearranged::make(name, shape);
      auto one = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{shape[0] * shape[1]});
      for (Index i = 0; i < shape[0]; ++i) one->data()[i * shape[1] + i] = 1;
      return {one->data(), DType::f32, {shape.begin(), shape.end()}, one};
    }
  };
  const Identity plain(DType::f32, 5);
  const RopeFrequencies rope = rope_frequencies(4, 100);  // of six channels
  AttentionConfig c{kHidden, 4, 2, 6};
  c.rope = &rope, c.qk_norm = QkNorm::head;
  auto want = run(c, plain, exec);
  c.output_gate = true;
  const auto got = run(c, plain, exec);

  std::mt19937 rng(3);
  Array<2> x({kTokens, kHidden}, 0), gates({kTokens, kHidden}, 0);
  x.normal(rng);
  Identity rows_of_gates(DType::f32, 5);
  rows_of_gates.gate = true;
  const Linear<CpuExec> gate(ParameterReader<CpuExec>(rows_of_gates, exec), "q_proj", kHidden, 24);
  gate(x.cview(), gates.view(), Phase::prefill, exec);
  for (std::size_t i = 0; i < want.size(); ++i)
    want[i] /= 1 + std::exp(-gates.view()(static_cast<Index>(i) / kHidden, static_cast<Index>(i) % kHidden));
  EXPECT_LE(difference(got, want), 20 * test::kEps);

  c.qk_norm = QkNorm::projection;
  EXPECT_EQ(test::refusal([&] { run(c, plain, exec); }),
            "Attention: an output gate and norms over whole projections, expected norms of heads or none");
}

TEST(Attention, ZeroCentredNormsAddOneToTheirWeights) {
  CpuExec exec;
  Rearranged larger(DType::f32, 5);
  larger.add_one = true;
  AttentionConfig c{kHidden, 4, 2, 6};
  c.qk_norm = QkNorm::head;
  const auto want = run(c, larger, exec);
  c.norm_weight_offset = 1;
  EXPECT_LE(difference(run(c, Rearranged(DType::f32, 5), exec), want), 20 * test::kEps);
}

TEST(Attention, TheScaleIsTheProjectionsOwn) {
  // q twice as large with half the scale.
  struct Twice : RandomParameters {
    using RandomParameters::RandomParameters;
    Parameter make(std::string_view name, std::span<const Index> shape) const override {
      const Parameter p = RandomParameters::make(name, shape);
      if (!name.starts_with("q_proj")) return p;
      auto twice = std::make_shared<Tensor<float, 1>>(to_floats(p));
      for (Index i = 0; i < p.size(); ++i) twice->data()[i] *= 2;
      return {twice->data(), DType::f32, p.shape, twice};
    }
  };
  CpuExec exec;
  AttentionConfig c{kHidden, 4, 2, 6};
  const auto usual = run(c, kWeights, exec);
  c.scale = 0.5f / std::sqrt(6.f);
  EXPECT_LE(difference(run(c, Twice(DType::f32, 5), exec), usual), 20 * test::kEps);
  EXPECT_GT(difference(run(c, kWeights, exec), usual), 1e-3);
}

TEST(Attention, CapsAndSinksComeToTheirLimits) {
  // A cap far above the scores is none; so is a sink of -inf, and behind one of 80 nothing is seen.
  struct Sinks : RandomParameters {
    using RandomParameters::RandomParameters;
    Parameter make(std::string_view name, std::span<const Index> shape) const override {
      if (name != "sinks") return RandomParameters::make(name, shape);
      auto all = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{shape[0]});
      for (Index h = 0; h < shape[0]; ++h) all->data()[h] = value;
      return {all->data(), DType::f32, {shape.begin(), shape.end()}, all};
    }
    float value = 0;
  };
  CpuExec exec;
  AttentionConfig c{kHidden, 4, 2, 6};
  const auto usual = run(c, kWeights, exec);
  c.soft_cap = 1e5f;
  EXPECT_LE(difference(run(c, kWeights, exec), usual), 20 * test::kEps);
  c.soft_cap = 0.5f;
  EXPECT_GT(difference(run(c, kWeights, exec), usual), 1e-3);
  c.soft_cap = 0, c.sinks = true;
  Sinks sinks(DType::f32, 5);
  EXPECT_GT(difference(run(c, sinks, exec), usual), 1e-3);
  sinks.value = -std::numeric_limits<float>::infinity();
  EXPECT_LE(difference(run(c, sinks, exec), usual), 20 * test::kEps);
  sinks.value = 80;
  for (float y : run(c, sinks, exec)) EXPECT_NEAR(y, 0, 1e-20);
}

TEST(Attention, RotationIsRelative) {
  // The same tokens at other positions attend alike.
  CpuExec exec;
  const RopeFrequencies rope = rope_frequencies(6, 100);
  AttentionConfig c{kHidden, 4, 2, 6};
  c.rope = &rope;
  const Attention<CpuExec> attention(ParameterReader<CpuExec>(kWeights, exec), c);
  std::mt19937 rng(3);
  Array<2> x({5, kHidden}, 0);
  x.normal(rng);
  auto at = [&](Index start) {
    std::vector<float> out(5 * kHidden, NAN);
    const std::array<Index, 5> positions{start, start + 1, start + 2, start + 3, start + 4};
    SequenceBatch<CpuExec> batch;
    batch.positions = {positions.data(), {5}};
    attention(x.cview(), {out.data(), {5, kHidden}}, batch, exec);
    return out;
  };
  EXPECT_LE(difference(at(0), at(1000)), 100 * test::kEps);
}

}  // namespace
}  // namespace ashlar
