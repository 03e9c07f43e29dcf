// SPDX-License-Identifier: Apache-2.0
// Layers in double by plain loops, with the weights that RandomParameters makes, and the ways in which a
// mixer must give the same.
#pragma once
#include <numeric>

#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/random_parameters.hpp"
#include "tests/support.hpp"

namespace ashlar::test {

using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;

class Weights {
 public:
  explicit Weights(std::uint64_t seed) : source_(DType::f32, seed) {}
  const RandomParameters& source() const { return source_; }
  // The elements of a tensor, row-major.
  Vector flat(const char* name, std::vector<Index> shape) const {
    const Parameter p = source_.make(name, shape);
    return {static_cast<const float*>(p.data), static_cast<const float*>(p.data) + p.size()};
  }
  Matrix matrix(const char* name, Index rows, Index columns) const {
    const Vector all = flat(name, {rows, columns});
    Matrix m;
    for (Index i = 0; i < rows; ++i)
      m.emplace_back(all.begin() + i * columns, all.begin() + (i + 1) * columns);
    return m;
  }

 private:
  RandomParameters source_;
};

// The states of H heads, [K, V] each.
inline std::vector<Matrix> zero_states(Index heads, Index key_dim, Index value_dim) {
  const Matrix one(static_cast<std::size_t>(key_dim), Vector(static_cast<std::size_t>(value_dim)));
  return std::vector<Matrix>(static_cast<std::size_t>(heads), one);
}

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double silu(double x) { return x * sigmoid(x); }
inline Vector times(const Matrix& m, const Vector& x) {
  Vector y;
  for (const Vector& row : m) y.push_back(std::inner_product(row.begin(), row.end(), x.begin(), 0.0));
  return y;
}
// x + mu (before - x)
inline Vector shifted(const Vector& x, const Vector& before, const Vector& mu) {
  Vector y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] + mu[i] * (before[i] - x[i]);
  return y;
}
template <class F>
Vector each(Vector x, F&& f) {
  for (double& e : x) e = f(e);
  return x;
}
// Layer norm of x[begin, begin + n).
inline void layer_norm_at(Vector& x, std::size_t begin, std::size_t n, const Vector& weight,
                          const Vector& bias, double eps) {
  double mean = 0, square = 0;
  for (std::size_t i = begin; i < begin + n; ++i) mean += x[i] / double(n);
  for (std::size_t i = begin; i < begin + n; ++i) square += (x[i] - mean) * (x[i] - mean) / double(n);
  for (std::size_t i = begin; i < begin + n; ++i)
    x[i] = weight[i] * (x[i] - mean) / std::sqrt(square + eps) + bias[i];
}
inline double largest(const Matrix& m) {
  double most = 0;
  for (const Vector& row : m)
    for (double e : row) most = std::max(most, std::abs(e));
  return most;
}
inline Matrix rows_of(View<const float, 2> x) {
  Matrix m;
  for (Index t = 0; t < x.shape[0]; ++t) m.emplace_back(x.at(t), x.at(t) + x.shape[1]);
  return m;
}

// [H, Dk, Dv]
inline std::vector<float> exported(const RecurrentState& state) {
  std::vector<float> s(static_cast<std::size_t>(state.heads() * state.key_dim() * state.value_dim()));
  if (!s.empty()) state.export_to({s.data(), {state.heads(), state.key_dim(), state.value_dim()}});
  return s;
}

// One sequence x [T, D] through f(x, out, batch): whole without a state, token by token and in pieces with
// one, all within `bound` of `want`; behind an empty sequence and before another one, the same bits as alone.
// `shared` [T, W] is the batch's shared buffer, where f has one.
template <class NewState, class F>
void check_every_way(Array<2>& x, const Matrix& want, double bound, NewState&& new_state, F&& f,
                     View<float, 2> shared = {}) {
  const Index tokens = x.view().shape[0], width = x.view().shape[1];
  Array<2> out({tokens, width});
  auto piece = [&](Index begin, Index end, std::span<LayerState<CpuExec>* const> states, Phase phase) {
    SequenceBatch<CpuExec> batch;
    batch.states = states, batch.phase = phase;
    if (shared) batch.shared = shared.slice(0, begin, end);
    f(x.cview().slice(0, begin, end), out.view().slice(0, begin, end), batch);
  };
  for (Index step : {tokens, Index{1}, Index{4}}) {
    SCOPED_TRACE(testing::Message() << "in steps of " << step);
    out.poison();
    LayerState<CpuExec> state = new_state();
    LayerState<CpuExec>* const states[] = {&state};
    for (Index t = 0; t < tokens; t += step)
      piece(t, std::min(tokens, t + step), step == tokens ? std::span<LayerState<CpuExec>* const>() : states,
            step == 1 ? Phase::decode : Phase::prefill);
    for (Index t = 0; t < tokens; ++t)
      for (Index i = 0; i < width; ++i)
        ASSERT_NEAR(out.view()(t, i), want[std::size_t(t)][std::size_t(i)], bound) << t << ", " << i;
    out.expect_padding_untouched();
  }

  // Alone, and in a batch: [], x, the first 5 of x.
  const Index five = std::min<Index>(5, tokens), all = tokens + five;
  LayerState<CpuExec> alone = new_state(), part = new_state(), first = new_state(), second = new_state(),
                      third = new_state();
  LayerState<CpuExec>*const whole_state[] = {&alone}, *const part_state[] = {&part},
                            *const three[] = {&first, &second, &third};
  piece(0, five, part_state, Phase::prefill);
  Array<2> out_of_part = out;
  piece(0, tokens, whole_state, Phase::prefill);
  Array<2> packed({all, width}), together({all, width});
  Array<2> shares({all, shared ? shared.shape[1] : 1});
  for (Index t = 0; t < all; ++t) {
    std::copy_n(x.view().at(t % tokens), width, packed.view().at(t));
    if (shared) std::copy_n(shared.at(t % tokens), shared.shape[1], shares.view().at(t));
  }
  const std::vector<Index> offsets{0, 0, tokens, all};
  SequenceBatch<CpuExec> batch;
  batch.offsets = offsets, batch.states = three;
  if (shared) batch.shared = shares.view();
  f(packed.cview(), together.view(), batch);
  expect_close(together.view().slice(0, 0, tokens), View<const float, 2>(out.view()),
               [](Index) { return 0; });
  expect_close(together.view().slice(0, tokens, all),
               View<const float, 2>(out_of_part.view().slice(0, 0, five)), [](Index) { return 0; });
  auto equal = [](const InputTail<CpuExec>& a, const InputTail<CpuExec>& b) {
    return a.size() == b.size() && std::equal(a.view().data, a.view().data + a.size(), b.view().data);
  };
  for (const auto& pair : {std::pair(&alone, &second), std::pair(&part, &third)}) {
    EXPECT_TRUE(equal(pair.first->inputs, pair.second->inputs));
    EXPECT_TRUE(equal(pair.first->mlp_inputs, pair.second->mlp_inputs));
    EXPECT_EQ(exported(pair.first->recurrent), exported(pair.second->recurrent));
  }
  const LayerState<CpuExec> untouched = new_state();
  EXPECT_TRUE(equal(first.inputs, untouched.inputs) && equal(first.mlp_inputs, untouched.mlp_inputs));
}

}  // namespace ashlar::test
