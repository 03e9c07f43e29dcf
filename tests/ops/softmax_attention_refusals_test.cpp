// SPDX-License-Identifier: Apache-2.0
// What softmax attention refuses, in which words; and that nothing is written then.
#include "tests/ops/softmax_attention_support.hpp"

namespace ashlar {
namespace {

using test::Array;
using test::Problem;

// The call that each test spoils: two sequences of 3 and 1 queries, 9 and 6 keys; 4 heads to 2. The keys lie
// in the middle of larger arrays, so that what is not refused reads no foreign memory.
struct Call {
  Call() : p({{3, 9}, {1, 6}}, {4, 2, 8, 12}, 1), k({200, 2, 8}), v({200, 2, 12}) {
    std::mt19937 rng(1);
    k.normal(rng), v.normal(rng);
    args = p.args;
    for (const Index rows : {9, 6}) sequences.push_back(keys(100, rows));
    args.sequences = sequences;
  }
  Call(const Call&) = delete;

  KeyValue keys(Index from, Index rows) {
    return {k.cview().slice(0, from, from + rows), v.cview().slice(0, from, from + rows)};
  }
  // Sequence 0 in a pool of 8 pages of 4; its table lies in a larger one too.
  KeyValue& paged(std::initializer_list<Index> table) {
    pages.assign(40, 0);
    std::copy(table.begin(), table.end(), pages.begin() + 20);
    KeyValue& kv = sequences[0];
    kv = keys(80, 32);
    kv.length = 9, kv.pages = std::span(pages).subspan(20, table.size()), kv.page = 4;
    return kv;
  }

  Problem p;
  Array<3> k, v;
  std::vector<KeyValue> sequences;
  std::vector<Index> pages, list, block_offsets, block_keys;
  SoftmaxAttention args;
};

template <class Change>
std::string refusal(Change&& change) {
  CpuExec exec;
  Call call;
  change(call);
  call.p.out.poison(), call.p.lse.poison(), call.p.entropy.poison();
  const std::string sentence = test::refusal([&] { softmax_attention(call.args, exec); });
  bool written = false;
  auto look = [&](float& e) { written |= !std::isnan(e); };
  call.p.out.each(look), call.p.lse.each(look), call.p.entropy.each(look);
  EXPECT_FALSE(written) << "written all the same: " << sentence;
  const std::string_view op = "softmax_attention: ";
  EXPECT_EQ(sentence.substr(0, op.size()), op);
  return sentence.substr(std::min(op.size(), sentence.size()));
}

TEST(SoftmaxAttentionRefusals, Shapes) {
  EXPECT_EQ(refusal([](Call& c) { c.args.q.strides[2] = 2; }), "q has stride 2 on its last axis, expected 1");
  EXPECT_EQ(refusal([](Call& c) { c.args.q = c.args.q.slice(1, 0, 0); }),
            "q has shape [4, 0, 8], expected heads");
  EXPECT_EQ(refusal([](Call& c) { c.args.q = c.args.q.slice(1, 0, 3); }),
            "q has 3 heads, expected a multiple of the 2 of k");
  EXPECT_EQ(refusal([](Call& c) {
              for (KeyValue& kv : c.sequences) kv.k = kv.k.slice(1, 0, 0), kv.v = kv.v.slice(1, 0, 0);
            }),
            "q has 4 heads, expected a multiple of the 0 of k");
  EXPECT_EQ(refusal([](Call& c) { c.args.out = c.args.out.slice(2, 0, 8); }),
            "out has shape [4, 4, 8], expected [4, 4, 12]");
  EXPECT_EQ(refusal([](Call& c) { c.args.out = {}; }), "out has shape [0, 0, 0], expected [4, 4, 12]");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[1].k = c.sequences[1].k.slice(2, 0, 7); }),
            "k has shape [6, 2, 7], expected [6, 2, 8]");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[1].k = c.sequences[1].k.slice(1, 0, 1); }),
            "k has shape [6, 1, 8], expected [6, 2, 8]");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[0].v = c.sequences[0].v.slice(0, 0, 8); }),
            "v has shape [8, 2, 12], expected [9, 2, 12]");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[1].v = c.sequences[1].v.slice(2, 0, 11); }),
            "v has shape [6, 2, 11], expected [6, 2, 12]");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[0].k.strides[2] = 2; }),
            "k has stride 2 on its last axis, expected 1");
  EXPECT_EQ(refusal([](Call& c) { c.args.lse = c.p.lse.view().slice(0, 0, 3); }),
            "lse has shape [3, 4], expected [4, 4]");
  EXPECT_EQ(refusal([](Call& c) { c.args.entropy = c.p.entropy.view().slice(1, 0, 3); }),
            "entropy has shape [4, 3], expected [4, 4]");
}

TEST(SoftmaxAttentionRefusals, Sequences) {
  EXPECT_EQ(refusal([](Call& c) { c.args.sequences = c.args.sequences.first(1); }),
            "there are keys and values of 1 sequences, expected 2");
  EXPECT_EQ(refusal([](Call& c) { c.p.offsets = {0, 3, 5}; }), "offsets end at 5, expected 4 tokens");
  EXPECT_EQ(refusal([](Call& c) { c.p.offsets = {1, 3, 4}; }), "offsets[0] is 1, expected 0");
  EXPECT_EQ(refusal([](Call& c) {
              c.args.pattern.causal = true;
              c.sequences[0] = c.keys(100, 2);
            }),
            "sequence 0 has 3 queries and 2 keys, expected as many keys when causal");
}

// Queries before the first position have no place in these.
TEST(SoftmaxAttentionRefusals, MoreQueriesThanPositions) {
  const std::string_view want =
      "sequence 0 has 3 queries and 2 keys, expected as many keys where positions count";
  auto with = [](auto change) {
    return refusal([&](Call& c) {
      c.sequences[0] = c.keys(100, 2);
      change(c);
    });
  };
  EXPECT_EQ(with([](Call& c) { c.args.pattern.left = 1; }), want);
  EXPECT_EQ(with([](Call& c) { c.args.pattern.right = 1; }), want);
  EXPECT_EQ(with([](Call& c) { c.args.pattern.chunk = 2; }), want);
  EXPECT_EQ(with([](Call& c) { c.args.pattern.dilation = 2; }), want);
  EXPECT_EQ(with([](Call& c) { c.args.pattern.strided = 2; }), want);
  EXPECT_EQ(with([](Call& c) {
              c.block_offsets = {0, 1}, c.block_keys = {0};
              c.args.pattern.blocks = {16, c.block_offsets, c.block_keys};
            }),
            want);
  EXPECT_EQ(with([](Call& c) {
              c.list = {1};
              c.args.pattern.global_queries = c.list;
            }),
            want);
  EXPECT_EQ(with([](Call& c) { c.args.score.alibi = c.p.alibi.emplace(std::array<Index, 1>{4}).cview(); }),
            want);
  EXPECT_EQ(with([](Call& c) {
              c.args.score.relative = c.p.relative.emplace(std::array<Index, 2>{1, 3}).cview();
            }),
            want);
}

TEST(SoftmaxAttentionRefusals, Patterns) {
  auto with = [](AttentionPattern pattern) { return refusal([&](Call& c) { c.args.pattern = pattern; }); };
  EXPECT_EQ(with({.left = -2}),
            "the window is -2 to the left and -1 to the right, expected 0 or more, or -1");
  EXPECT_EQ(with({.left = 3, .right = -7}),
            "the window is 3 to the left and -7 to the right, expected 0 or more, or -1");
  EXPECT_EQ(with({.chunk = -1}), "chunks have -1 positions, expected 0 (none) or more");
  EXPECT_EQ(with({.dilation = 0}), "dilation is 0, expected 1 or more");
  EXPECT_EQ(with({.strided = -3}), "strided is -3, expected 0 (none) or more");
  EXPECT_EQ(with({.causal = true, .causal_block = -4}),
            "causal_block is -4 and prefix 0, expected 0 (none) or more");
  EXPECT_EQ(with({.causal = true, .prefix = -4}),
            "causal_block is 0 and prefix -4, expected 0 (none) or more");
  EXPECT_EQ(with({.causal_block = 4}), "causal_block and prefix are given without causal, which they widen");
  EXPECT_EQ(with({.prefix = 4}), "causal_block and prefix are given without causal, which they widen");
  EXPECT_EQ(with({.causal = true, .causal_block = 4, .prefix = 4}),
            "both causal_block and prefix are given, expected one");
  auto positions = [](std::vector<Index> list, bool keys) {
    return refusal(
        [&](Call& c) { (keys ? c.args.pattern.global_keys : c.args.pattern.global_queries) = list; });
  };
  EXPECT_EQ(positions({-1, 2}, true), "global_keys[0] is -1, expected a position");
  EXPECT_EQ(positions({2, 2}, true), "global_keys[1] is 2 after 2, expected ascending positions");
  EXPECT_EQ(positions({-1}, false), "global_queries[0] is -1, expected a position");
  EXPECT_EQ(positions({1, 4, 3}, false), "global_queries[2] is 3 after 4, expected ascending positions");
}

TEST(SoftmaxAttentionRefusals, BlockLists) {
  // 3 query blocks of 4 positions cover the 9 of sequence 0.
  auto with = [](std::vector<Index> offsets, std::vector<Index> keys, Index block = 4, Index heads = 1) {
    return refusal([&](Call& c) { c.args.pattern.blocks = {block, offsets, keys, heads}; });
  };
  EXPECT_EQ(with({0, 1, 2, 3}, {0, 0, 0}, -4), "blocks have -4 positions, expected 1 or more");
  EXPECT_EQ(with({0, 1, 2, 3}, {0, 0, 0}, 4, 3), "block lists are of 3 heads, expected 1 or the 4 of q");
  EXPECT_EQ(with({0, 1, 2, 3}, {0, 0, 0}, 4, 4),
            "block lists have 4 offsets, expected heads times query blocks and one more");
  EXPECT_EQ(with({}, {}), "block lists have 0 offsets, expected heads times query blocks and one more");
  EXPECT_EQ(with({0, 1, 2}, {0, 0}), "block lists are of 2 query blocks, expected the 3 of 9 positions");
  EXPECT_EQ(with({1, 1, 2, 3}, {0, 0, 0}), "block offsets[0] is 1, expected 0");
  EXPECT_EQ(with({0, 1, 2, 3}, {0, 0, 0, 1}), "block offsets end at 3, expected the 4 listed blocks");
  EXPECT_EQ(with({0, 2, 1, 3}, {0, 1, 2}), "block offsets[2] is 1, expected 2 to 3");
  EXPECT_EQ(with({0, 9, 2, 3}, {0, 1, 2}), "block offsets[1] is 9, expected 0 to 3");
  EXPECT_EQ(with({0, 1, 3, 3}, {0, 1, 1}), "block list 1 has 1, expected ascending key blocks");
  EXPECT_EQ(with({0, 1, 2, 3}, {0, -1, 2}), "block list 1 has -1, expected ascending key blocks");
}

TEST(SoftmaxAttentionRefusals, Scores) {
  EXPECT_EQ(refusal([](Call& c) { c.args.score.soft_cap = -2; }),
            "soft_cap is -2.000000, expected 0 (none) or more");
  EXPECT_EQ(refusal([](Call& c) { c.args.score.alibi = c.p.alibi.emplace(std::array<Index, 1>{3}).cview(); }),
            "alibi has shape [3], expected [4]");
  EXPECT_EQ(refusal([](Call& c) { c.args.score.sinks = c.p.sinks.emplace(std::array<Index, 1>{2}).cview(); }),
            "sinks has shape [2], expected [4]");
  auto relative = [](Index heads, Index distances) {
    return refusal([&](Call& c) {
      c.args.score.relative = c.p.relative.emplace(std::array{heads, distances}).cview();
    });
  };
  EXPECT_EQ(relative(2, 5),
            "relative has shape [2, 5], expected 1 or 4 heads and an odd number of distances");
  EXPECT_EQ(relative(4, 6),
            "relative has shape [4, 6], expected 1 or 4 heads and an odd number of distances");
  EXPECT_EQ(relative(4, 0),
            "relative has shape [4, 0], expected 1 or 4 heads and an odd number of distances");
  auto bias = [](std::array<Index, 4> shape) {
    return refusal([&](Call& c) { c.args.score.bias = c.p.bias.emplace(shape).cview(); });
  };
  const std::string expected = ", expected [2, 4, 3, 9], or 1 where it is the same";
  EXPECT_EQ(bias({3, 4, 3, 9}), "bias has shape [3, 4, 3, 9]" + expected);
  EXPECT_EQ(bias({1, 2, 3, 9}), "bias has shape [1, 2, 3, 9]" + expected);
  EXPECT_EQ(bias({1, 4, 2, 9}), "bias has shape [1, 4, 2, 9]" + expected);
  EXPECT_EQ(bias({2, 1, 3, 8}), "bias has shape [2, 1, 3, 8]" + expected);
  EXPECT_EQ(refusal([&](Call& c) {
              c.args.score.bias = c.p.bias.emplace(std::array<Index, 4>{2, 4, 3, 9}).cview().slice(1, 0, 0);
            }),
            "bias has shape [2, 0, 3, 9]" + expected);
}

TEST(SoftmaxAttentionRefusals, Requests) {
  EXPECT_EQ(refusal([](Call& c) { c.args.top_k = -1; }), "top_k is -1, expected 0 (all) or more");
  for (const AttentionNormalizer n : test::kNormalizers) {
    if (test::is_softmax(n)) continue;
    const std::string_view want = "lse or entropy is asked of a normaliser that is not a softmax";
    EXPECT_EQ(refusal([&](Call& c) { c.args.normalizer = n, c.args.lse = c.p.lse.view(); }), want);
    EXPECT_EQ(refusal([&](Call& c) { c.args.normalizer = n, c.args.entropy = c.p.entropy.view(); }), want);
    EXPECT_EQ(refusal([&](Call& c) {
                c.args.normalizer = n;
                c.args.score.sinks = c.p.sinks.emplace(std::array<Index, 1>{4}).cview();
              }),
              "sinks are given with a normaliser that is not a softmax");
  }
}

TEST(SoftmaxAttentionRefusals, KeysThatAreNotThere) {
  EXPECT_EQ(refusal([](Call& c) { c.sequences[0].start = -1; }),
            "sequence 0 has the positions -1 to 8, expected 0 or more that do not decrease");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[1].start = 4, c.sequences[1].length = 2; }),
            "sequence 1 has the positions 4 to 2, expected 0 or more that do not decrease");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[1].length = 7; }),
            "sequence 1 has 7 positions from 0 on in 6 rows, expected as many rows");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[1].start = 3, c.sequences[1].length = 10; }),
            "sequence 1 has 7 positions from 3 on in 6 rows, expected as many rows");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[0].ring = true, c.sequences[0].length = 20; }),
            "sequence 0 has 20 positions from 0 on in 9 rows, expected as many rows");
  EXPECT_EQ(refusal([](Call& c) {  // the first of 3 queries sees back to position 20 - 3 - 7
              c.args.pattern = AttentionPattern::causal_window(8);
              c.sequences[0].ring = true, c.sequences[0].start = 10, c.sequences[0].length = 20;
            }),
            "sequence 0 has 10 positions from 10 on in 9 rows, expected as many rows");
  EXPECT_EQ(refusal([](Call& c) { c.sequences[0].start = (Index{1} << 30) - 9; }),
            "a sequence has 1073741824 positions, expected fewer than 2^30");
}

TEST(SoftmaxAttentionRefusals, Pages) {
  EXPECT_EQ(refusal([](Call& c) {
              c.paged({1, 7});
            }),
            "sequence 0 has 2 pages of 4 rows, expected the 3 of 9 positions");
  EXPECT_EQ(refusal([](Call& c) { c.paged({}); }),
            "sequence 0 has 0 pages of 4 rows, expected the 3 of 9 positions");
  EXPECT_EQ(refusal([](Call& c) {
              c.paged({1, 8, 0});
            }),
            "sequence 0 has page 8 at 1, outside of the 8 of the pool");
  EXPECT_EQ(refusal([](Call& c) {
              c.paged({1, 2, -1});
            }),
            "sequence 0 has page -1 at 2, outside of the 8 of the pool");
  EXPECT_EQ(refusal([](Call& c) {
              c.paged({1, Index{1} << 62, 0});
            }),
            "sequence 0 has page 4611686018427387904 at 1, outside of the 8 of the pool");
  EXPECT_EQ(refusal([](Call& c) {
              c.paged({1, 2, 3}).page = -4;
            }),
            "sequence 0 has 3 pages of -4 rows, expected 1 or more");
  EXPECT_EQ(refusal([](Call& c) {
              c.paged({1, 2, 3}).page = 0;
            }),
            "sequence 0 has 3 pages of 0 rows, expected 1 or more");
  EXPECT_EQ(refusal([](Call& c) {
              c.paged({1, 2, 3}).ring = true;
            }),
            "sequence 0 is both a ring and paged, expected one of them");
  EXPECT_EQ(refusal([](Call& c) {
              c.paged({1, 2, 3}).length = -1;
            }),
            "sequence 0 has 3 pages of 4 rows, expected the 8 of 32 positions");
}

TEST(SoftmaxAttentionRefusals, OfBf16Too) {
  std::vector<bf16> data(9 * 2 * 8);
  const KeyValueArgs<bf16> kv{{data.data(), {9, 2, 8}}, {data.data(), {9, 2, 8}}};
  Array<3> q({3, 3, 8}), out({3, 3, 8});
  CpuExec exec;
  const SoftmaxAttentionArgs<float, bf16> args{q.cview(), {}, {&kv, 1}, out.view()};
  EXPECT_EQ(test::refusal([&] { softmax_attention(args, exec); }),
            "softmax_attention: q has 3 heads, expected a multiple of the 2 of k");
}

TEST(MergeAttentionRefusals, Shapes) {
  Array<3> a({3, 2, 8}), b({3, 2, 8}), out({3, 2, 8});
  Array<2> lse_a({3, 2}), lse_b({3, 2}), lse({3, 2});
  auto with = [&](auto change) {
    MergeAttention args{a.cview(), lse_a.cview(), b.cview(), lse_b.cview(), out.view(), lse.view()};
    change(args);
    CpuExec exec;
    return test::refusal([&] { merge_attention(args, exec); });
  };
  EXPECT_EQ(with([](MergeAttention& m) { m.b = m.b.slice(0, 0, 2); }),
            "merge_attention: b has shape [2, 2, 8], expected [3, 2, 8]");
  EXPECT_EQ(with([](MergeAttention& m) { m.out = m.out.slice(2, 0, 7); }),
            "merge_attention: a has shape [3, 2, 8], expected [3, 2, 7]");
  EXPECT_EQ(with([](MergeAttention& m) { m.lse_a = m.lse_a.slice(1, 0, 1); }),
            "merge_attention: lse_a has shape [3, 1], expected [3, 2]");
  EXPECT_EQ(with([](MergeAttention& m) { m.lse_b = m.lse_b.slice(0, 0, 2); }),
            "merge_attention: lse_b has shape [2, 2], expected [3, 2]");
  EXPECT_EQ(with([](MergeAttention& m) { m.lse = m.lse.slice(0, 0, 2); }),
            "merge_attention: lse has shape [2, 2], expected [3, 2]");
  EXPECT_EQ(with([](MergeAttention& m) { m.a.strides[2] = 2; }),
            "merge_attention: a has stride 2 on its last axis, expected 1");
}

}  // namespace
}  // namespace ashlar
