// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/gated_scan.hpp"

#include <atomic>

#include "src/core/mixer_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/gated_scan.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// The first of `n` elements that is positive or NaN; n when there is none.
Index first_not_decay(const float* g, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  Index i = 0;
  while (i + lanes <= n && hn::AllTrue(d, hn::Le(hn::LoadU(d, g + i), hn::Zero(d)))) i += lanes;
  while (i < n && g[i] <= 0) ++i;
  return i;
}

// Tokens [begin, end) and `channels` channels from `first` on; h is their state, or null: zero. A vector of
// channels stays in a register through all tokens.
void scan_channels(const GatedScan& a, Index begin, Index end, Index first, Index channels, float* state) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  Index c = 0;
  for (; c + 2 * lanes <= channels; c += 2 * lanes) {
    auto h0 = state ? hn::LoadU(d, state + c) : hn::Zero(d);
    auto h1 = state ? hn::LoadU(d, state + c + lanes) : hn::Zero(d);
    for (Index t = begin; t < end; ++t) {
      const float *g = a.g.at(t, first + c), *x = a.x.at(t, first + c);
      float* out = a.out.at(t, first + c);
      h0 = hn::MulAdd(exp_negative(d, hn::LoadU(d, g)), h0, hn::LoadU(d, x));
      h1 = hn::MulAdd(exp_negative(d, hn::LoadU(d, g + lanes)), h1, hn::LoadU(d, x + lanes));
      hn::StoreU(h0, d, out);
      hn::StoreU(h1, d, out + lanes);
    }
    if (state) hn::StoreU(h0, d, state + c), hn::StoreU(h1, d, state + c + lanes);
  }
  for (; c < channels; c += lanes) {
    const Index left = std::min(lanes, channels - c);
    auto h = state ? load_n(d, state + c, left) : hn::Zero(d);
    for (Index t = begin; t < end; ++t) {
      h = hn::MulAdd(exp_negative(d, load_n(d, a.g.at(t, first + c), left)), h,
                     load_n(d, a.x.at(t, first + c), left));
      store_n(h, d, a.out.at(t, first + c), left);
    }
    if (state) store_n(h, d, state + c, left);
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
HWY_EXPORT(first_not_decay);
HWY_EXPORT(scan_channels);
}  // namespace kernels

namespace {

constexpr std::string_view kOp = "hgrn";

void check_scan(const GatedScan& a, CpuExec& exec) {
  check(a);
  const auto [tokens, dim] = a.x.shape;
  for (std::size_t n = 0; n < a.states.size(); ++n) {
    const RecurrentState::History& h = a.states[n]->history();
    if (h.keep != 0 && h.count != 0 && !h.whole)
      refuse(kOp, "states[", n, "] keeps updates of linear_recurrence, expected none or a scan's");
    if (h.keep != 0 && h.substeps != 1)
      refuse(kOp, "states[", n, "] keeps updates of ", h.substeps, " substeps a token, expected 1");
  }
  std::atomic<Index> bad{tokens};
  const Index channels = dim;
  parallel_rows(exec, tokens, channels, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      if (ASHLAR_DISPATCH(exec, first_not_decay)(a.g.at(t), channels) != channels) {
        Index least = bad.load();
        while (t < least && !bad.compare_exchange_weak(least, t)) continue;
        return;
      }
  });
  if (const Index t = bad; t != tokens) {
    const Index i = ASHLAR_DISPATCH(exec, first_not_decay)(a.g.at(t), channels);
    refuse(kOp, "g[", t, ", ", i, "] is ", a.g(t, i), ", expected a log decay up to 0");
  }
}

}  // namespace

void hgrn(const GatedScan& a, CpuExec& exec) {
  check_scan(a, exec);
  const auto [tokens, dim] = a.x.shape;
  const Index sequences = a.offsets.count(), length = tokens, channels = dim;
  trace(exec, kOp, "scan", to_string(a.x.shape), " sequences=", sequences);
  // The states before the last tokens: the one of before the call, and rows of out.
  auto each_kept = [&](auto&& f) {
    for (Index n = 0; n < static_cast<Index>(a.states.size()); ++n) {
      RecurrentState& s = *a.states[static_cast<std::size_t>(n)];
      const Index begin = a.offsets.begin(n), end = a.offsets.end(n, length);
      if (s.history().keep != 0 && begin != end) f(s, begin, end);
    }
  };
  each_kept([](RecurrentState& s, Index begin, Index end) {
    RecurrentState::History& h = s.history();
    h.whole = true;
    if (end - begin >= h.keep) h.count = 0;
    if (end - begin <= h.keep) s.record(static_cast<const float*>(s.panel(0, 0)));
  });
  // A block is wide enough to read whole cache lines, and narrow enough to give every worker some.
  constexpr Index kBlock = 64;
  const Index blocks = (channels + kBlock - 1) / kBlock;
  exec.parallel_for(sequences * blocks, [&](Index task, int) {
    const Index n = task / blocks, first = task % blocks * kBlock;
    float* state = nullptr;
    if (!a.states.empty())
      state = static_cast<float*>(a.states[static_cast<std::size_t>(n)]->panel(0, 0)) + first;
    ASHLAR_DISPATCH(exec, scan_channels)
    (a, a.offsets.begin(n), a.offsets.end(n, length), first, std::min(kBlock, channels - first), state);
  });
  each_kept([&](RecurrentState& s, Index begin, Index end) {
    for (Index t = std::max(begin + 1, end - s.history().keep); t < end; ++t) s.record(a.out.at(t - 1));
  });
  for (Index n = 0; n < static_cast<Index>(a.states.size()); ++n)
    a.states[static_cast<std::size_t>(n)]->advance(a.offsets.end(n, length) - a.offsets.begin(n));
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
