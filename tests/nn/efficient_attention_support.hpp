// SPDX-License-Identifier: Apache-2.0
// Packed heads for the efficient attentions, softmax attention to any set of keys in double, and what holds
// for each of the mechanisms.
#pragma once
#include <functional>
#include <set>

#include "ashlar/nn/mixers/efficient_attention.hpp"
#include "tests/nn/reference.hpp"

namespace ashlar::test {

// Three sequences, one of them empty.
struct Heads {
  std::vector<Index> starts{0, 23, 23, 40};
  Index heads, dim, hidden;
  Array<2> x;
  Array<3> q, k, v, out;

  explicit Heads(Index heads_, Index dim_, unsigned seed = 1)
      : heads(heads_),
        dim(dim_),
        hidden(heads_ * dim_),
        x({40, hidden}),
        q({40, heads, dim}),
        k({40, heads, dim}),
        v({40, heads, dim}),
        out({40, heads, dim}) {
    std::mt19937 rng(seed);
    x.normal(rng), q.normal(rng), k.normal(rng), v.normal(rng);
  }
  HeadBatch batch() { return {x.cview(), q.cview(), k.cview(), v.cview(), out.poison().view(), starts}; }
  View<const float, 3> run(const EfficientAttention<CpuExec>& attention, CpuExec& exec,
                           std::span<const Index> globals = {}) {
    HeadBatch all = batch();
    all.global_tokens = globals;
    attention(all, exec);
    out.expect_padding_untouched();
    return out.cview();
  }
};

// Logit of key j for query i in head h of sequence n; -inf: not seen.
using Logit = std::function<double(Index n, Index h, Index i, Index j)>;
inline constexpr double kUnseen = -std::numeric_limits<double>::infinity();

inline double scaled_product(Heads& a, Index n, Index h, Index i, Index j) {
  const Index begin = a.starts[static_cast<std::size_t>(n)];
  double sum = 0;
  for (Index c = 0; c < a.dim; ++c)
    sum += static_cast<double>(a.q.view()(begin + i, h, c)) * a.k.view()(begin + j, h, c);
  return sum / std::sqrt(static_cast<double>(a.dim));
}

// softmax of the logits times v: [T, H, D]
inline std::vector<double> attended(Heads& a, const Logit& logit) {
  std::vector<double> out(static_cast<std::size_t>(a.starts.back() * a.hidden));
  for (Index n = 0; n + 1 < static_cast<Index>(a.starts.size()); ++n) {
    const Index begin = a.starts[static_cast<std::size_t>(n)],
                length = a.starts[static_cast<std::size_t>(n) + 1] - begin;
    for (Index h = 0; h < a.heads; ++h)
      for (Index i = 0; i < length; ++i) {
        double sum = 0;
        double* o = &out[static_cast<std::size_t>(((begin + i) * a.heads + h) * a.dim)];
        for (Index j = 0; j < length; ++j) {
          const double p = std::exp(logit(n, h, i, j));
          sum += p;
          for (Index c = 0; c < a.dim; ++c) o[c] += p * a.v.view()(begin + j, h, c);
        }
        for (Index c = 0; sum > 0 && c < a.dim; ++c) o[c] /= sum;
      }
  }
  return out;
}

// The same where `seen` says so.
inline std::vector<double> attended_where(
    Heads& a, const std::function<bool(Index n, Index h, Index i, Index j)>& seen) {
  return attended(a, [&](Index n, Index h, Index i, Index j) {
    return seen(n, h, i, j) ? scaled_product(a, n, h, i, j) : kUnseen;
  });
}

// Logits up to about 10 are off by 10 dim eps, and so are the probabilities, relatively; values are up to 5.
inline void expect_attended(Heads& a, View<const float, 3> got, const std::vector<double>& want) {
  const View<const double, 3> w(want.data(), got.shape);
  expect_close(got, w, [&](Index) { return 50 * static_cast<double>(a.dim + 2) * kEps; });
}

// Each sequence of the packed batch has the bits that it has alone, with one thread and with three.
inline void expect_alone_as_packed(Heads& a, const EfficientAttention<CpuExec>& attention,
                                   const std::vector<Index>& globals = {}) {
  CpuExec one({1}), three({3});
  a.run(attention, three, globals);
  for (std::size_t n = 0; n + 1 < a.starts.size(); ++n) {
    const Index begin = a.starts[n], end = a.starts[n + 1];
    std::vector<Index> mine;
    for (Index t : globals)
      if (t >= begin && t < end) mine.push_back(t - begin);
    Array<3> out({end - begin, a.heads, a.dim});
    HeadBatch alone{a.x.cview().slice(0, begin, end), a.q.cview().slice(0, begin, end),
                    a.k.cview().slice(0, begin, end), a.v.cview().slice(0, begin, end), out.view()};
    alone.global_tokens = mine;
    attention(alone, one);
    expect_close(a.out.view().slice(0, begin, end), out.cview(), [](Index) { return 0; });
  }
}

}  // namespace ashlar::test
