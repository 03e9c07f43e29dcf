// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/window_bias.hpp"

#include <algorithm>
#include <cmath>

namespace ashlar {
inline namespace v0 {

namespace {

// x W^T + b for each row, in double: tables are small, and made once.
Tensor<double, 2> linear(const Tensor<double, 2>& x, const Tensor<float, 1>& weight, Index out,
                         const Tensor<float, 1>* bias) {
  const Index rows = x.shape()[0], in = x.shape()[1];
  Tensor<double, 2> y({rows, out});
  for (Index r = 0; r < rows; ++r)
    for (Index o = 0; o < out; ++o) {
      double sum = bias != nullptr ? bias->data()[o] : 0.0;
      for (Index i = 0; i < in; ++i) sum += static_cast<double>(weight.data()[o * in + i]) * x.view()(r, i);
      y.view()(r, o) = sum;
    }
  return y;
}

Tensor<double, 2> linear(const Tensor<double, 2>& x, const ParameterLookup& r, const Names& names, Index out,
                         bool biased = true) {
  const Tensor<float, 1> weight = to_floats(r.tensor(names.with(".weight"), {out, x.shape()[1]}));
  if (!biased) return linear(x, weight, out, nullptr);
  const Tensor<float, 1> bias = to_floats(r.tensor(names.with(".bias"), {out}));
  return linear(x, weight, out, &bias);
}

void relu(Tensor<double, 2>& x) {
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = std::max(x.data()[i], 0.0);
}

void layer_norm(Tensor<double, 2>& x, const ParameterLookup& r, const Names& names) {
  const Index dim = x.shape()[1];
  const Tensor<float, 1> weight = to_floats(r.tensor(names.with(".weight"), {dim})),
                         bias = to_floats(r.tensor(names.with(".bias"), {dim}));
  for (Index row = 0; row < x.shape()[0]; ++row) {
    double *y = x.view().at(row), mean = 0, var = 0;
    for (Index c = 0; c < dim; ++c) mean += y[c] / static_cast<double>(dim);
    for (Index c = 0; c < dim; ++c) var += (y[c] - mean) * (y[c] - mean) / static_cast<double>(dim);
    for (Index c = 0; c < dim; ++c)
      y[c] = (y[c] - mean) / std::sqrt(var + 1e-5) * weight.data()[c] + bias.data()[c];
  }
}

Tensor<double, 2> widened(const Tensor<float, 2>& x) {
  Tensor<double, 2> y(x.shape());
  std::copy_n(x.data(), x.size(), y.data());
  return y;
}

template <class F>
Tensor<float, 2> narrowed(const Tensor<double, 2>& x, F&& f) {
  Tensor<float, 2> y(x.shape());
  for (Index i = 0; i < x.size(); ++i) y.data()[i] = static_cast<float>(f(x.data()[i]));
  return y;
}

}  // namespace

Tensor<float, 2> learned_position_table(const ParameterLookup& r, Index rows, Index heads) {
  const Tensor<float, 1> values = to_floats(r.tensor("relative_position_bias_table", {rows, heads}));
  Tensor<float, 2> table({rows, heads});
  std::copy_n(values.data(), values.size(), table.data());
  return table;
}

Tensor<float, 2> log_position_table(const ParameterLookup& r, std::array<Index, 2> window,
                                    std::array<Index, 2> pretrained, Index heads) {
  const Names mlp{"cpb_mlp", "continuous_position_bias_mlp", "self.continuous_position_bias_mlp"};
  const Names first = mlp.with(".0"), second = mlp.with(".2");
  const Index hidden = r.rows(first.with(".weight"), 512);
  Tensor<double, 2> x = linear(widened(log_position_coordinates(window, pretrained)), r, first, hidden);
  relu(x);
  return narrowed(linear(x, r, second, heads, false), [](double t) { return 16 / (1 + std::exp(-t)); });
}

Tensor<float, 2> dynamic_position_table(const ParameterLookup& r, std::array<Index, 2> window, Index heads) {
  const Index width = r.rows("pos.pos_proj.weight", std::max<Index>(1, heads));
  Tensor<double, 2> x = linear(widened(position_offsets(window)), r, "pos.pos_proj", width);
  for (int stage = 1; stage <= 3; ++stage) {
    const std::string name = concat("pos.pos", stage);
    layer_norm(x, r, name + ".0");
    relu(x);
    x = linear(x, r, name + ".2", stage == 3 ? heads : width);
  }
  return narrowed(x, [](double t) { return t; });
}

}  // namespace v0
}  // namespace ashlar
