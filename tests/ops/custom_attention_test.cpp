// SPDX-License-Identifier: Apache-2.0
#include "ashlar/kernels/custom_attention-inl.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using namespace attention;

struct Alibi {
  View<const float, 1> slopes;
  FloatVec operator()(FloatTag d, const AttentionRow& row, IntVec keys, Index, FloatVec x) const {
    const IntTag di;
    const auto distance = hn::Abs(hn::Sub(keys, hn::Set(di, static_cast<std::int32_t>(row.position))));
    return hn::NegMulAdd(hn::Set(d, slopes(row.head)), hn::ConvertTo(d, distance), x);
  }
};
struct Causal : AnyKey {
  KeyMask visible(IntTag d, const AttentionRow& row, IntVec keys) const {
    return hn::Lt(keys, hn::Set(d, static_cast<std::int32_t>(row.position + 1)));
  }
};
// Nothing at all is visible, and nothing is looked at.
struct Nothing : AnyKey {
  BlockUse use(Index, Index, Index, Index, Index, Index) const { return BlockUse::absent; }
  KeyMask visible(IntTag d, const AttentionRow&, IntVec keys) const {
    ADD_FAILURE() << "a key of an absent block was tested";
    return hn::Eq(keys, hn::Set(d, -1));
  }
};

struct Problem {
  explicit Problem(Index queries, Index keys) : q({queries, 6, 24}), k({keys, 2, 24}), v({keys, 2, 40}) {
    std::mt19937 rng(1);
    q.normal(rng), k.normal(rng), v.normal(rng);
    kv = {k.cview(), v.cview()};
  }
  SoftmaxAttention args(View<float, 3> out) { return {q.cview(), {}, {&kv, 1}, out}; }

  test::Array<3> q, k, v;
  KeyValue kv;
};

TEST(CustomAttention, AlibiWrittenOutsideIsTheBuiltInOne) {
  for (const Index queries : {1, 5, 130}) {
    Problem p(queries, 700);
    const Tensor<float, 1> slopes = alibi_slopes(6);
    Tensor<float, 3> custom({queries, 6, 40}), builtin({queries, 6, 40});
    for (const int threads : {1, 3}) {
      CpuExec exec({threads});
      softmax_attention(p.args(custom.view()), Causal(), Alibi{slopes.view()}, exec);
      SoftmaxAttention args = p.args(builtin.view());
      args.pattern.causal = true, args.score.alibi = slopes.view();
      softmax_attention(args, exec);
      test::expect_close(custom.view(), View<const float, 3>(builtin.view()), [](Index) { return 2e-5; });
    }
  }
}

TEST(CustomAttention, ABandIsTheBuiltInOne) {
  Problem p(130, 333);
  Tensor<float, 3> custom({130, 6, 40}), builtin({130, 6, 40});
  CpuExec exec;
  softmax_attention(p.args(custom.view()), BandPattern{19, 0}, PlainScore(), exec);
  SoftmaxAttention args = p.args(builtin.view());
  args.pattern = AttentionPattern::causal_window(20);
  softmax_attention(args, exec);
  test::expect_close(custom.view(), View<const float, 3>(builtin.view()), [](Index) { return 2e-5; });
}

TEST(CustomAttention, AbsentBlocksAreNotLookedAt) {
  Problem p(7, 333);
  test::Array<3> out({7, 6, 40});
  CpuExec exec;
  softmax_attention(p.args(out.view()), Nothing(), PlainScore(), exec);
  for (Index t = 0; t < 7; ++t)
    for (Index h = 0; h < 6; ++h)
      for (Index c = 0; c < 40; ++c) EXPECT_EQ(out.view()(t, h, c), 0);
}

TEST(CustomAttention, RefusesWhatTheOpRefuses) {
  Problem p(7, 333);
  Tensor<float, 3> out({7, 5, 40});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] { softmax_attention(p.args(out.view()), Causal(), PlainScore(), exec); }),
            "softmax_attention: out has shape [7, 5, 40], expected [7, 6, 40]");
}

}  // namespace
}  // namespace ashlar
