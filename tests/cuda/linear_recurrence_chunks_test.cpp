// SPDX-License-Identifier: Apache-2.0
// The recurrence in chunks: whatever is beside a sequence, wherever it is cut, whatever its gates.
#include <cstring>

#include "ashlar/ref/linear_recurrence.hpp"
#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using namespace test;

class CudaRecurrenceChunks : public CudaTest {};

struct Sizes {
  Index heads, shared, key_dim, value_dim;
};

// Inputs on both sides: q, k of unit length, strengths in (0, 2), values with padding behind their rows.
struct Inputs {
  Sizes s;
  Index tokens, substeps;
  bool delta;
  RecurrenceForm form = RecurrenceForm::chunk;
  Both<float, 3> q, k, v, out;
  Both<float, 2> g, beta;
  Both<float, 3> initial;

  Inputs(const Sizes& sizes, Index count, bool with_delta, Index steps = 1, float decay = -0.5f,
         Index padding = 4)
      : s(sizes),
        tokens(count),
        substeps(steps),
        delta(with_delta),
        q(unit(count, 1, padding)),
        k(unit(count * steps, 2, padding)),
        v(Both<float, 3>::random({count * steps, s.heads, s.value_dim}, 3, -1, 1, padding)),
        out({count, s.heads, s.value_dim}, 3),
        g(Both<float, 2>::random({count, s.heads}, 4, decay, 0)),
        beta(Both<float, 2>::random({count * steps, s.heads}, 5, 0, 2)),
        initial(Both<float, 3>::random({s.heads, s.key_dim, s.value_dim}, 6)) {}

  Both<float, 3> unit(Index rows, unsigned seed, Index padding) const {
    auto x = Both<float, 3>::random({rows, s.shared, s.key_dim}, seed, -1, 1, padding);
    const auto h = x.host();
    for (Index t = 0; t < rows; ++t)
      for (Index i = 0; i < s.shared; ++i) {
        float sum = 1e-12f;
        for (Index c = 0; c < s.key_dim; ++c) sum += h(t, i, c) * h(t, i, c);
        for (Index c = 0; c < s.key_dim; ++c) h(t, i, c) /= std::sqrt(sum);
      }
    x.upload();
    return x;
  }
  DeviceRecurrentState state() const {
    DeviceRecurrentState x(s.heads, s.key_dim, s.value_dim);
    x.import_from(initial.host());
    return x;
  }
  DeviceLinearRecurrence args() {
    DeviceLinearRecurrence a{q.device(), k.device(), v.device(), g.device(), {}, out.device()};
    if (delta) a.beta = beta.device();
    a.substeps = substeps, a.form = form;
    return a;
  }
  // The tokens [from, to) as one sequence.
  void part(Index from, Index to, DeviceRecurrentState& x, CudaExec& exec) {
    DeviceLinearRecurrence a = args();
    a.q = a.q.slice(0, from, to), a.g = a.g.slice(0, from, to), a.out = a.out.slice(0, from, to);
    a.k = a.k.slice(0, from * substeps, to * substeps), a.v = a.v.slice(0, from * substeps, to * substeps);
    if (a.beta) a.beta = a.beta.slice(0, from * substeps, to * substeps);
    DeviceRecurrentState* const states[] = {&x};
    a.states = states;
    linear_recurrence(a, exec);
  }
  std::vector<float> results(const DeviceRecurrentState& x, Index from, Index to) {
    out.download();
    std::vector<float> all;
    for (Index t = from; t < to; ++t)
      for (Index h = 0; h < s.heads; ++h)
        for (Index c = 0; c < s.value_dim; ++c) all.push_back(out.host()(t, h, c));
    Tensor<float, 3> values({s.heads, s.key_dim, s.value_dim});
    x.export_to(values.view());
    all.insert(all.end(), values.data(), values.data() + values.size());
    return all;
  }
  std::pair<double, double> errors(const std::vector<Index>& starts, bool with_states, CudaExec& exec) {
    const Index count = static_cast<Index>(starts.size()) - 1;
    std::vector<DeviceRecurrentState> states;
    std::vector<DeviceRecurrentState*> pointers;
    Tensor<double, 4> want_states({count, s.heads, s.key_dim, s.value_dim});
    for (Index n = 0; n < count; ++n) {
      states.push_back(state());
      for (Index i = 0; i < initial.host().size() && with_states; ++i)
        want_states.data()[n * initial.host().size() + i] = static_cast<double>(initial.host().data[i]);
    }
    for (auto& x : states) pointers.push_back(&x);
    DeviceLinearRecurrence a = args();
    a.offsets = starts;
    if (with_states) a.states = pointers;
    linear_recurrence(a, exec);
    exec.synchronize();
    const auto wq = q.wide(), wk = k.wide(), wv = v.wide();
    const auto wg = g.wide(), wbeta = beta.wide();
    Tensor<double, 3> want({tokens, s.heads, s.value_dim});
    LinearRecurrenceArgs<double> w{wq.view(), wk.view(), wv.view(), wg.view(), {}, want.view(), 0, starts};
    if (delta) w.beta = wbeta.view();
    w.substeps = substeps;
    ref::linear_recurrence(w, want_states.view());
    double difference = 0, norm = 0;
    for (Index n = 0; n < count && with_states; ++n) {
      Tensor<float, 3> got({s.heads, s.key_dim, s.value_dim});
      states[static_cast<std::size_t>(n)].export_to(got.view());
      for (Index i = 0; i < got.size(); ++i) {
        const double x = want_states.data()[n * got.size() + i], d = static_cast<double>(got.data()[i]) - x;
        difference += d * d, norm += x * x;
      }
    }
    return {error_of(out, want), norm > 0 ? std::sqrt(difference / norm) : 0};
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr Sizes kSizes[] = {{4, 2, 64, 64},  {2, 2, 96, 192},  {2, 1, 128, 128}, {3, 3, 7, 5},
                            {1, 1, 72, 100}, {2, 2, 256, 256}, {2, 2, 200, 40},  {2, 1, 33, 130}};

TEST_F(CudaRecurrenceChunks, AnySizes) {
  CudaExec exec;
  for (const Sizes& s : kSizes)
    for (bool delta : {true, false})
      for (Index substeps : {1, 3})
        for (bool with_states : {true, false}) {
          Inputs in(s, 330, delta, substeps, -0.5f, s.key_dim % 4 == 0 ? 4 : 3);
          const auto [out, state] = in.errors({0, 1, 1, 64, 129, 300, 330}, with_states, exec);
          EXPECT_LE(out, kRounded) << s.key_dim << "x" << s.value_dim << " delta " << delta << " "
                                   << substeps;
          EXPECT_LE(state, kRounded) << s.key_dim << "x" << s.value_dim << " delta " << delta << " "
                                     << substeps;
        }
}

TEST_F(CudaRecurrenceChunks, ExtremeGates) {
  CudaExec exec;
  for (bool delta : {true, false})
    for (float gate : {0.0f, -1e-12f, -20.0f, -90.0f, -INFINITY}) {
      Inputs in({2, 2, 64, 64}, 300, delta);
      const auto g = in.g.host();
      for (Index t = 0; t < 300; ++t)
        for (Index h = 0; h < 2; ++h)
          if (t % 7 < 5 || h == 0) g(t, h) = gate;
      in.g.upload();
      const auto [out, state] = in.errors({0, 300}, true, exec);
      EXPECT_LE(out, kRounded) << "gate " << gate;
      EXPECT_LE(state, kRounded) << "gate " << gate;
    }
}

TEST_F(CudaRecurrenceChunks, NothingBesideASequenceChangesIt) {
  CudaExec exec;
  Inputs in({4, 2, 96, 72}, 400, true);
  for (const RecurrenceForm form :
       {RecurrenceForm::chunk, RecurrenceForm::recurrent, RecurrenceForm::automatic}) {
    in.form = form;
    DeviceRecurrentState alone = in.state();
    in.part(70, 290, alone, exec);
    exec.synchronize();
    const auto want = in.results(alone, 70, 290);
    for (const std::vector<Index>& starts :
         {std::vector<Index>{0, 70, 290, 400}, std::vector<Index>{0, 1, 69, 70, 290, 291, 292, 400}}) {
      std::vector<DeviceRecurrentState> states(starts.size() - 1, in.state());
      std::vector<DeviceRecurrentState*> pointers;
      std::size_t mine = 0;
      for (std::size_t n = 0; n < states.size(); ++n) {
        pointers.push_back(&states[n]);
        if (starts[n] == 70) mine = n;
      }
      DeviceLinearRecurrence a = in.args();
      a.offsets = starts, a.states = pointers;
      linear_recurrence(a, exec);
      exec.synchronize();
      EXPECT_TRUE(same_bits(in.results(states[mine], 70, 290), want));
    }
  }
}

// One token of each of many sequences, of one, and beside longer ones.
TEST_F(CudaRecurrenceChunks, StepsAreTheSameInEveryBatch) {
  CudaExec exec;
  constexpr Index kTokens = 300;
  for (const Sizes& s : {Sizes{8, 4, 64, 130}, Sizes{8, 8, 130, 64}}) {
    Inputs in(s, kTokens, true);
    in.form = RecurrenceForm::automatic;
    std::vector<Index> starts;
    for (Index n = 0; n <= kTokens; ++n) starts.push_back(n);
    std::vector<DeviceRecurrentState> states(kTokens, in.state());
    std::vector<DeviceRecurrentState*> pointers;
    for (auto& x : states) pointers.push_back(&x);
    DeviceLinearRecurrence a = in.args();
    a.offsets = starts, a.states = pointers;
    linear_recurrence(a, exec);
    exec.synchronize();
    const auto want = in.results(states[7], 7, 8);
    DeviceRecurrentState alone = in.state();
    in.part(7, 8, alone, exec);
    exec.synchronize();
    EXPECT_TRUE(same_bits(in.results(alone, 7, 8), want));
    const std::vector<Index> mixed{0, 7, 8, kTokens};
    std::vector<DeviceRecurrentState> three(3, in.state());
    DeviceRecurrentState* const of_three[] = {&three[0], &three[1], &three[2]};
    a.offsets = mixed, a.states = of_three;
    linear_recurrence(a, exec);
    exec.synchronize();
    EXPECT_TRUE(same_bits(in.results(three[1], 7, 8), want));
  }
}

// A cut at a chunk's border changes nothing at all; elsewhere no more than rounding does.
TEST_F(CudaRecurrenceChunks, MayBeCutAnywhere) {
  CudaExec exec;
  Inputs in({2, 2, 64, 64}, 333, true);
  DeviceRecurrentState whole = in.state();
  in.part(0, 333, whole, exec);
  exec.synchronize();
  const auto want = in.results(whole, 0, 333);
  for (Index cut : {64, 256, 1, 100, 332}) {
    DeviceRecurrentState x = in.state();
    in.part(0, cut, x, exec);
    in.part(cut, 333, x, exec);
    exec.synchronize();
    const auto got = in.results(x, 0, 333);
    if (cut % 64 == 0) {
      EXPECT_TRUE(same_bits(got, want)) << cut;
    }
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
      difference += d * d, norm += static_cast<double>(want[i]) * static_cast<double>(want[i]);
    }
    EXPECT_LE(std::sqrt(difference / norm), kRounded) << cut;
  }
}

// More chunks than are worked on at once.
TEST_F(CudaRecurrenceChunks, LongSequences) {
  CudaExec exec;
  Inputs in({16, 4, 128, 128}, 14000, true);
  for (bool with_states : {true, false}) {
    std::vector<float> parts;
    DeviceRecurrentState x(16, 128, 128);
    for (Index from = 0; from < 14000; from += 64 * 50)
      in.part(from, std::min<Index>(14000, from + 64 * 50), x, exec);
    exec.synchronize();
    const auto want = in.results(x, 0, 14000);
    DeviceRecurrentState whole(16, 128, 128);
    DeviceRecurrentState* const states[] = {&whole};
    DeviceLinearRecurrence a = in.args();
    if (with_states) a.states = states;
    linear_recurrence(a, exec);
    exec.synchronize();
    EXPECT_TRUE(same_bits(in.results(with_states ? whole : x, 0, 14000), want));
  }
}

}  // namespace
}  // namespace ashlar
