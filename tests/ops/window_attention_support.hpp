// SPDX-License-Identifier: Apache-2.0
// Calls of window_attention with random arrays, and what they give in double.
#pragma once
#include <memory>

#include "ashlar/ref/window_attention.hpp"
#include "tests/support.hpp"

namespace ashlar::test {

struct WindowCase {
  const char* name;
  Index images;
  GroupMap map, key_map;
  Index heads, dim, value_dim;
  bool cosine = false, biased = true, queries_first = false;
  float scale = 0, shift_mask = -100;
};

// Arrays with room behind each pixel, and the call's arguments in float and in double.
class WindowCall {
 public:
  explicit WindowCall(const WindowCase& c, unsigned seed = 1)
      : case_(c),
        q_(shape(c, c.map, c.dim)),
        k_(shape(c, keys(c), c.dim)),
        v_(shape(c, keys(c), c.value_dim)),
        out_(shape(c, c.map, c.value_dim)),
        tau_({c.heads}),
        bias_(c.queries_first ? std::array<Index, 3>{c.heads, c.map.slots(), keys(c).slots()}
                              : std::array<Index, 3>{c.heads, keys(c).slots(), c.map.slots()}) {
    std::mt19937 rng(seed);
    q_.normal(rng), k_.normal(rng), v_.normal(rng), bias_.normal(rng), tau_.uniform(rng, 1, 20);
  }

  WindowAttention args() {
    out_.poison();
    return fill(WindowAttention{q_.cview(), k_.cview(), v_.cview(), out_.view(), case_.heads, case_.map,
                                case_.key_map, case_.scale},
                tau_.cview(), bias_.cview());
  }
  // In double.
  View<double, 4> want() {
    expected_.assign(static_cast<std::size_t>(out_.count()), 0);
    const View<double, 4> out(expected_.data(), out_.view().shape);
    WindowAttentionArgs<double> a{q_.exact(),  k_.exact(), v_.exact(),    out,
                                  case_.heads, case_.map,  case_.key_map, case_.scale};
    ref::window_attention(fill(a, View<const double, 1>(tau_.exact()), View<const double, 3>(bias_.exact())));
    return out;
  }
  // A score is a sum of `dim` products, off by a few times the root of that many roundings of its magnitude,
  // |q| |k| at most; its exponential is off by as much, and results by twice that times the largest value.
  double bound() {
    const auto longest = [](View<const float, 4> x, Index heads) {
      double most = 0;
      for (Index i = 0; i < x.size() / std::max<Index>(1, x.shape[3]); ++i)
        for (Index h = 0; h < heads; ++h) {
          const float* row = x.at(i / (x.shape[1] * x.shape[2]), i / x.shape[2] % x.shape[1], i % x.shape[2],
                                  h * (x.shape[3] / heads));
          double squares = 0;
          for (Index c = 0; c < x.shape[3] / heads; ++c) squares += static_cast<double>(row[c]) * row[c];
          most = std::max(most, std::sqrt(squares));
        }
      return most;
    };
    const double root = std::sqrt(static_cast<double>(case_.dim));
    const double score = case_.cosine ? 20.0
                                      : longest(q_.cview(), case_.heads) * longest(k_.cview(), case_.heads) *
                                            (case_.scale != 0 ? case_.scale : 1 / root);
    return 2 * kEps * (4 + root) * (score + 6) * largest(v_.cview());
  }
  void expect_right(CpuExec& exec, const View<double, 4>& expected) {
    window_attention(args(), exec);
    const double b = bound();
    expect_close(out_.view(), expected, [=](Index) { return b; });
    out_.expect_padding_untouched();
  }
  Array<4>& q() { return q_; }
  Array<4>& k() { return k_; }
  Array<4>& v() { return v_; }
  Array<4>& out() { return out_; }

 private:
  static const GroupMap& keys(const WindowCase& c) { return c.key_map ? c.key_map : c.map; }
  static std::array<Index, 4> shape(const WindowCase& c, const GroupMap& map, Index dim) {
    return {c.images, map.image()[0], map.image()[1], c.heads * dim};
  }
  template <class T>
  WindowAttentionArgs<T> fill(WindowAttentionArgs<T> a, View<const T, 1> tau, View<const T, 3> b) const {
    if (case_.cosine) a.tau = tau;
    if (case_.biased)
      a.bias = case_.queries_first ? b
                                   : View<const T, 3>(b.data, {b.shape[0], b.shape[2], b.shape[1]},
                                                      {b.strides[0], b.strides[2], b.strides[1]});
    a.shift_mask = static_cast<T>(case_.shift_mask);
    return a;
  }

  WindowCase case_;
  Array<4> q_, k_, v_, out_;
  Array<1> tau_;
  Array<3> bias_;
  std::vector<double> expected_;
};

// The same bits in all elements.
inline void expect_same(const View<const float, 4>& got, const View<const float, 4>& want) {
  expect_close(got, want, [](Index) { return 0.0; });
}

}  // namespace ashlar::test
