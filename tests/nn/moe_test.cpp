// SPDX-License-Identifier: Apache-2.0
// Against the equations in double, and what a batch, a phase and the number of threads must not change.
#include "ashlar/nn/moe.hpp"

#include "ashlar/nn/random_parameters.hpp"
#include "ashlar/ref/moe.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using Matrix = std::vector<std::vector<double>>;
using test::Array;

// Experts of their own, or fused: the same numbers, once in each layout.
struct Layer : RandomParameters {
  explicit Layer(const MoeConfig& config, bool fused = false, DType dtype = DType::f32)
      : RandomParameters(dtype, 5,
                         [fused](std::string_view name) {
                           return !name.ends_with(".bias") &&
                                  (fused || name.find("experts.gate_up_proj") == std::string_view::npos);
                         }),
        c(config) {}

  Parameter make(std::string_view name, std::span<const Index> shape) const override {
    const bool both = name == "experts.gate_up_proj";
    if (!both && name != "experts.down_proj") return RandomParameters::make(name, shape);
    std::vector<float> all;
    auto add = [&](Index e, const char* part, Index rows, Index columns) {
      const Tensor<float, 1> values = to_floats(
          RandomParameters::make(concat("experts.", e, ".", part, ".weight"), std::array{rows, columns}));
      all.insert(all.end(), values.data(), values.data() + values.size());
    };
    for (Index e = 0; e < shape[0]; ++e)
      if (both)
        add(e, "gate_proj", c.width, c.hidden), add(e, "up_proj", c.width, c.hidden);
      else
        add(e, "down_proj", c.hidden, c.width);
    auto owner = std::make_shared<std::vector<float>>(std::move(all));
    return {owner->data(), DType::f32, {shape.begin(), shape.end()}, owner};
  }
  Matrix matrix(const std::string& name, Index rows, Index columns) const {
    const Tensor<float, 1> p = to_floats(RandomParameters::make(name, std::array{rows, columns}));
    Matrix m(static_cast<std::size_t>(rows), std::vector<double>(static_cast<std::size_t>(columns)));
    for (Index i = 0; i < p.size(); ++i)
      m[static_cast<std::size_t>(i / columns)][static_cast<std::size_t>(i % columns)] = p.data()[i];
    return m;
  }
  MoeConfig c;
};

std::vector<double> times(const Matrix& m, const std::vector<double>& x) {
  std::vector<double> y;
  for (const auto& row : m) y.push_back(std::inner_product(row.begin(), row.end(), x.begin(), 0.0));
  return y;
}
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

std::vector<double> expert(const Layer& layer, const std::string& prefix, Index width,
                           const std::vector<double>& x) {
  auto gate = times(layer.matrix(prefix + "gate_proj.weight", width, layer.c.hidden), x);
  const auto up = times(layer.matrix(prefix + "up_proj.weight", width, layer.c.hidden), x);
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= sigmoid(gate[i]) * up[i];
  return times(layer.matrix(prefix + "down_proj.weight", layer.c.hidden, width), gate);
}

std::vector<double> expected(const Layer& layer, const std::vector<double>& x) {
  const MoeConfig& c = layer.c;
  std::vector<double> logits = times(layer.matrix("gate.weight", c.experts, c.hidden), x);
  std::vector<double> bias(static_cast<std::size_t>(c.experts)), weights(static_cast<std::size_t>(c.chosen));
  if (c.selection_bias) {
    const Parameter p = layer.RandomParameters::make("gate.e_score_correction_bias", std::array{c.experts});
    std::copy_n(static_cast<const float*>(p.data), c.experts, bias.begin());
  }
  std::vector<std::int32_t> ids(static_cast<std::size_t>(c.chosen));
  ref::moe_route(MoeRouteArgs<double>{{logits.data(), {1, c.experts}},
                                      {bias.data(), {c.experts}},
                                      {ids.data(), {1, c.chosen}},
                                      {weights.data(), {1, c.chosen}},
                                      c.score,
                                      c.renormalize,
                                      c.scale,
                                      c.groups,
                                      c.chosen_groups});
  std::vector<double> y(static_cast<std::size_t>(c.hidden));
  auto add = [&](double weight, const std::vector<double>& part) {
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += weight * part[i];
  };
  for (std::size_t j = 0; j < ids.size(); ++j)
    add(weights[j], expert(layer, concat("experts.", Index{ids[j]}, "."), c.width, x));
  if (c.shared_width != 0) {
    const double gate =
        c.shared_gate ? sigmoid(times(layer.matrix("shared_expert_gate.weight", 1, c.hidden), x)[0]) : 1;
    add(gate, expert(layer, "shared_experts.", c.shared_width, x));
  }
  return y;
}

MoeConfig softmax_config() {
  MoeConfig c{20, 12, 7, 3};
  c.shared_width = 9, c.shared_gate = true;
  return c;
}
MoeConfig sigmoid_config() {
  MoeConfig c{17, 8, 12, 4};
  c.score = RouterScore::sigmoid, c.selection_bias = true, c.scale = 2.5f, c.groups = 4, c.chosen_groups = 2,
  c.shared_width = 16;
  return c;
}
MoeConfig plain_config() {
  MoeConfig c{16, 24, 5, 1};
  c.renormalize = false;
  return c;
}

TEST(MixtureOfExperts, MatchesTheEquations) {
  std::mt19937 rng(2);
  for (const MoeConfig& c : {softmax_config(), sigmoid_config(), plain_config()}) {
    constexpr Index kTokens = 23;
    const Layer layer(c), fused(c, true);
    Array<2> x({kTokens, c.hidden}), out({kTokens, c.hidden});
    x.normal(rng);
    std::vector<double> want;
    for (Index t = 0; t < kTokens; ++t) {
      const auto row = expected(layer, {x.view().at(t), x.view().at(t) + c.hidden});
      want.insert(want.end(), row.begin(), row.end());
    }
    const View<double, 2> exact(want.data(), {kTokens, c.hidden});
    const double bound = 100 * test::kEps * test::largest(exact);
    for (CpuExec& exec : test::contexts())
      for (const Layer* parameters : {&layer, &fused}) {
        const MixtureOfExperts<CpuExec> moe(ParameterReader<CpuExec>(*parameters, exec), c);
        for (Phase phase : {Phase::prefill, Phase::decode}) {
          out.poison();
          moe(x.cview(), out.view(), phase, exec);
          test::expect_close(out.cview(), exact, [&](Index) { return bound; });
          out.expect_padding_untouched();
        }
      }
  }
}

// Bits that may depend on the phase alone.
TEST(MixtureOfExperts, ATokenDoesNotSeeTheOthersNorTheThreads) {
  std::mt19937 rng(3);
  for (const MoeConfig& c : {softmax_config(), sigmoid_config(), plain_config()})
    for (DType dtype : {DType::f32, DType::bf16}) {
      constexpr Index kTokens = 150;
      const Layer layer(c, false, dtype);
      Array<2> x({kTokens, c.hidden}), out({kTokens, c.hidden});
      x.normal(rng);
      CpuExec one({1}), three({3});
      const MixtureOfExperts<CpuExec> moe(ParameterReader<CpuExec>(layer, one), c);
      for (Phase phase : {Phase::prefill, Phase::decode}) {
        moe(x.cview(), out.view(), phase, three);
        std::vector<float> alone(static_cast<std::size_t>(c.hidden));
        for (Index t : {Index{0}, Index{77}, kTokens - 1}) {
          moe(x.cview().slice(0, t, t + 1), {alone.data(), {1, c.hidden}}, phase, one);
          EXPECT_EQ(alone, std::vector<float>(out.view().at(t), out.view().at(t) + c.hidden));
        }
      }
      moe(x.cview().slice(0, 0, 0), out.view().slice(0, 0, 0), Phase::prefill, one);
    }
}

TEST(MixtureOfExperts, ReadsFusedExpertsWhereTheyAre) {
  const MoeConfig c = softmax_config();
  const Layer fused(c, true);
  CpuExec exec;
  const ParameterReader<CpuExec> r(fused, exec);
  const Parameter both = r.tensor("experts.gate_up_proj", {c.experts, 2 * c.width, c.hidden});
  const Parameter third = slice(both, 2, 3);
  EXPECT_EQ(third.data, static_cast<const float*>(both.data) + 2 * 2 * c.width * c.hidden);
  EXPECT_EQ(r.matrix(third, 2 * c.width, c.hidden).values().data, third.data);
}

TEST(MixtureOfExperts, CountsTheExpertsThatATokenDoesNotRead) {
  const MoeConfig c = softmax_config();
  CpuExec exec;
  const Layer layer(c);
  const ParameterReader<CpuExec> r(layer, exec);
  const MixtureOfExperts<CpuExec> moe(r, c);
  EXPECT_EQ(r.count().idle_elements, (c.experts - c.chosen) * 3 * c.width * c.hidden);
  EXPECT_EQ(r.count().idle_bytes, 4 * r.count().idle_elements);
}

}  // namespace
}  // namespace ashlar
