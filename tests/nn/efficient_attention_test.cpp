// SPDX-License-Identifier: Apache-2.0
// Local, Sparse Transformer, Longformer and BigBird: against softmax attention in double to the keys that
// the papers name.
#include "ashlar/nn/mixers/efficient_attention.hpp"

#include "ashlar/nn/mixers/bigbird_attention.hpp"
#include "ashlar/nn/mixers/local_attention.hpp"
#include "ashlar/nn/mixers/longformer_attention.hpp"
#include "ashlar/nn/mixers/sparse_attention.hpp"
#include "tests/nn/efficient_attention_support.hpp"

namespace ashlar {
namespace {

using namespace test;

TEST(LocalAttention, SeesItsBlock) {
  Heads a(2, 5);
  CpuExec exec;
  for (Index block : {1, 4, 7, 64})
    for (bool causal : {false, true}) {
      const LocalAttention<CpuExec> attention({.block = block, .causal = causal});
      expect_attended(a, a.run(attention, exec), attended_where(a, [&](Index, Index, Index i, Index j) {
                        return i / block == j / block && (!causal || j <= i);
                      }));
      expect_alone_as_packed(a, attention);
    }
}

TEST(LocalAttention, TheReleasedFormIsStridedAndCountsPadding) {
  Heads a(2, 5);
  CpuExec exec;
  for (Index block : {1, 4, 17, 64}) {  // the second sequence has 17 tokens
    const LocalAttention<CpuExec> attention({.block = block, .form = LocalAttentionConfig::released});
    auto want = attended(a, [&](Index n, Index h, Index i, Index j) {
      const Index groups = (n == 0 ? 23 : 17) / block + 1;
      return i % groups == j % groups ? scaled_product(a, n, h, i, j) : kUnseen;
    });
    // The padding's share of each row: e^0 a padded token of its group.
    for (Index n : {0, 2})
      for (Index i = 0; i < (n == 0 ? 23 : 17); ++i)
        for (Index h = 0; h < a.heads; ++h) {
          const Index length = n == 0 ? 23 : 17, groups = length / block + 1;
          double sum = 0, padding = 0;
          for (Index j = i % groups; j < groups * block; j += groups)
            (j < length ? sum : padding) += j < length ? std::exp(scaled_product(a, n, h, i, j)) : 1;
          for (Index c = 0; c < a.dim; ++c)
            want[static_cast<std::size_t>(
                ((a.starts[static_cast<std::size_t>(n)] + i) * a.heads + h) * a.dim + c)] *=
                sum / (sum + padding);
        }
    expect_attended(a, a.run(attention, exec), want);
    expect_alone_as_packed(a, attention);
  }
}

bool sees(const SparseFactor& f, Index i, Index j) {
  if (j > i) return false;
  switch (f.kind) {
    case SparseFactor::local: return i - j < f.size;
    case SparseFactor::strided: return (i - j) % f.size == 0;
    case SparseFactor::fixed_block: return i / f.size == j / f.size;
    default: return j % f.size >= f.size - f.columns || (f.first_column && j % f.size == 0);
  }
}

TEST(SparseAttention, SeesWhatItsFactorsSee) {
  Heads a(4, 3);
  CpuExec exec;
  const SparseAttentionConfig configs[] = {SparseAttentionConfig::strided(5),
                                           SparseAttentionConfig::fixed(4, 1),
                                           SparseAttentionConfig::fixed(30, 2),  // no column of 23 tokens
                                           SparseAttentionConfig::released(5, 2, false),
                                           {{{SparseFactor::fixed_columns, 4, 1}}},
                                           {{{SparseFactor::fixed_columns, 6, 1, true},
                                             {SparseFactor::fixed_columns, 4, 1},
                                             {SparseFactor::strided, 3},
                                             {SparseFactor::local, 2}}}};
  for (SparseAttentionConfig c : configs)
    for (bool merged : {false, true})
      for (bool cls : {false, true}) {
        c.merged = merged, c.cls_token = cls;
        const SparseAttention<CpuExec> attention(c);
        const auto want = attended_where(a, [&](Index, Index h, Index i, Index j) {
          if (cls && (i == 0 || j == 0)) return true;
          const Index n = static_cast<Index>(c.factors.size());
          for (Index f = 0; f < n; ++f)
            if ((merged || f == h * n / a.heads) &&
                sees(c.factors[static_cast<std::size_t>(f)], i - cls, j - cls))
              return true;
          return false;
        });
        expect_attended(a, a.run(attention, exec), want);
        expect_alone_as_packed(a, attention);
      }
}

TEST(SparseAttention, AnEndlessBlockIsCausalAttention) {
  Heads a(2, 5), b(2, 5);
  CpuExec exec;
  a.run(SparseAttention<CpuExec>({{{SparseFactor::fixed_block, 23}}}), exec);
  attend(b.batch(), AttentionPattern{.causal = true}, exec);
  expect_close(a.out.cview(), b.out.cview(), [](Index) { return 50 * 7 * kEps; });
}

TEST(SparseAttention, RefusesWhatItCannotBuild) {
  using Factors = std::vector<SparseFactor>;
  auto refused = [](const Factors& factors) {
    return refusal([&] { SparseAttention<CpuExec>({factors, true}); });
  };
  EXPECT_EQ(refused({}), "sparse_pattern: there are no factors, expected one or more");
  EXPECT_EQ(refused({{SparseFactor::local, 0}}), "sparse_pattern: a factor has size 0, expected 1 or more");
  EXPECT_EQ(refused({{SparseFactor::fixed_columns, 4, 5}}),
            "sparse_pattern: fixed columns are 5 of a block of 4, expected 1 to 4");
  EXPECT_EQ(refused({{SparseFactor::local, 4}, {SparseFactor::fixed_block, 4}}),
            "sparse_pattern: both a local and a fixed_block factor are given, expected one of them");
  EXPECT_EQ(refused({{SparseFactor::local, 4}, {SparseFactor::local, 5}}),
            "sparse_pattern: two factors are of the same kind, expected one of a kind except of columns");
  Heads a(3, 2);
  CpuExec exec;
  EXPECT_EQ(refusal([&] { a.run(SparseAttention<CpuExec>(SparseAttentionConfig::strided(5)), exec); }),
            "SparseAttention: there are 3 heads, expected a multiple of the 2 factors");
}

const RandomParameters kWeights(DType::f32, 5);

TEST(LongformerAttention, SeesItsWindowAndTheGlobalTokens) {
  Heads a(2, 5);
  CpuExec exec;
  const ParameterReader<CpuExec> r(kWeights, exec);
  struct Window {
    Index left, right, dilation;
  };
  for (const Window w : {Window{2, 2, 1}, Window{0, 3, 1}, Window{3, 2, 2}, Window{40, 40, 1}})
    for (bool causal : {false, true})
      for (const std::vector<Index>& globals :
           {std::vector<Index>{}, std::vector<Index>{0, 9, 24}, std::vector<Index>{39}}) {
        LongformerAttentionConfig c = LongformerAttentionConfig::window(a.hidden, a.heads, w.left);
        c.right = w.right, c.dilation = w.dilation, c.causal = causal;
        const LongformerAttention<CpuExec> attention(r, c);
        a.run(attention, exec, globals);
        auto global = [&](Index n, Index i) {
          return std::binary_search(globals.begin(), globals.end(),
                                    a.starts[static_cast<std::size_t>(n)] + i);
        };
        Heads own(2, 5);  // with the projections of global tokens
        const Linear<CpuExec> q(r, "query_global", a.hidden, a.hidden),
            k(r, "key_global", a.hidden, a.hidden), v(r, "value_global", a.hidden, a.hidden);
        Tensor<float, 2> projected({40, a.hidden});
        for (const auto& [linear, to] :
             {std::pair{&q, &own.q}, std::pair{&k, &own.k}, std::pair{&v, &own.v}}) {
          (*linear)(a.x.cview(), projected.view(), Phase::prefill, exec);
          Backend<CpuExec>::copy(projected.view().split(1, a.dim), to->view(), exec);
        }
        auto want = attended_where(a, [&](Index n, Index, Index i, Index j) {
          if (causal && j > i) return false;
          if (global(n, j)) return true;
          return j >= i - w.left * w.dilation && j <= i + w.right * w.dilation && (i - j) % w.dilation == 0;
        });
        const auto everywhere =
            attended_where(own, [&](Index, Index, Index i, Index j) { return !causal || j <= i; });
        for (Index t : globals)
          std::copy_n(everywhere.begin() + t * a.hidden, a.hidden, want.begin() + t * a.hidden);
        expect_attended(a, a.out.cview(), want);
        expect_alone_as_packed(a, attention, globals);
      }
}

TEST(LongformerAttention, ConfiguredPositionsAreThoseOfEachSequence) {
  Heads a(2, 5), b(2, 5);
  CpuExec exec;
  const ParameterReader<CpuExec> r(kWeights, exec);
  LongformerAttentionConfig c = LongformerAttentionConfig::released(a.hidden, a.heads, 4);
  EXPECT_EQ(c.left, 1);
  EXPECT_EQ(c.right, 2);
  const std::vector<Index> rows{0, 20, 23};
  b.run(LongformerAttention<CpuExec>(r, c), exec, rows);
  c.global_positions = {0, 20};
  a.run(LongformerAttention<CpuExec>(r, c), exec);
  expect_close(a.out.cview(), b.out.cview(), [](Index) { return 0; });
}

TEST(LongformerAttention, RefusesGlobalTokensItCannotServe) {
  Heads a(2, 5);
  CpuExec exec;
  const ParameterReader<CpuExec> r(kWeights, exec);
  LongformerAttentionConfig c = LongformerAttentionConfig::window(a.hidden, a.heads, 2);
  auto run = [&](const std::vector<Index>& globals) {
    return refusal([&] { a.run(LongformerAttention<CpuExec>(r, c), exec, globals); });
  };
  EXPECT_EQ(run({3, 40}), "LongformerAttention: token 40 is global, expected rows of the 40 tokens");
  EXPECT_EQ(run({3, 3}), "LongformerAttention: global_keys[1] is 3 after 3, expected ascending positions");
  c.query = c.key = c.value = "";
  EXPECT_EQ(run({3}),
            "LongformerAttention: there are global tokens, expected none without projections for them");
  c.left = -1;
  EXPECT_EQ(
      refusal([&] { LongformerAttention<CpuExec>(r, c); }),
      "LongformerAttention: the window is -1 and 2 at dilation 1, expected 0 or more on each side, and 1 "
      "or more");
}

TEST(BigBirdAttention, SeesGlobalNeighbouringAndRandomBlocks) {
  Heads a(2, 5);
  CpuExec exec;
  for (Index block : {1, 3, 4, 30})
    for (Index length : {0, 26}) {
      BigBirdAttentionConfig c{.block = block, .random = 2, .seed = 7, .length = length};
      const BigBirdAttention<CpuExec> attention(c);
      const auto want = attended_where(a, [&](Index n, Index h, Index i, Index j) {
        const Index blocks = ((length > 0 ? length : n == 0 ? 23 : 17) + block - 1) / block;
        const Index from = i / block, to = j / block, last = blocks - 1;
        if (from == 0 || from == last || to == 0 || to == last || std::abs(from - to) <= 1) return true;
        const auto table = random_blocks(a.heads, blocks, 2, 7);
        return table.view()(h, from - 1, 0) == to || table.view()(h, from - 1, 1) == to;
      });
      expect_attended(a, a.run(attention, exec), want);
      expect_alone_as_packed(a, attention);
    }
}

TEST(BigBirdAttention, AllBlocksAreDenseAttention) {
  Heads a(2, 5), b(2, 5);
  CpuExec exec;
  a.run(BigBirdAttention<CpuExec>({.block = 3, .random = 8}), exec);
  attend(b.batch(), AttentionPattern{}, exec);
  expect_close(a.out.cview(), b.out.cview(), [](Index) { return 50 * 7 * kEps; });
}

TEST(BigBirdAttention, RefusesATableThatDoesNotFit) {
  const BigBirdAttentionConfig c{.block = 4};
  Tensor<Index, 3> table({2, 3, 1});
  CpuExec exec;
  Heads a(2, 5);
  EXPECT_EQ(refusal([&] { a.run(BigBirdAttention<CpuExec>(c, table), exec); }),
            "bigbird_pattern: the sequence has 23 positions, expected at most the 20 of 5 blocks");
  table.data()[4] = 5;
  EXPECT_EQ(refusal([&] { BigBirdAttention<CpuExec>(c, table); }),
            "bigbird_pattern: random block 5 is named for row 2, expected -1 to 4");
  EXPECT_EQ(refusal([&] {
              BigBirdAttention<CpuExec>({.block = 4, .length = 16}, Tensor<Index, 3>({2, 3, 1}));
            }),
            "BigBirdAttention: the table has rows for 5 blocks of 4, expected as many as a length of 16 has");
  EXPECT_EQ(refusal([&] { BigBirdAttention<CpuExec>({.block = 0}); }),
            "BigBirdAttention: block is 0, random 3, length 0 and random_among 0, expected a block of 1 or "
            "more, the others 0 or more");
}

TEST(RandomBlocks, AreDifferentAndNeitherGlobalNorNeighbours) {
  for (Index among : {0, 6}) {
    const auto table = random_blocks(3, 12, 4, 1, among);
    std::set<Index> seen;
    for (Index h = 0; h < 3; ++h)
      for (Index i = 1; i < 11; ++i) {
        std::set<Index> row;
        for (Index m = 0; m < 4; ++m) {
          const Index key = table.view()(h, i - 1, m);
          if (key == -1) continue;
          EXPECT_TRUE(row.insert(key).second);
          EXPECT_GE(key, 1);
          EXPECT_LT(key, among > 0 ? among : 11);
          EXPECT_GT(std::abs(key - i), 1);
          seen.insert(key);
        }
        EXPECT_TRUE(among > 0 || row.size() == 4);
      }
    EXPECT_EQ(seen.size(), among > 0 ? 5u : 10u);
  }
  EXPECT_EQ(random_blocks(1, 2, 3, 1).size(), 0);
}

}  // namespace
}  // namespace ashlar
