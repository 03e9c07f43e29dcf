// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/bidirectional_linear_attention.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Case {
  Index heads, kv_heads, features, dv;
  std::vector<Index> starts, key_lengths;
};
const Case kCases[] = {
    {1, 1, 1, 1, {0, 1}, {}},
    {2, 1, 7, 5, {0, 0, 9, 9, 16}, {}},
    {4, 2, 33, 63, {0, 130, 131}, {7, 0}},
    {2, 2, 16, 64, {0, 1100}, {}},  // three parts of the keys
    {1, 1, 20, 17, {0, 600}, {513}},
    {3, 3, 5, 130, {0, 0}, {}},
};

TEST(BidirectionalLinearAttention, MatchesTheEquation) {
  std::mt19937 rng(1);
  for (const Case& c : kCases) {
    const Index tokens = c.starts.back();
    Array<3> q({tokens, c.heads, c.features}), k({tokens, c.kv_heads, c.features}),
        v({tokens, c.kv_heads, c.dv}), out({tokens, c.heads, c.dv});
    q.uniform(rng, 0, 1), k.uniform(rng, 0.01f, 1), v.normal(rng);
    std::vector<double> expected(static_cast<std::size_t>(out.count()));
    const View<double, 3> want(expected.data(), {tokens, c.heads, c.dv});
    ref::bidirectional_linear_attention<double>(
        {q.exact(), k.exact(), v.exact(), want, c.starts, c.key_lengths, 0.25});
    for (CpuExec& exec : test::contexts()) {
      BidirectionalLinearAttention args{q.cview(),           k.cview(), v.cview(),
                                        out.poison().view(), c.starts,  c.key_lengths};
      args.normalizer_eps = 0.25f;
      bidirectional_linear_attention(args, exec);
      // A weighted mean of values, weights positive: sums of 64 keys, of blocks and parts of them, and of
      // the features.
      const double bound = (100.0 + 2 * static_cast<double>(c.features)) * test::kEps *
                           (tokens == 0 ? 0 : test::largest(v.cview()));
      test::expect_close(out.view(), want, [&](Index) { return bound; });
      out.expect_padding_untouched();
    }
  }
}

TEST(BidirectionalLinearAttention, TheGuardActsOnSmallDivisorsOnly) {
  Array<3> q({2, 1, 1}), k({2, 1, 1}), v({2, 1, 1}), out({2, 1, 1});
  q.view()(0, 0, 0) = 1, q.view()(1, 0, 0) = 0.25f;
  k.each([](float& e) { e = 1; }), v.each([](float& e) { e = 3; });
  CpuExec exec;
  BidirectionalLinearAttention args{q.cview(), k.cview(), v.cview(), out.view()};
  args.guard = 0.5f;
  bidirectional_linear_attention(args, exec);
  EXPECT_EQ(out.view()(0, 0, 0), 3);
  EXPECT_EQ(out.view()(1, 0, 0), 1);  // 1.5 / (0.5 + 1)
}

TEST(BidirectionalLinearAttention, BitsDoNotDependOnThreadsOrBatchMates) {
  std::mt19937 rng(2);
  const std::vector<Index> starts{0, 70, 70, 1300};
  Array<3> q({1300, 2, 9}), k({1300, 2, 9}), v({1300, 2, 20}), packed({1300, 2, 20}), out({1300, 2, 20});
  q.uniform(rng, 0, 1), k.uniform(rng, 0, 1), v.normal(rng);
  CpuExec one({1}), three({3});
  bidirectional_linear_attention({q.cview(), k.cview(), v.cview(), packed.view(), starts}, three);
  for (std::size_t n = 0; n + 1 < starts.size(); ++n) {
    auto mine = [&](auto view) { return view.slice(0, starts[n], starts[n + 1]); };
    bidirectional_linear_attention({mine(q.cview()), mine(k.cview()), mine(v.cview()), mine(out.view())},
                                   one);
  }
  test::expect_close(packed.view(), out.cview(), [](Index) { return 0; });
}

TEST(BidirectionalLinearAttention, Refuses) {
  Array<3> q({4, 2, 3}), k({4, 2, 3}), v({4, 2, 5}), out({4, 2, 5}), three({4, 3, 3});
  CpuExec exec;
  BidirectionalLinearAttention args{q.cview(), k.cview(), v.cview(), out.view()};
  auto refusal = [&](auto&& change) {
    BidirectionalLinearAttention bad = args;
    change(bad);
    return test::refusal([&] { bidirectional_linear_attention(bad, exec); });
  };
  const std::string op = "bidirectional_linear_attention: ";
  EXPECT_EQ(refusal([&](auto& a) { a.k = three.cview(); }),
            op + "k has 3 heads, expected a divisor of the 2 of q");
  EXPECT_EQ(refusal([&](auto& a) { a.k = k.cview().slice(0, 0, 3); }),
            op + "k has shape [3, 2, 3], expected [4, 2, 3]");
  EXPECT_EQ(refusal([&](auto& a) { a.out = out.view().slice(2, 0, 4); }),
            op + "out has shape [4, 2, 4], expected [4, 2, 5]");
  const std::vector<Index> five{5}, two{1, 1};
  EXPECT_EQ(refusal([&](auto& a) { a.key_lengths = five; }), op + "key_lengths[0] is 5, expected 0 to 4");
  EXPECT_EQ(refusal([&](auto& a) { a.key_lengths = two; }),
            op + "there are 2 key lengths, expected one for each of 1 sequences");
}

}  // namespace
}  // namespace ashlar
