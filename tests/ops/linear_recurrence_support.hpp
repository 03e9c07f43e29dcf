// SPDX-License-Identifier: Apache-2.0
// What the tests of the linear recurrence share: its variants, inputs as mixers make them, what the equations
// in double say of them, and how far a kernel may be from that.
#pragma once
#include <cstring>

#include "ashlar/ref/linear_recurrence.hpp"
#include "tests/support.hpp"

namespace ashlar::test {

enum class Decay { none, constant, scalar, vector };
enum class Transition { none, delta, low_rank };

struct Variant {
  Decay decay = Decay::none;
  Transition transition = Transition::none;
  bool bonus = false, normalize = false;
  Index substeps = 1;
};

inline std::ostream& operator<<(std::ostream& out, const Variant& v) {
  const char *decays[] = {"no", "constant", "scalar", "vector"}, *transitions[] = {"no", "delta", "low-rank"};
  return out << decays[static_cast<int>(v.decay)] << " decay, " << transitions[static_cast<int>(v.transition)]
             << " transition" << (v.bonus ? ", bonus" : "") << (v.normalize ? ", normalised" : "") << ", "
             << v.substeps << " substeps";
}

inline std::vector<Variant> variants(std::initializer_list<Index> substeps) {
  std::vector<Variant> all;
  for (const Index n : substeps)
    for (const Decay decay : {Decay::none, Decay::constant, Decay::scalar, Decay::vector}) {
      all.push_back({decay, Transition::none, false, false, n});
      all.push_back({decay, Transition::none, true, false, n});
      all.push_back({decay, Transition::none, false, true, n});
      all.push_back({decay, Transition::delta, false, false, n});
      all.push_back({decay, Transition::low_rank, false, false, n});
    }
  return all;
}

struct Shape {
  Index tokens, heads, dk, dv;
  Index q_heads = 1, k_heads = 1, v_heads = 1, gate_heads = 1;  // v's or q's are all of them in most mixers
};

inline std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << s.tokens << " tokens, heads " << s.heads << " (" << s.q_heads << " " << s.k_heads << " "
             << s.v_heads << " " << s.gate_heads << "), " << s.dk << "x" << s.dv;
}

// All but `out` as one mixer's: no heads are shared.
inline Shape ungrouped(Index tokens, Index heads, Index dk, Index dv) {
  return {tokens, heads, dk, dv, heads, heads, heads, heads};
}

// The tokens [from, to) of a call, as a call of one sequence.
template <class T>
LinearRecurrenceArgs<T> tokens_of(LinearRecurrenceArgs<T> a, Index from, Index to) {
  auto cut = [&](auto& x, Index rows) {
    if (x) x = x.slice(0, from * rows, to * rows);
  };
  cut(a.q, 1), cut(a.g, 1), cut(a.gk, 1), cut(a.out, 1);
  cut(a.k, a.substeps), cut(a.v, a.substeps), cut(a.beta, a.substeps);
  cut(a.a, a.substeps), cut(a.b, a.substeps);
  a.offsets = {}, a.states = {}, a.requests = {};
  return a;
}

// Unit keys, log decays in (-gate, 0), beta in (0, 2), a = -kk and b = kk eta with unit kk and eta in (0, 1):
// no transition expands the state by much. Normalised: q and k are positive. Every array has NaN between
// rows.
struct Inputs {
  Inputs(const Shape& s, const Variant& with, float gate, unsigned seed)
      : shape(s),
        variant(with),
        q({s.tokens, s.q_heads, s.dk}),
        k({s.tokens * with.substeps, s.k_heads, s.dk}),
        v({s.tokens * with.substeps, s.v_heads, s.dv}),
        out({s.tokens, s.heads, s.dv}),
        gk({s.tokens, s.gate_heads, s.dk}),
        a({s.tokens * with.substeps, s.k_heads, s.dk}),
        b({s.tokens * with.substeps, s.k_heads, s.dk}),
        g({s.tokens, s.gate_heads}),
        beta({s.tokens * with.substeps, s.gate_heads}),
        bonus({s.gate_heads, s.dk}),
        constant({s.gate_heads}),
        scale(with.bonus || with.transition == Transition::low_rank ? 1.0f : 0.0f) {
    std::mt19937 rng(seed);
    q.normal(rng), k.normal(rng), v.normal(rng), b.normal(rng);
    g.uniform(rng, -gate, 0), gk.uniform(rng, -gate, 0), constant.uniform(rng, -gate, 0);
    beta.uniform(rng, 0, 2), bonus.uniform(rng, 0.1f, 1);
    if (with.normalize)
      for (Array<3>* x : {&q, &k}) x->each([](float& e) { e = std::abs(e) + 0.1f; });
    unit(k), unit(b);
    a.each([](float& e) { e = 0; });
    std::uniform_real_distribution<float> eta(0, 1);
    for (Index i = 0; i < a.count(); ++i) {
      float& kk = b.view().data[b.place(i)];
      a.view().data[a.place(i)] = -kk;
      kk *= eta(rng);
    }
  }

  static void unit(Array<3>& x) {
    const View<float, 3> rows = x.view();
    for (Index t = 0; t < rows.shape[0]; ++t)
      for (Index h = 0; h < rows.shape[1]; ++h) {
        double norm = 1e-12;
        for (Index i = 0; i < rows.shape[2]; ++i) norm += rows(t, h, i) * rows(t, h, i);
        for (Index i = 0; i < rows.shape[2]; ++i) rows(t, h, i) /= static_cast<float>(std::sqrt(norm));
      }
  }

  Index columns() const { return shape.dv + (variant.normalize ? 1 : 0); }

  LinearRecurrence args() {
    return filled<float>([](auto& x) { return x.cview(); }, out.view());
  }
  LinearRecurrenceArgs<double> exact(View<double, 3> o) {
    return filled<double>([](auto& x) { return x.exact(); }, o);
  }
  template <class T, class Take>
  LinearRecurrenceArgs<T> filled(Take&& take, View<T, 3> o) {
    LinearRecurrenceArgs<T> x{take(q), take(k), take(v), {}, {}, o};
    if (variant.decay == Decay::constant)
      x.g = constant_decay(View<const T, 1>(take(constant)), shape.tokens);
    if (variant.decay == Decay::scalar) x.g = take(g);
    if (variant.decay == Decay::vector) x.gk = take(gk);
    if (variant.transition == Transition::delta) x.beta = take(beta);
    if (variant.transition == Transition::low_rank) x.a = take(a), x.b = take(b);
    if (variant.bonus) x.bonus = take(bonus);
    x.substeps = variant.substeps, x.normalize = variant.normalize, x.scale = scale;
    return x;
  }

  // A state to begin from; the normaliser's column is positive.
  RecurrentState state(unsigned seed, DType dtype = DType::f32) const {
    RecurrentState s(shape.heads, shape.dk, columns(), dtype);
    Tensor<float, 3> values({shape.heads, shape.dk, columns()});
    std::mt19937 rng(seed);
    for (Index i = 0; i < values.size(); ++i) {
      values.data()[i] = std::normal_distribution<float>()(rng);
      if (variant.normalize && i % columns() == shape.dv)
        values.data()[i] = std::abs(values.data()[i]) + 0.5f;
    }
    s.import_from(values.view());
    return s;
  }

  Shape shape;
  Variant variant;
  Array<3> q, k, v, out, gk, a, b;
  Array<2> g, beta, bonus;
  Array<1> constant;
  float scale;
};

// Times the bound of f32: a bf16 state may be rounded, to 2^-9 of an element, after each token.
inline constexpr double kBf16 = 0x1p-9 / kEps;

inline Tensor<float, 3> values(const RecurrentState& s) {
  Tensor<float, 3> x({s.heads(), s.key_dim(), s.value_dim()});
  s.export_to(x.view());
  return x;
}

// What the equations say in double, and the error that rounding may make: eps times the largest element of
// the value column of the state that a sequence and head has had, times the count of roundings that meet in
// one element: sums of Dk products, each token anew; random in sign, so the square roots of the counts. An
// output takes it times scale |q|, and divides it when it is normalised.
struct Expected {
  Tensor<double, 3> out, out_bound;      // [T, H, Dv]
  Tensor<double, 4> state, state_bound;  // [N, H, Dk, columns]

  Expected(Inputs& in, Offsets offsets, std::span<const RecurrentState> start = {})
      : out({in.shape.tokens, in.shape.heads, in.shape.dv}),
        out_bound(out.shape()),
        state({offsets.count(), in.shape.heads, in.shape.dk, in.columns()}),
        state_bound(state.shape()) {
    const Index heads = in.shape.heads, dk = in.shape.dk, dv = in.shape.dv, columns = in.columns();
    // The normaliser is a value column of ones.
    const View<double, 3> v = in.v.exact();
    Tensor<double, 3> wide({v.shape[0], v.shape[1], columns}), o({in.shape.tokens, heads, columns});
    for (Index i = 0; i < v.shape[0]; ++i)
      for (Index h = 0; h < v.shape[1]; ++h)
        for (Index j = 0; j < columns; ++j) wide.view()(i, h, j) = j < dv ? v(i, h, j) : 1;
    LinearRecurrenceArgs<double> args = in.exact(o.view());
    args.v = wide.view(), args.normalize = false;
    const double scale = args.scale != 0 ? args.scale : 1 / std::sqrt(double(dk));
    const double added = largest(args.k) * (args.bonus ? 1 + largest(args.bonus) : 1);

    for (Index n = 0; n < offsets.count(); ++n) {
      const Index begin = offsets.begin(n), end = offsets.end(n, in.shape.tokens);
      const double roundings =
          kEps * (8 + std::sqrt(double(dk)) + std::sqrt(double((end - begin) * args.substeps)));
      const View<double, 4> s = state.view().slice(0, n, n + 1);
      if (!start.empty()) {
        const Tensor<float, 3> from = values(start[static_cast<std::size_t>(n)]);
        for (Index i = 0; i < from.size(); ++i) s.data[i] = static_cast<double>(from.data()[i]);
      }
      Tensor<double, 2> most({heads, columns});  // of a column
      auto look = [&](Index t) {
        for (Index h = 0; h < heads; ++h)
          for (Index j = 0; j < columns; ++j) {
            double& m = most.view()(h, j);
            for (Index i = 0; i < dk; ++i) m = std::max(m, std::abs(s(0, h, i, j)));
            for (Index i = t * args.substeps; t >= 0 && i < (t + 1) * args.substeps; ++i)
              m = std::max(m, added * std::abs(args.v(i, h / (heads / args.v.shape[1]), j)));
          }
      };
      look(-1);
      for (Index t = begin; t < end; ++t) {
        ref::linear_recurrence(tokens_of(args, t, t + 1), s);
        look(t);
      }
      for (Index t = begin; t < end; ++t)
        for (Index h = 0; h < heads; ++h) {
          double norm = 0;
          for (Index i = 0; i < dk; ++i) {
            const double e = args.q(t, h / (heads / args.q.shape[1]), i);
            norm += e * e;
          }
          const double read = scale * std::sqrt(norm) * roundings;
          const double divisor =
              in.variant.normalize ? o.view()(t, h, dv) + static_cast<double>(args.normalizer_eps) : 1;
          for (Index j = 0; j < dv; ++j) {
            const double want = o.view()(t, h, j) / divisor;
            out.view()(t, h, j) = want;
            out_bound.view()(t, h, j) =
                (read * most.view()(h, j) +
                 (in.variant.normalize ? read * most.view()(h, dv) * std::abs(want) : 0)) /
                    divisor +
                4 * kEps * std::abs(want);
          }
        }
      for (Index h = 0; h < heads; ++h)
        for (Index i = 0; i < dk; ++i)
          for (Index j = 0; j < columns; ++j) state_bound.view()(n, h, i, j) = roundings * most.view()(h, j);
    }
  }
  Expected(Inputs& in, const RecurrentState& start) : Expected(in, {}, {&start, 1}) {}

  // `factor`: how much more than f32's rounding is allowed.
  void expect_out(const View<float, 3>& got, double factor = 1) const {
    expect_close(got, out.view(), [&](Index i) { return factor * out_bound.data()[i]; });
  }
  void expect_state(const RecurrentState& got, Index n = 0, double factor = 1) const {
    const View<const double, 3> want = state.view()[n], bound = state_bound.view()[n];
    expect_close(values(got).view(), want, [&](Index i) { return factor * bound.data[i]; });
  }
};

inline bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}
template <int Rank>
bool same(Array<Rank>& a, Array<Rank>& b) {
  for (Index i = 0; i < a.count(); ++i)
    if (std::memcmp(a.view().data + a.place(i), b.view().data + b.place(i), sizeof(float)) != 0) return false;
  return true;
}

// Runs a call over sequences with the states, which it updates.
inline void run(LinearRecurrence args, std::span<RecurrentState> states, CpuExec& exec) {
  std::vector<RecurrentState*> pointers;
  for (RecurrentState& s : states) pointers.push_back(&s);
  args.states = pointers;
  linear_recurrence(args, exec);
}

// Behind Dv the panels are zero.
inline void expect_zero_padding(const RecurrentState& s) {
  const Index width = RecurrentState::kPanel * bits(s.dtype()) / 8;
  const Index used = (s.value_dim() - (s.panels() - 1) * RecurrentState::kPanel) * bits(s.dtype()) / 8;
  for (Index h = 0; h < s.heads(); ++h)
    for (Index i = 0; i < s.key_dim(); ++i) {
      const auto* row = static_cast<const std::byte*>(s.panel(h, s.panels() - 1)) + i * width;
      for (Index at = used; at < width; ++at) ASSERT_EQ(row[at], std::byte{0}) << "behind the columns";
    }
}

}  // namespace ashlar::test
