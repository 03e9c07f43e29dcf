// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/token_shift.hpp"

#include <algorithm>

#include "src/core/mixer_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/token_shift.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Tokens [begin, end) of the packed axis; zeros [C] stands for the input before the start.
void token_shift_tokens(const TokenShift& a, const float* zeros, Index begin, Index end) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const auto [ways, tokens, channels] = a.out.shape;
  for (Index n = first_after(a.offsets, begin, tokens); begin < end; ++n) {
    const Index start = a.offsets.begin(n), stop = std::min(end, a.offsets.end(n, tokens));
    const float* state = a.states.empty() ? zeros : a.states[static_cast<std::size_t>(n)];
    for (Index t = begin; t < stop; ++t) {
      const float *x = a.x.at(t), *before = t > start ? a.x.at(t - 1) : state;
      for (Index c = 0; c < channels; c += lanes) {
        const Index left = channels - c;
        const auto now = load_some(d, x + c, left);
        const auto delta = hn::Sub(load_some(d, before + c, left), now);
        for (Index m = 0; m < ways; ++m)
          store_some(hn::MulAdd(load_some(d, a.mu.at(m, t, c), left), delta, now), d, a.out.at(m, t, c),
                     left);
      }
    }
    begin = std::max(begin, stop);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(token_shift_tokens);
}  // namespace kernels

void token_shift(const TokenShift& a, CpuExec& exec) {
  const auto [ways, tokens, channels] = a.out.shape;
  check(a);
  const Index sequences = a.offsets.count();
  trace(exec, "token_shift", "rows", to_string(a.out.shape));
  if (tokens == 0 || channels == 0) return;
  CpuScratch scratch(exec);
  const float* zeros = nullptr;
  if (a.states.empty()) {
    const auto row = scratch.floats(channels);
    std::fill_n(row.data, channels, 0.0f);
    zeros = row.data;
  }
  parallel_rows(exec, tokens, ways * channels, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, token_shift_tokens)(a, zeros, begin, end);
  });
  if (a.states.empty() || !a.advance) return;
  for (Index n = 0; n < sequences; ++n)
    if (const Index end = a.offsets.end(n, tokens); end > a.offsets.begin(n))
      std::copy_n(a.x.at(end - 1), channels, a.states[static_cast<std::size_t>(n)]);
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
