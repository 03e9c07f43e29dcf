// SPDX-License-Identifier: Apache-2.0
// Softmax attention with a pattern and a score function of your own, compiled into the engine's loops with
// your compiler's flags (-O2 and -march decide about the vectors); needs Highway's headers. See
// docs/custom-attention.md.
#pragma once
#ifndef HWY_TARGET_INCLUDE
#define HWY_COMPILE_ONLY_STATIC  // one version, for the compiler's flags
#endif
#include "hwy/highway.h"
//
#include "ashlar/kernels/softmax_attention-inl.hpp"

namespace ashlar {
inline namespace v0 {

namespace attention {
using kernels::AttentionRow;
using kernels::BlockUse;
using kernels::KeyRange;
using kernels::HWY_NAMESPACE::AnyKey;       // base of patterns that need no ranges
using kernels::HWY_NAMESPACE::BandPattern;  // {left, right}
using kernels::HWY_NAMESPACE::FloatTag;
using kernels::HWY_NAMESPACE::FloatVec;
using kernels::HWY_NAMESPACE::IntTag;
using kernels::HWY_NAMESPACE::IntVec;
using kernels::HWY_NAMESPACE::KeyMask;
using kernels::HWY_NAMESPACE::PlainScore;  // the product as it is
}  // namespace attention

// As softmax_attention, with `pattern` and `score` (attention_pattern-inl.hpp and attention_score-inl.hpp say
// what they are) in place of args.pattern and args.score's soft cap and tables. args.pattern still bounds
// what is looked at and should be left at its default, or hold a band that holds the pattern. Both are called
// by several threads at once.
template <class Pattern, class Score, class Kv, class Q>
void softmax_attention(const SoftmaxAttentionArgs<float, Kv, Q>& args, const Pattern& pattern,
                       const Score& score, CpuExec& exec) {
  struct Policies {
    const Pattern& pattern;
    const Score& score;
  };
  const Policies policies{pattern, score};
  detail::run_attention(
      args,
      [](const void* p, const kernels::AttentionTile& tile) {
        const Policies& mine = *static_cast<const Policies*>(p);
        kernels::HWY_NAMESPACE::attend_tile(tile, mine.pattern, mine.score);
      },
      &policies, exec);
}

}  // namespace v0
}  // namespace ashlar
