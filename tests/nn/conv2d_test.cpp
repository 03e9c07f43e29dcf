// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/conv2d.hpp"

#include "ashlar/nn/squeeze_excite.hpp"
#include "ashlar/ref/conv2d.hpp"
#include "ashlar/ref/scale_channels.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;
using Reader = ParameterReader<CpuExec>;

// Random tensors by name.
struct Weights : ParameterMap {
  template <int Rank>
  View<const float, Rank> add(const std::string& name, std::array<Index, Rank> shape, float low = -1,
                              float high = 1) {
    auto values = std::make_shared<Tensor<float, Rank>>(shape);
    std::uniform_real_distribution<float> u(low, high);
    for (Index i = 0; i < values->size(); ++i) values->data()[i] = u(rng);
    set(name, {values->data(), DType::f32, {shape.begin(), shape.end()}, values});
    return std::as_const(*values).view();
  }
  std::mt19937 rng{1};
};

// A view's numbers in double, packed.
template <int Rank>
struct Exact {
  explicit Exact(View<const float, Rank> v)
      : values(v.data, v.data + v.size()), view(values.data(), v.shape) {}
  std::vector<double> values;
  View<const double, Rank> view;
};

TEST(Conv2dModule, ReadsItsFilters) {
  Weights weights;
  const Exact<4> filters(weights.add<4>("body.0.weight", {10, 3, 3, 3}));
  const Exact<1> bias(weights.add<1>("body.0.bias", {10}));
  CpuExec exec;
  const Reader reader(weights, exec);
  const Conv2d<CpuExec> conv(reader, "body.0", 6, 10,
                             Conv2dOptions::same(3).grouped(2).with(Activation::leaky_relu, 0.2f));
  reader.expect_all_read([](std::string_view) { return false; });
  Array<4> x({2, 5, 7, 6}), residual({2, 5, 7, 10}), out({2, 5, 7, 10});
  x.uniform(weights.rng, -1, 1), residual.uniform(weights.rng, -1, 1);
  ASSERT_EQ(conv.out_shape({2, 5, 7, 6}), (std::array<Index, 4>{2, 5, 7, 10}));
  conv(x.cview(), out.view(), exec, residual.cview());
  std::vector<double> values(2 * 5 * 7 * 10);
  const View<double, 4> want(values.data(), {2, 5, 7, 10});
  ref::conv2d<double>({x.exact(),
                       filters.view,
                       bias.view,
                       want,
                       2,
                       {{1, 1}, {1, 1}},
                       Activation::leaky_relu,
                       0.2f,
                       residual.exact()});
  test::expect_close(out.view(), want, [](Index) { return 28 * 28 * test::kEps; });
}

TEST(Conv2dModule, FoldsItsNorm) {
  Weights weights;
  const Exact<4> filters(weights.add<4>("conv.weight", {10, 6, 3, 3}));
  const auto scale = weights.add<1>("bn.weight", {10}), shift = weights.add<1>("bn.bias", {10}),
             mean = weights.add<1>("bn.running_mean", {10}),
             var = weights.add<1>("bn.running_var", {10}, 0.1f, 2);
  weights.add<1>("bn.num_batches_tracked", {1});
  CpuExec exec;
  const Reader reader(weights, exec);
  Conv2dOptions options;
  options.steps.stride = {2, 2};
  const Conv2d<CpuExec> conv(reader, "conv", "bn", 6, 10, options.unbiased().with(Activation::relu), 1e-3);
  reader.expect_all_read([](std::string_view) { return false; });
  Array<4> x({1, 5, 8, 6}), out({1, 3, 4, 10});
  x.uniform(weights.rng, -1, 1);
  conv(x.cview(), out.view(), exec);
  std::vector<double> values(3 * 4 * 10);
  const View<double, 4> want(values.data(), {1, 3, 4, 10});
  ref::conv2d<double>({x.exact(), filters.view, {}, want, 1, options.steps});
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Index c = static_cast<Index>(i % 10);
    values[i] = (values[i] - mean(c)) / std::sqrt(static_cast<double>(var(c)) + 1e-3) * scale(c) + shift(c);
    values[i] = std::max(values[i], 0.0);
  }
  // 55 terms, each times at most 1 / sqrt(0.1).
  test::expect_close(out.view(), want, [](Index) { return 3.2 * 55 * 57 * test::kEps; });
}

TEST(Conv2dModule, RefusesWhatIsNotThere) {
  Weights weights;
  weights.add<4>("conv.weight", {10, 6, 3, 3});
  CpuExec exec;
  const Reader reader(weights, exec);
  EXPECT_EQ(test::refusal([&] { Conv2d<CpuExec>(reader, "conv", 6, 10, {}); }),
            "checkpoint: there is no tensor \"conv.bias\"");
  EXPECT_EQ(test::refusal([&] { Conv2d<CpuExec>(reader, "conv", 6, 10, Conv2dOptions::same(1)); }),
            "checkpoint: tensor \"conv.weight\" has shape [10, 6, 3, 3], expected [10, 6, 1, 1]");
  EXPECT_EQ(test::refusal([&] { Conv2d<CpuExec>(reader, "conv", 6, 10, Conv2dOptions().grouped(4)); }),
            "Conv2d: 4 groups do not divide 6 inputs and 10 outputs");
  EXPECT_TRUE(Conv2d<CpuExec>(reader, "conv", 6, 10, Conv2dOptions().unbiased()));
}

TEST(SqueezeExcite, MatchesTheEquation) {
  Weights weights;
  const Exact<4> w1(weights.add<4>("attention.1.weight", {3, 9, 1, 1})),
      w2(weights.add<4>("attention.3.weight", {9, 3, 1, 1}));
  const Exact<1> b1(weights.add<1>("attention.1.bias", {3})), b2(weights.add<1>("attention.3.bias", {9}));
  CpuExec exec;
  const Reader reader(weights, exec);
  const SqueezeExcite<CpuExec> module(reader, "attention.1", "attention.3", 9, 3);
  reader.expect_all_read([](std::string_view) { return false; });
  Array<4> x({2, 5, 7, 9}), add({2, 5, 7, 9}), out({2, 5, 7, 9});
  x.uniform(weights.rng, -1, 1), add.uniform(weights.rng, -1, 1);
  std::vector<double> gates(18), values(2 * 5 * 7 * 9);
  for (Index n = 0; n < 2; ++n) {
    double mean[9] = {}, inner[3];
    for (Index c = 0; c < 9; ++c)
      for (Index p = 0; p < 35; ++p) mean[c] += static_cast<double>(x.view()(n, p / 7, p % 7, c)) / 35;
    for (Index j = 0; j < 3; ++j) {
      inner[j] = b1.view(j);
      for (Index c = 0; c < 9; ++c) inner[j] += w1.view(j, c, 0, 0) * mean[c];
      inner[j] = std::max(inner[j], 0.0);
    }
    for (Index c = 0; c < 9; ++c) {
      double z = b2.view(c);
      for (Index j = 0; j < 3; ++j) z += w2.view(c, j, 0, 0) * inner[j];
      gates[static_cast<std::size_t>(n * 9 + c)] = 1 / (1 + std::exp(-z));
    }
  }
  const View<double, 4> want(values.data(), {2, 5, 7, 9});
  ref::scale_channels<double>({x.exact(), {gates.data(), {2, 9}}, want, 0.01, add.exact()});
  module(x.cview(), out.view(), exec, 0.01f, add.cview());
  test::expect_close(out.view(), want, [](Index) { return 4 * test::kEps; });
  // On its own memory, and that of what is added.
  Array<4> own = x, sum = add;
  module(own.cview(), own.view(), exec, 0.01f, add.cview());
  module(x.cview(), sum.view(), exec, 0.01f, sum.cview());
  test::expect_close(own.view(), out.cview(), [](Index) { return 0; });
  test::expect_close(sum.view(), out.cview(), [](Index) { return 0; });
}

}  // namespace
}  // namespace ashlar
