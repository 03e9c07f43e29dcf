// SPDX-License-Identifier: Apache-2.0
// Few queries with long caches: keys cut into parts, on shares of the device.
#include <numeric>

#include "ashlar/cuda/graph.hpp"
#include "ashlar/ref/softmax_attention.hpp"
#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using namespace test;

class CudaAttentionDecode : public CudaTest {};

enum class Layout { tokens, heads, ring, paged };
struct Shape {
  Index heads, kv_heads, key_dim, value_dim;
};
struct Sequence {
  Index queries, keys;
};

// A batch with caches of its own; sequence n has the same numbers in every batch that has its seed n.
template <class T, class Q>
struct Batch {
  static constexpr Index kPage = 16;
  Shape shape;
  std::vector<Index> offsets{0};
  std::vector<Both<T, 3>> k, v;
  std::vector<std::vector<Index>> pages;
  std::vector<KeyValueArgs<T>> sequences;
  Both<Q, 3> q, out;
  Both<float, 2> lse;
  Layout layout;

  Batch(const Shape& s, const std::vector<Sequence>& all, Layout place, unsigned seed = 1)
      : shape(s), pages(all.size()), layout(place) {
    for (const Sequence& one : all) offsets.push_back(offsets.back() + one.queries);
    q = Both<Q, 3>({offsets.back(), s.heads, s.key_dim});
    out = Both<Q, 3>({offsets.back(), s.heads, s.value_dim}, 8);
    lse = Both<float, 2>({offsets.back(), s.heads});
    for (std::size_t n = 0; n < all.size(); ++n) {
      const Index keys = all[n].keys, rows = layout == Layout::paged  ? (keys + 2 * kPage) / kPage * kPage
                                             : layout == Layout::ring ? keys + 3
                                                                      : keys;
      const unsigned own = seed + 3 * static_cast<unsigned>(n);
      auto array = [&](Index dim, unsigned which) {
        return layout == Layout::heads ? Both<T, 3>::random({s.kv_heads, rows, dim}, own + which)
                                       : Both<T, 3>::random({rows, s.kv_heads, dim}, own + which, -1, 1, 8);
      };
      k.push_back(array(s.key_dim, 1000)), v.push_back(array(s.value_dim, 2000));
      for (Index p = rows / kPage - 1; p >= 0 && layout == Layout::paged; --p) pages[n].push_back(p);
      const auto mine = Both<Q, 3>::random({all[n].queries, s.heads, s.key_dim}, own, -2, 2);
      for (Index t = 0; t < all[n].queries; ++t)
        for (Index h = 0; h < s.heads; ++h)
          for (Index d = 0; d < s.key_dim; ++d) q.host()(offsets[n] + t, h, d) = mine.host()(t, h, d);
    }
    q.upload();
    for (std::size_t n = 0; n < all.size(); ++n)
      sequences.push_back(
          place_of<T>(n, all[n].keys, std::as_const(k[n]).device(), std::as_const(v[n]).device()));
  }
  template <class U>
  KeyValueArgs<U> place_of(std::size_t n, Index keys, View<const U, 3> a, View<const U, 3> b) const {
    auto by_row = [&](View<const U, 3> x) {
      return layout == Layout::heads ? View<const U, 3>(x.data, {x.shape[1], x.shape[0], x.shape[2]},
                                                        {x.strides[1], x.strides[0], 1})
                                     : x;
    };
    KeyValueArgs<U> kv{.k = by_row(a), .v = by_row(b), .length = keys};
    if (layout == Layout::ring) kv.ring = true, kv.start = 7, kv.length = keys + 7;
    if (layout == Layout::paged) kv.pages = pages[n], kv.page = kPage;
    return kv;
  }
  SoftmaxAttentionArgs<float, T, Q, Q> args(const AttentionPattern& pattern) {
    SoftmaxAttentionArgs<float, T, Q, Q> a{std::as_const(q).device(), offsets, sequences, out.device(),
                                           pattern};
    a.lse = lse.device();
    return a;
  }
  // Errors of the output and of the log-sum-exps, after the op.
  std::pair<double, double> errors(const SoftmaxAttentionArgs<float, T, Q, Q>& a,
                                   const Tensor<double, 1>& sinks) {
    std::vector<Tensor<double, 3>> wk, wv;
    std::vector<KeyValueArgs<double>> wide;
    for (std::size_t n = 0; n < k.size(); ++n) wk.push_back(k[n].wide()), wv.push_back(v[n].wide());
    for (std::size_t n = 0; n < k.size(); ++n)
      wide.push_back(place_of<double>(n, sequences[n].length - sequences[n].start,
                                      std::as_const(wk[n]).view(), std::as_const(wv[n]).view()));
    const auto wq = q.wide();
    Tensor<double, 3> want({offsets.back(), shape.heads, shape.value_dim});
    Tensor<double, 2> want_lse({offsets.back(), shape.heads});
    SoftmaxAttentionArgs<double> r{wq.view(), offsets, wide, want.view(), a.pattern};
    r.lse = want_lse.view(), r.score.soft_cap = static_cast<double>(a.score.soft_cap);
    if (a.score.sinks) r.score.sinks = sinks.view();
    ref::softmax_attention(r);
    return {error_of(out, want), error_of(lse, want_lse)};
  }
};

const Shape kShapes[] = {{8, 2, 64, 64},   {6, 3, 80, 80},   {4, 1, 96, 96},
                         {8, 2, 128, 128}, {4, 2, 192, 128}, {4, 2, 256, 256}};
const std::vector<Sequence> kRagged = {{1, 1}, {2, 2100}, {1, 128}, {1, 129}, {4, 37}, {1, 9000}, {1, 640}};

template <class T, class Q>
void expect_close(const Shape& s, Layout layout, const AttentionPattern& pattern, bool options) {
  CudaExec exec;
  Batch<T, Q> batch(s, kRagged, layout);
  const auto sinks = Both<float, 1>::random({s.heads}, 9);
  auto a = batch.args(pattern);
  if (options) a.score.soft_cap = 2, a.score.sinks = sinks.device();
  softmax_attention(a, exec);
  exec.synchronize();
  const auto [out, lse] = batch.errors(a, sinks.wide());
  EXPECT_LE(out, kRounded) << "D " << s.key_dim << " layout " << static_cast<int>(layout);
  EXPECT_LE(lse, kRounded) << "D " << s.key_dim << " layout " << static_cast<int>(layout);
}

TEST_F(CudaAttentionDecode, Shapes) {
  for (const Shape& s : kShapes)
    for (bool options : {false, true}) {
      expect_close<bf16, bf16>(s, Layout::heads, AttentionPattern::causal_window(), options);
      expect_close<f16, f16>(s, Layout::tokens, AttentionPattern::causal_window(), options);
      expect_close<bf16, float>(s, Layout::tokens, AttentionPattern::causal_window(), options);
      expect_close<float, float>(s, Layout::heads, AttentionPattern::causal_window(), options);
    }
}

TEST_F(CudaAttentionDecode, Layouts) {
  for (Layout layout : {Layout::tokens, Layout::heads, Layout::ring, Layout::paged})
    for (const AttentionPattern& pattern :
         {AttentionPattern::causal_window(), AttentionPattern::causal_window(300), AttentionPattern{}}) {
      expect_close<bf16, bf16>({8, 2, 128, 128}, layout, pattern, false);
      expect_close<float, float>({8, 2, 128, 128}, layout, pattern, false);
    }
}

// A sequence's bits are the same alone, with few and with many others, of one part or of several.
TEST_F(CudaAttentionDecode, BatchMatesAlone) {
  const Shape s{8, 2, 128, 128};
  std::vector<Sequence> all;
  for (Index n = 0; n < 70; ++n) all.push_back({1 + n % 3 / 2, 1 + n * 1237 % 5000});
  all[1].keys = 100, all[2].keys = 3000, all[69].keys = 5000;
  for (Layout layout : {Layout::heads, Layout::paged}) {
    CudaExec exec;
    Batch<bf16, bf16> many(s, all, layout);
    softmax_attention(many.args(AttentionPattern::causal_window()), exec);
    exec.synchronize();
    many.out.download(), many.lse.download();
    for (std::size_t n : {1, 2, 5, 69}) {
      Batch<bf16, bf16> one(s, {all[n]}, layout, 1 + 3 * static_cast<unsigned>(n));
      softmax_attention(one.args(AttentionPattern::causal_window()), exec);
      exec.synchronize();
      one.out.download(), one.lse.download();
      for (Index t = 0; t < all[n].queries; ++t)
        for (Index h = 0; h < s.heads; ++h) {
          const Index row = many.offsets[n] + t;
          ASSERT_EQ(many.lse.host()(row, h), one.lse.host()(t, h)) << n;
          for (Index d = 0; d < s.value_dim; ++d)
            ASSERT_EQ(many.out.host()(row, h, d).bits, one.out.host()(t, h, d).bits) << n;
        }
    }
  }
}

// The recorded step stays as it is while keys become more, across a part's end.
TEST_F(CudaAttentionDecode, GrowsInAGraph) {
  CudaExec exec;
  CudaGraph graph;
  Batch<bf16, bf16> batch({8, 2, 128, 128}, {{1, 2600}}, Layout::tokens);
  const auto all = batch.sequences[0];
  int replayed = 0;
  for (Index keys = 2545; keys < 2575; ++keys) {
    batch.sequences[0] = all, batch.sequences[0].length = keys;
    const auto a = batch.args(AttentionPattern::causal_window());
    graph.run(exec, [&] { softmax_attention(a, exec); });
    exec.synchronize();
    replayed += graph.last() == CudaGraph::Run::replayed ? 1 : 0;
    if (keys % 7 == 0) {
      const auto [out, lse] = batch.errors(a, {});
      EXPECT_LE(out, kRounded) << keys;
      EXPECT_LE(lse, kRounded) << keys;
    }
  }
  EXPECT_EQ(replayed, 28);
}

}  // namespace
}  // namespace ashlar
