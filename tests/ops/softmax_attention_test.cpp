// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/softmax_attention.hpp"

#include "ashlar/ref/softmax_attention.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Shape {
  Index queries, keys, heads, kv_heads, dim, value_dim, window;
  bool causal;
};

const Shape kShapes[] = {{1, 1, 1, 1, 1, 1, 0, true},        {7, 7, 2, 1, 8, 8, 0, true},
                         {63, 63, 4, 2, 67, 30, 0, true},    {130, 130, 1, 1, 16, 64, 0, true},
                         {97, 200, 3, 3, 24, 24, 0, true},   {200, 200, 4, 1, 16, 16, 7, true},
                         {130, 300, 2, 2, 33, 17, 64, true}, {67, 67, 2, 2, 128, 128, 500, true},
                         {63, 130, 6, 2, 20, 20, 0, false},  {130, 7, 2, 2, 16, 16, 0, false},
                         {1, 333, 8, 2, 64, 64, 0, true},    {1, 333, 8, 2, 64, 64, 100, true},
                         {2, 70, 100, 1, 8, 8, 0, true},     {0, 5, 2, 2, 8, 8, 0, true}};

TEST(SoftmaxAttention, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const Shape& s : kShapes)
    for (const float sharp : {1.0f, 30.0f}) {
      SCOPED_TRACE(testing::Message()
                   << s.queries << "x" << s.keys << " heads " << s.heads << "/" << s.kv_heads << " dim "
                   << s.dim << "/" << s.value_dim << " window " << s.window << " sharp " << sharp);
      Array<3> q({s.queries, s.heads, s.dim}), k({s.keys, s.kv_heads, s.dim}),
          v({s.keys, s.kv_heads, s.value_dim});
      Array<3> out({s.queries, s.heads, s.value_dim});
      q.normal(rng, sharp), k.normal(rng), v.normal(rng);
      Tensor<double, 3> want({s.queries, s.heads, s.value_dim});
      AttentionPattern pattern = AttentionPattern::causal_window(s.window);
      pattern.causal = s.causal;
      const KeyValueArgs<double> exact{k.exact(), v.exact()};
      ref::softmax_attention(SoftmaxAttentionArgs<double>{q.exact(), {}, {&exact, 1}, want.view(), pattern});
      const KeyValue kv{k.cview(), v.cview()};
      // A score is a sum of dim products: its error moves a probability by that much, relatively.
      const double score = sharp * 4 * std::sqrt(static_cast<double>(s.dim));
      const double bound = test::kEps * (8 + 2 * score) * std::max(1.0, test::largest(v.cview()));
      for (CpuExec& exec : test::contexts()) {
        out.poison();
        softmax_attention({q.cview(), {}, {&kv, 1}, out.view(), pattern}, exec);
        test::expect_close(out.view(), want.view(), [&](Index) { return bound; });
        out.expect_padding_untouched();
      }
    }
}

TEST(SoftmaxAttention, PackedAndThreadedEqualsAlone) {
  std::mt19937 rng(2);
  const std::vector<Index> offsets = {0, 0, 3, 100, 100, 101, 230};
  const std::vector<Index> keys = {4, 90, 97, 0, 65, 200};
  Array<3> q({230, 4, 24});
  q.normal(rng);
  std::vector<Array<3>> k, v;
  std::vector<KeyValue> sequences;
  for (Index n : keys)
    k.emplace_back(std::array<Index, 3>{n, 2, 24}), v.emplace_back(std::array<Index, 3>{n, 2, 40});
  for (std::size_t n = 0; n < keys.size(); ++n)
    sequences.push_back({k[n].normal(rng).cview(), v[n].normal(rng).cview()});
  Tensor<float, 3> packed({230, 4, 40}), alone({230, 4, 40});
  CpuExec one({1}), three({3});
  for (const Index window : {0, 20}) {
    softmax_attention({q.cview(), offsets, sequences, packed.view(), AttentionPattern::causal_window(window)},
                      three);
    for (std::size_t n = 0; n < keys.size(); ++n) {
      const Index from = offsets[n], to = offsets[n + 1];
      softmax_attention({q.cview().slice(0, from, to),
                         {},
                         {&sequences[n], 1},
                         alone.view().slice(0, from, to),
                         AttentionPattern::causal_window(window)},
                        one);
    }
    test::expect_close(packed.view(), View<const float, 3>(alone.view()), [](Index) { return 0; });
  }
}

TEST(SoftmaxAttention, WindowOfTheWholeLengthIsNone) {
  std::mt19937 rng(3);
  Array<3> q({150, 2, 16}), k({150, 2, 16}), v({150, 2, 16});
  q.normal(rng), k.normal(rng), v.normal(rng);
  const KeyValue kv{k.cview(), v.cview()};
  Tensor<float, 3> none({150, 2, 16}), whole({150, 2, 16});
  CpuExec exec;
  softmax_attention({q.cview(), {}, {&kv, 1}, none.view(), {.causal = true}}, exec);
  softmax_attention({q.cview(), {}, {&kv, 1}, whole.view(), AttentionPattern::causal_window(150)}, exec);
  test::expect_close(whole.view(), View<const float, 3>(none.view()), [](Index) { return 0; });
}

TEST(SoftmaxAttention, RefusesBadInput) {
  Array<3> q({4, 3, 8}), k({4, 2, 8}), v({4, 2, 8}), out({4, 3, 8});
  CpuExec exec;
  const KeyValue kv{k.cview(), v.cview()};
  const KeyValue few{k.cview().slice(0, 0, 3).slice(1, 0, 1), v.cview().slice(0, 0, 3).slice(1, 0, 1)};
  EXPECT_EQ(test::refusal([&] {
              softmax_attention({q.cview(), {}, {&kv, 1}, out.view(), {.causal = true}}, exec);
            }),
            "softmax_attention: q has 3 heads, expected a multiple of the 2 of k");
  EXPECT_EQ(test::refusal([&] {
              softmax_attention({q.cview(), {}, {&few, 1}, out.view(), {.causal = true}}, exec);
            }),
            "softmax_attention: sequence 0 has 4 queries and 3 keys, expected as many keys when causal");
  EXPECT_EQ(test::refusal([&] {
              softmax_attention({q.cview(), {}, {}, out.view()}, exec);
            }),
            "softmax_attention: there are keys and values of 0 sequences, expected 1");
  EXPECT_EQ(test::refusal([&] {
              softmax_attention({q.cview(), {}, {&few, 1}, out.view(), {.prefix = 3}}, exec);
            }),
            "softmax_attention: causal_block and prefix are given without causal, which they widen");
}

}  // namespace
}  // namespace ashlar
