// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/lsh.hpp"

#include "ashlar/ref/gather_heads.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Sorted {
  std::vector<Index> order, place, buckets;
  std::array<Index, 3> shape;
  explicit Sorted(std::array<Index, 3> s) : shape(s) {
    for (auto* v : {&order, &place, &buckets}) v->assign(static_cast<std::size_t>(s[0] * s[1] * s[2]), -7);
  }
  View<Index, 3> view(std::vector<Index>& v) { return {v.data(), shape}; }
};

TEST(LshSort, MatchesTheEquation) {
  std::mt19937 rng(1);
  const std::vector<Index> starts{0, 12, 12, 36, 40};
  for (Index rounds : {1, 3})
    for (Index bucket_size : {0, 2}) {
      Array<4> rotated({40, 2, rounds, 7});
      rotated.normal(rng);
      // Equals go to the first: a whole token of zeros.
      for (Index r = 0; r < rounds; ++r) std::fill_n(rotated.view().at(3, 1, r), 7, 0.0f);
      Sorted want({rounds, 40, 2}), got({rounds, 40, 2});
      ref::lsh_sort<float>({rotated.cview(), starts, bucket_size, want.view(want.order),
                            want.view(want.place), want.view(want.buckets)});
      for (CpuExec& exec : test::contexts()) {
        lsh_sort({rotated.cview(), starts, bucket_size, got.view(got.order), got.view(got.place),
                  got.view(got.buckets)},
                 exec);
        EXPECT_EQ(got.order, want.order);
        EXPECT_EQ(got.place, want.place);
        EXPECT_EQ(got.buckets, want.buckets);
      }
    }
}

TEST(LshBias, MatchesTheEquation) {
  std::mt19937 rng(2);
  const std::vector<Index> starts{0, 12, 12, 36, 40};
  for (Index rounds : {1, 2, 3})
    for (Index round = 0; round < rounds; ++round)
      for (bool causal : {false, true})
        for (bool correct : {false, true}) {
          Array<4> rotated({40, 2, rounds, 6}), out({20, 2, 2, 4});
          rotated.normal(rng);
          Sorted s({rounds, 40, 2});
          CpuExec any;
          lsh_sort({rotated.cview(), starts, 2, s.view(s.order), s.view(s.place)}, any);
          std::vector<double> expected(static_cast<std::size_t>(out.count()));
          const View<double, 4> want(expected.data(), {20, 2, 2, 4});
          ref::lsh_bias<double>(
              {s.view(s.order), s.view(s.place), starts, round, 2, want, causal, correct, -5e4});
          for (CpuExec& exec : test::contexts()) {
            lsh_bias({s.view(s.order), s.view(s.place), starts, round, 2, out.poison().view(), causal,
                      correct, -5e4f},
                     exec);
            for (Index i = 0; i < out.count(); ++i) {
              const double w = expected[static_cast<std::size_t>(i)];
              const float g = out.view().data[out.place(i)];
              if (std::isinf(w))
                EXPECT_EQ(static_cast<double>(g), w);
              else
                EXPECT_NEAR(g, w, test::kEps * std::max(1.0, std::abs(w)));
            }
            out.expect_padding_untouched();
          }
        }
}

TEST(Lsh, Refuses) {
  Array<4> rotated({12, 1, 2, 2}), bias({6, 1, 2, 4});
  Sorted s({2, 12, 1});
  CpuExec exec;
  auto sort = [&](Index bucket_size) {
    return test::refusal([&] {
      lsh_sort({rotated.cview(), {}, bucket_size, s.view(s.order), s.view(s.place)}, exec);
    });
  };
  EXPECT_EQ(sort(5), "lsh_sort: sequence 0 has 12 tokens, expected a multiple of 10, at most 20");
  EXPECT_EQ(sort(2), "lsh_sort: sequence 0 has 12 tokens, expected a multiple of 4, at most 8");
  auto make = [&](Index round, Index chunk) {
    return test::refusal([&] {
      lsh_bias({s.view(s.order), s.view(s.place), {}, round, chunk, bias.view()}, exec);
    });
  };
  EXPECT_EQ(make(2, 2), "lsh_bias: round is 2, expected 0 to 1");
  EXPECT_EQ(make(0, 5), "lsh_bias: sequence 0 has 12 tokens, expected a multiple of 5");
  EXPECT_EQ(make(0, 3), "lsh_bias: out has shape [6, 1, 2, 4], expected [4, 1, 3, 6]");
}

TEST(GatherHeads, TakesRowsHeadByHead) {
  std::mt19937 rng(3);
  std::uniform_int_distribution<Index> row(-1, 8);
  for (Index dim : {1, 7, 130})
    for (Index entries : {0, 1, 63}) {
      Array<3> x({9, 3, dim}), out({entries, 3, dim}), want({entries, 3, dim});
      x.normal(rng);
      std::vector<Index> index(static_cast<std::size_t>(3 * entries));
      for (Index& i : index) i = row(rng);
      const View<const Index, 2> where(index.data(), {entries, 3});
      ref::gather_heads<float>({x.cview(), where, want.view()});
      for (CpuExec& exec : test::contexts()) {
        gather_heads({x.cview(), where, out.poison().view()}, exec);
        test::expect_close(out.view(), want.cview(), [](Index) { return 0; });
        out.expect_padding_untouched();
      }
    }
  Array<3> x({2, 1, 4}), out({1, 1, 4});
  CpuExec exec;
  for (Index bad : {Index{-2}, Index{2}})
    EXPECT_EQ(test::refusal([&] {
                gather_heads({x.cview(), {&bad, {1, 1}}, out.view()}, exec);
              }),
              concat("gather_heads: index[0, 0] is ", bad, ", expected -1 to 1"));
}

}  // namespace
}  // namespace ashlar
