// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/mixers/window_attention.hpp"

#include <functional>

#include "ashlar/ref/window_attention.hpp"
#include "tests/nn/reference.hpp"

namespace ashlar {
namespace {

using test::Matrix;
using test::Vector;

// Tensors with random elements, kept for the comparison.
class Checkpoint {
 public:
  Checkpoint& add(const std::string& name, std::vector<Index> shape, float deviation = 0.5f) {
    Index size = 1;
    for (Index e : shape) size *= e;
    auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(size));
    std::normal_distribution<float> normal(0, deviation);
    for (float& x : *values) x = normal(rng_);
    parameters_->set(name, {values->data(), DType::f32, std::move(shape), values});
    return *this;
  }
  Checkpoint& linear(const std::string& name, Index out, Index in) {
    return add(name + ".weight", {out, in}, 1 / std::sqrt(static_cast<float>(in))).add(name + ".bias", {out});
  }
  const Parameters& parameters() const { return *parameters_; }
  Vector flat(const std::string& name) const {
    if (!parameters_->contains(name)) return {};
    const Parameter p = parameters_->at(name);
    return {static_cast<const float*>(p.data), static_cast<const float*>(p.data) + p.size()};
  }

 private:
  std::mt19937 rng_{7};
  std::shared_ptr<ParameterMap> parameters_ = std::make_shared<ParameterMap>();
};

// out[t, from...] = W x[t] + b for rows of `in` elements.
void linear(const Vector& x, Index in, const Vector& weight, const Vector& bias, Vector& out, Index pitch,
            Index from) {
  const Index rows = static_cast<Index>(weight.size()) / in;
  for (Index t = 0; t < static_cast<Index>(x.size()) / in; ++t)
    for (Index o = 0; o < rows; ++o) {
      double sum = bias.empty() ? 0 : bias[static_cast<std::size_t>(o)];
      for (Index i = 0; i < in; ++i)
        sum += weight[static_cast<std::size_t>(o * in + i)] * x[static_cast<std::size_t>(t * in + i)];
      out[static_cast<std::size_t>(t * pitch + from + o)] = sum;
    }
}

struct Layer {
  WindowAttentionConfig config;
  std::array<Index, 4> shape;
  Index views = 1;
  std::vector<Tensor<float, 2>> tables;  // of the branches with a bias
};

// The equation in double, from q, k, v that a test has projected in its way: [T, 3 C].
Vector expected(const Layer& l, const Checkpoint& c, Vector qkv) {
  const auto [images, height, width, dim] = l.shape;
  Index heads = 0, first = 0;
  for (const WindowBranch& b : l.config.branches) heads += b.heads;
  Vector attended(static_cast<std::size_t>(images * height * width * dim));
  const View<double, 4> all(qkv.data(), {images, height, width, 3 * dim}), out(attended.data(), l.shape);
  std::size_t table = 0;
  for (const WindowBranch& b : l.config.branches) {
    const Index end = first + b.heads * dim / heads;
    WindowAttentionArgs<double> a{all.slice(3, first, end),
                                  all.slice(3, dim + first, dim + end),
                                  all.slice(3, 2 * dim + first, 2 * dim + end),
                                  out.slice(3, first, end),
                                  b.heads,
                                  b.map({height, width}, l.views),
                                  b.key_map({height, width})};
    Vector tau = l.config.cosine ? c.flat("logit_scale") : Vector();
    for (double& t : tau) t = std::exp(std::min(t, std::log(100.0)));
    if (!tau.empty()) a.tau = {tau.data(), {b.heads}};
    Vector bias;
    if (b.bias != PositionBias::none) {
      const auto index = b.overlap != 0 ? overlapping_position_index(b.window[0], b.overlap)
                                        : window_position_index(b.window);
      for (Index h = 0; h < b.heads; ++h)
        for (Index i = 0; i < index.size(); ++i) bias.push_back(l.tables[table].view()(index.data()[i], h));
      a.bias = {bias.data(), {b.heads, index.shape()[0], index.shape()[1]}};
      ++table;
    }
    ref::window_attention(a);
    first = end;
  }
  if (l.config.value_conv) {
    const std::string name = c.parameters().contains("IFS.weight") ? "IFS" : "get_v";
    const Vector weight = c.flat(name + ".weight"), bias = c.flat(name + ".bias");
    const Index filters = static_cast<Index>(bias.size());
    const View<const double, 4> v = all.slice(3, 2 * dim, 3 * dim);
    for (Index n = 0; n < images; ++n)
      for (Index y = 0; y < height; ++y)
        for (Index x = 0; x < width; ++x)
          for (Index ch = 0; ch < dim; ++ch) {
            double sum = bias[static_cast<std::size_t>(ch % filters)];
            for (Index i = -1; i <= 1; ++i)
              for (Index j = -1; j <= 1; ++j)
                if (y + i >= 0 && y + i < height && x + j >= 0 && x + j < width)
                  sum += weight[static_cast<std::size_t>(ch % filters * 9 + (i + 1) * 3 + j + 1)] *
                         v(n, y + i, x + j, ch);
            out(n, y, x, ch) += sum;
          }
  }
  Vector result(attended.size());
  linear(attended, dim, c.flat("proj.weight"), c.flat("proj.bias"), result, dim, 0);
  return result;
}

void expect_layer(const Layer& l, const Checkpoint& c, const std::function<Vector(const Vector&)>& project) {
  CpuExec exec;
  const ParameterReader<CpuExec> r(c.parameters(), exec);
  const WindowSelfAttention<CpuExec> layer(r, l.config);
  r.expect_all_read([](std::string_view) { return false; });
  Tensor<float, 4> x(l.shape), out(l.shape);
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = normal(rng);
  layer(x.view(), out.view(), exec, l.views);
  const Vector want = expected(l, c, project({x.data(), x.data() + x.size()}));
  const View<const double, 4> wanted(want.data(), l.shape);
  // Two projections around an attention, each a sum of `dim` roundings of its magnitude.
  const double bound = 40 * test::kEps * test::largest(wanted);
  test::expect_close(out.view(), wanted, [=](Index) { return bound; });
  layer(x.view(), x.view(), exec, l.views);
  test::expect_close(x.view(), View<const float, 4>(out.view()), [](Index) { return 0.0; });
}

Vector fused(const Vector& x, Index dim, const Checkpoint& c, const Vector& bias) {
  Vector qkv(3 * x.size());
  linear(x, dim, c.flat("qkv.weight"), bias, qkv, 3 * dim, 0);
  return qkv;
}

Tensor<float, 2> table_of(const Checkpoint& c, Index heads) {
  const Vector all = c.flat("relative_position_bias_table");
  Tensor<float, 2> table({static_cast<Index>(all.size()) / heads, heads});
  std::copy(all.begin(), all.end(), table.data());
  return table;
}

TEST(WindowSelfAttention, OfShiftedWindowsWithATable) {
  Checkpoint c;
  c.linear("qkv", 36, 12).linear("proj", 12, 12).add("relative_position_bias_table", {49, 3});
  c.add("relative_position_index", {16, 16});
  Layer l{{.dim = 12, .branches = {WindowBranch::windows(3, 4, 2)}}, {2, 8, 12, 12}};
  l.tables.push_back(table_of(c, 3));
  expect_layer(l, c, [&](const Vector& x) { return fused(x, 12, c, c.flat("qkv.bias")); });
}

TEST(WindowSelfAttention, OfOverlappingWindows) {
  Checkpoint c;
  c.linear("qkv", 36, 12).linear("proj", 12, 12).add("relative_position_bias_table", {81, 3});
  WindowBranch branch = WindowBranch::windows(3, 4, 0);
  branch.overlap = 6;
  Layer l{{.dim = 12, .branches = {branch}}, {1, 8, 12, 12}};
  l.tables.push_back(table_of(c, 3));
  expect_layer(l, c, [&](const Vector& x) { return fused(x, 12, c, c.flat("qkv.bias")); });
}

TEST(WindowSelfAttention, WithCosineScoresAndAnMlpOfPositions) {
  Checkpoint c;
  c.add("qkv.weight", {24, 8}).add("q_bias", {8}).add("v_bias", {8}).linear("proj", 8, 8);
  c.add("logit_scale", {2, 1, 1}, 3).linear("cpb_mlp.0", 16, 2).add("cpb_mlp.2.weight", {2, 16});
  c.add("relative_coords_table", {1, 7, 7, 2}).add("relative_position_index", {16, 16});
  Layer l{{.dim = 8, .branches = {WindowBranch::windows_v2(2, 4, 2, 6)}, .cosine = true, .shift_mask = -200},
          {1, 8, 8, 8}};
  // 16 sigmoid(W_2 relu(W_1 c + b_1))
  const Vector w1 = c.flat("cpb_mlp.0.weight"), b1 = c.flat("cpb_mlp.0.bias"),
               w2 = c.flat("cpb_mlp.2.weight");
  Tensor<float, 2> table({49, 2});
  for (Index row = 0; row < 49; ++row)
    for (Index h = 0; h < 2; ++h) {
      double sum = 0;
      for (std::size_t i = 0; i < 16; ++i) {
        double hidden = b1[i];
        for (std::size_t axis = 0; axis < 2; ++axis) {
          const double d = 8 * static_cast<double>(axis == 0 ? row / 7 - 3 : row % 7 - 3) / 5;
          hidden += w1[i * 2 + axis] * (d < 0 ? -1 : 1) * std::log2(std::abs(d) + 1) / 3;
        }
        sum += w2[static_cast<std::size_t>(h) * 16 + i] * std::max(hidden, 0.0);
      }
      table.view()(row, h) = static_cast<float>(16 * test::sigmoid(sum));
    }
  l.tables.push_back(std::move(table));
  expect_layer(l, c, [&](const Vector& x) {
    Vector bias = c.flat("q_bias");
    bias.resize(16);
    for (double v : c.flat("v_bias")) bias.push_back(v);
    return fused(x, 8, c, bias);
  });
}

// Separate projections, several views, a convolution of the values.
TEST(WindowSelfAttention, OfAGridOfViews) {
  Checkpoint c;
  c.linear("to_q", 12, 12).linear("to_k", 12, 12).linear("to_v", 12, 12).linear("proj", 12, 12);
  c.add("IFS.weight", {12, 1, 3, 3}).add("IFS.bias", {12});
  Layer l{{.dim = 12, .branches = {{.heads = 3, .grid = 2}}, .value_conv = true}, {6, 4, 6, 12}, 3};
  expect_layer(l, c, [&](const Vector& x) {
    Vector qkv(3 * x.size());
    linear(x, 12, c.flat("to_q.weight"), c.flat("to_q.bias"), qkv, 36, 0);
    linear(x, 12, c.flat("to_k.weight"), c.flat("to_k.bias"), qkv, 36, 12);
    linear(x, 12, c.flat("to_v.weight"), c.flat("to_v.bias"), qkv, 36, 24);
    return qkv;
  });
}

// Two branches in a ragged image, with a convolution that heads share.
TEST(WindowSelfAttention, OfTwoBranchesWithoutBiases) {
  Checkpoint c;
  c.linear("qkv", 48, 16).linear("proj", 16, 16).add("get_v.weight", {4, 1, 3, 3}).add("get_v.bias", {4});
  const WindowBranch one{.heads = 2, .window = {2, 4}, .shift = {1, 2}, .pad_to = {4, 4}},
      other{.heads = 2, .window = {4, 2}, .shift = {2, 1}, .pad_to = {4, 4}};
  Layer l{{.dim = 16, .branches = {one, other}, .value_conv = true}, {2, 5, 9, 16}};
  expect_layer(l, c, [&](const Vector& x) { return fused(x, 16, c, c.flat("qkv.bias")); });
}

TEST(WindowSelfAttention, RefusesWhatDoesNotFit) {
  Checkpoint c;
  c.linear("qkv", 36, 12).linear("proj", 12, 12).add("relative_position_bias_table", {81, 3});
  c.add("get_v.weight", {5, 1, 3, 3}).add("get_v.bias", {5});
  CpuExec exec;
  const ParameterReader<CpuExec> r(c.parameters(), exec);
  const auto refused = [&](const WindowAttentionConfig& config) {
    return test::refusal([&] { WindowSelfAttention<CpuExec>(r, config); });
  };
  EXPECT_EQ(refused({.dim = 12, .branches = {{.heads = 5}}}),
            "WindowSelfAttention: 5 heads do not divide 12 channels");
  EXPECT_EQ(refused({.dim = 12, .branches = {}}), "WindowSelfAttention: 0 heads do not divide 12 channels");
  EXPECT_EQ(
      refused({.dim = 12, .branches = {{.heads = 3}}, .value_conv = true}),
      "ValueConv: there are 5 filters for 3 heads of 12 channels in all, expected one a channel, or one a "
      "channel of a head");
  EXPECT_EQ(refused({.dim = 12, .branches = {{.heads = 3, .bias = PositionBias::table}}}),
            "WindowSelfAttention: a position bias without windows");
  EXPECT_EQ(refused({.dim = 12, .branches = {WindowBranch::windows(3, 4, 2)}})
                    .find("relative_position_bias_table") != std::string::npos,
            true);
  const WindowSelfAttention<CpuExec> layer(r, {.dim = 12, .branches = {{.heads = 3, .window = {4, 4}}}});
  Tensor<float, 4> x({1, 4, 4, 10});
  EXPECT_EQ(test::refusal([&] { layer(x.view(), x.view(), exec); }),
            "WindowSelfAttention: x has 10 channels, expected 12");
}

}  // namespace
}  // namespace ashlar
