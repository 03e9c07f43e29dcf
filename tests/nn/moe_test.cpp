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

// Experts of their own, or fused as the configuration says: the same numbers, once in each layout.
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
    if (c.fused == FusedExperts::interleaved_columns) return by_columns(both, shape);
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
  Parameter by_columns(bool both, std::span<const Index> shape) const {
    auto owner = std::make_shared<std::vector<float>>();
    for (Index e = 0; e < shape[0]; ++e) {
      const std::string expert = concat("experts.", e, ".");
      const Matrix one = both ? matrix(expert + "gate_proj.weight", c.width, c.hidden)
                              : matrix(expert + "down_proj.weight", c.hidden, c.width);
      const Matrix up = both ? matrix(expert + "up_proj.weight", c.width, c.hidden) : Matrix();
      for (std::size_t column = 0; column < one[0].size(); ++column)
        for (std::size_t row = 0; row < one.size(); ++row) {
          owner->push_back(static_cast<float>(one[row][column]));
          if (both) owner->push_back(static_cast<float>(up[row][column]));
        }
    }
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

// gpt-oss: biases, clipped gates, up + 1.
std::vector<double> clipped_expert(const Layer& layer, Index e, const std::vector<double>& x) {
  const MoeConfig& c = layer.c;
  const std::string prefix = concat("experts.", e, ".");
  const Matrix both = layer.matrix("experts.gate_up_proj_bias", c.experts, 2 * c.width),
               last = layer.matrix("experts.down_proj_bias", c.experts, c.hidden);
  const std::vector<double>&both_bias = both[std::size_t(e)], &down_bias = last[std::size_t(e)];
  const bool columns = c.fused == FusedExperts::interleaved_columns;
  const std::size_t width = std::size_t(c.width);
  auto gate = times(layer.matrix(prefix + "gate_proj.weight", c.width, c.hidden), x);
  const auto up = times(layer.matrix(prefix + "up_proj.weight", c.width, c.hidden), x);
  const double limit = c.limit, slope = c.slope;
  for (std::size_t i = 0; i < width; ++i) {
    const double g = std::min(gate[i] + both_bias[columns ? 2 * i : i], limit),
                 u = std::clamp(up[i] + both_bias[columns ? 2 * i + 1 : width + i], -limit, limit);
    gate[i] = g * sigmoid(slope * g) * (u + 1);
  }
  auto y = times(layer.matrix(prefix + "down_proj.weight", c.hidden, c.width), gate);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += down_bias[i];
  return y;
}

std::vector<double> expected(const Layer& layer, const std::vector<double>& x) {
  const MoeConfig& c = layer.c;
  std::vector<double> logits = times(layer.matrix("gate.weight", c.experts, c.hidden), x);
  if (c.biased)
    for (Index e = 0; e < c.experts; ++e)
      logits[std::size_t(e)] += layer.matrix("gate.bias", c.experts, 1)[std::size_t(e)][0];
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
    add(weights[j], c.biased ? clipped_expert(layer, ids[j], x)
                             : expert(layer, concat("experts.", Index{ids[j]}, "."), c.width, x));
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

MoeConfig clipped_config(FusedExperts fused) {
  MoeConfig c{38, 35, 6, 2};
  c.fused = fused, c.biased = true, c.slope = 1.702f, c.limit = 1.5f, c.up_offset = 1;
  return c;
}

TEST(MixtureOfExperts, MatchesTheEquations) {
  std::mt19937 rng(2);
  for (const MoeConfig& c :
       {softmax_config(), sigmoid_config(), plain_config(), clipped_config(FusedExperts::rows),
        clipped_config(FusedExperts::interleaved_columns)}) {
    constexpr Index kTokens = 23;
    const Layer fused(c, true), layer(c, c.biased);
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
  for (const MoeConfig& c : {softmax_config(), sigmoid_config(), plain_config(),
                             clipped_config(FusedExperts::interleaved_columns)})
    for (DType dtype : {DType::f32, DType::bf16}) {
      constexpr Index kTokens = 150;
      const Layer layer(c, c.biased, dtype);
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

TEST(MixtureOfExperts, WithoutLimitSlopeAndOffsetTheClippedUnitIsTheUsualOne) {
  std::mt19937 rng(4);
  MoeConfig usual = plain_config(), columns = usual;
  columns.fused = FusedExperts::interleaved_columns;
  CpuExec exec;
  Array<2> x({9, usual.hidden}), want({9, usual.hidden}), got({9, usual.hidden});
  x.normal(rng);
  const Layer rows(usual, true), by_columns(columns, true);
  MixtureOfExperts<CpuExec>(ParameterReader<CpuExec>(rows, exec), usual)(x.cview(), want.view(),
                                                                         Phase::prefill, exec);
  MixtureOfExperts<CpuExec>(ParameterReader<CpuExec>(by_columns, exec), columns)(x.cview(), got.view(),
                                                                                 Phase::prefill, exec);
  test::expect_close(got.view(), want.cview(), [](Index) { return 0; });
}

TEST(MixtureOfExperts, RefusesBiasesThatItDoesNotRead) {
  MoeConfig c = plain_config();
  c.biased = true;
  CpuExec exec;
  const Layer layer(c);
  EXPECT_EQ(test::refusal([&] { MixtureOfExperts<CpuExec>(ParameterReader<CpuExec>(layer, exec), c); }),
            "MixtureOfExperts: biases of experts in tensors of their own, expected fused ones");
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
