// SPDX-License-Identifier: Apache-2.0
// Ways to run a mixer, and single weights of RandomParameters in double.
#pragma once
#include "tests/nn/reference.hpp"

namespace ashlar::test {

using Row = Vector;
using Rows = Matrix;

inline Row make_vector(const ParameterSource& p, const std::string& name, Index n) {
  const Tensor<float, 1> values = to_floats(p.make(name, std::array{n}));
  return {values.data(), values.data() + n};
}
inline Rows make_matrix(const ParameterSource& p, const std::string& name, Index rows, Index columns) {
  const Tensor<float, 1> values = to_floats(p.make(name, std::array{rows, columns}));
  Rows m;
  for (Index r = 0; r < rows; ++r)
    m.emplace_back(values.data() + r * columns, values.data() + (r + 1) * columns);
  return m;
}
// weight x / sqrt(mean(x^2) + eps)
inline Row rms_norm(Row x, const Row& weight, double eps) {
  const double mean = std::inner_product(x.begin(), x.end(), x.begin(), 0.0) / static_cast<double>(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) x[i] *= weight[i] / std::sqrt(mean + eps);
  return x;
}
inline void expect_rows(View<const float, 2> got, const Rows& want, double bound) {
  ASSERT_EQ(got.shape[0], static_cast<Index>(want.size()));
  for (Index t = 0; t < got.shape[0]; ++t)
    for (Index i = 0; i < got.shape[1]; ++i)
      ASSERT_NEAR(got(t, i), want[static_cast<std::size_t>(t)][static_cast<std::size_t>(i)], bound)
          << "token " << t << ", channel " << i;
}

// Runs a mixer over a sequence: all at once without a state, or `step` tokens at a time with one; one at a
// time is decoding.
template <class M>
void run_in_steps(const M& mixer, View<const float, 2> x, View<float, 2> out, Index step, CpuExec& exec) {
  const Index tokens = x.shape[0];
  LayerState<CpuExec> state = mixer.new_state(tokens);
  LayerState<CpuExec>* const states[] = {&state};
  std::vector<Index> positions(static_cast<std::size_t>(tokens));
  std::iota(positions.begin(), positions.end(), Index{0});
  for (Index t = 0; t < tokens; t += step) {
    const Index end = std::min(tokens, t + step);
    SequenceBatch<CpuExec> batch;
    batch.positions = {positions.data() + t, {end - t}};
    if (step < tokens) batch.states = states;
    if (step == 1) batch.phase = Phase::decode;
    mixer(x.slice(0, t, end), out.slice(0, t, end), batch, exec);
  }
}

// Each sequence of a packed batch, an empty one among them, has the bits that it has alone; with one thread
// and with three.
template <class M>
void expect_batches_do_not_matter(const M& mixer, Index hidden, Phase phase) {
  std::mt19937 rng(12);
  const std::vector<Index> starts =
      phase == Phase::decode ? std::vector<Index>{0, 1, 2, 3} : std::vector<Index>{0, 5, 5, 18};
  const Index tokens = starts.back(), count = static_cast<Index>(starts.size()) - 1;
  Array<2> x({tokens, hidden}), out({tokens, hidden});
  x.normal(rng);
  std::vector<Index> positions(static_cast<std::size_t>(tokens));
  CpuExec one({1}), three({3});
  std::vector<LayerState<CpuExec>> states;
  std::vector<LayerState<CpuExec>*> pointers;
  for (Index n = 0; n < count; ++n) states.push_back(mixer.new_state(20));
  for (auto& state : states) pointers.push_back(&state);
  for (Index n = 0; n < count; ++n)
    for (Index t = starts[static_cast<std::size_t>(n)]; t < starts[static_cast<std::size_t>(n) + 1]; ++t)
      positions[static_cast<std::size_t>(t)] = t - starts[static_cast<std::size_t>(n)];
  SequenceBatch<CpuExec> batch{starts, {positions.data(), {tokens}}, pointers, phase};
  mixer(x.cview(), out.view(), batch, three);
  for (Index n = 0; n < count; ++n) {
    const Index begin = starts[static_cast<std::size_t>(n)], end = starts[static_cast<std::size_t>(n) + 1];
    std::vector<float> alone(static_cast<std::size_t>((end - begin) * hidden));
    LayerState<CpuExec> state = mixer.new_state(20);
    LayerState<CpuExec>* const mine[] = {&state};
    SequenceBatch<CpuExec> single{{}, {positions.data() + begin, {end - begin}}, mine, phase};
    mixer(x.cview().slice(0, begin, end), {alone.data(), {end - begin, hidden}}, single, one);
    for (Index t = begin; t < end; ++t)
      for (Index i = 0; i < hidden; ++i)
        ASSERT_EQ(alone[static_cast<std::size_t>((t - begin) * hidden + i)], out.view()(t, i));
  }
}

}  // namespace ashlar::test
