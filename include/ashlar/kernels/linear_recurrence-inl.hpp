// SPDX-License-Identifier: Apache-2.0
// The recurrence engine: value columns of one head of one sequence, in panels of 64, over all its tokens.
// Columns are independent, so that (sequence, head, panel) is the parallel axis.
//
// One step reads S and updates it, a panel at a time, while that is in the cache. Recurrent prefill takes
// blocks of a few tokens, whose update of S is applied late, in the sweep that reads S for the next block:
// one load and one store of S for up to 16 multiply-adds. Blocks are gathered in runs: a panel stays in the
// first-level cache for a whole run, after which S is itself again, so that a sequence cut between runs gives
// the same bits as a whole one.
#if defined(ASHLAR_KERNELS_LINEAR_RECURRENCE_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_LINEAR_RECURRENCE_INL_HPP_
#undef ASHLAR_KERNELS_LINEAR_RECURRENCE_INL_HPP_
#else
#define ASHLAR_KERNELS_LINEAR_RECURRENCE_INL_HPP_
#endif

#include <cstring>
#include <span>

#include "ashlar/kernels/recurrence_block-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Tokens of a block: what the registers hold.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
template <class Policy>
inline constexpr int kBlockTokens = 4;
#else
template <class Policy>
inline constexpr int kBlockTokens = Policy::kLowRank ? 2 : 4;
#endif
inline constexpr Index kRunTokens = 32;
// Between the rows of a block: not a multiple of the first-level cache's 4 KiB ways.
inline constexpr Index kSmallPitch = 128 + 16, kLargePitch = 1024 + 16;

template <class Policy, int kTokens, Index kPitch>
using SweepOf = SweepShape<kTokens, Policy::kTransition != Transition::none, Policy::kLowRank, kPitch>;

// Places for `blocks` blocks in a task's scratch memory.
template <class Policy, int B>
void place_blocks(float* memory, int blocks, Index pitch, RecurrenceBlock<B>* block) {
  for (int i = 0; i < blocks; ++i)
    for (float** rows : {&block[i].key, &block[i].query, &block[i].update_key, &block[i].update_low})
      *rows = memory, memory += B * pitch;
  for (int i = 0; i < blocks; ++i) block[i].scale = memory, memory += pitch;
}

// How many floats of scratch memory the recurrent form takes at most.
inline Index recurrent_scratch(Index key_dim) {
  const Index pitch = key_dim <= kSmallPitch - 16 ? kSmallPitch : kLargePitch;
  const Index run = pitch * (4 * kRunTokens + kRunTokens / 2 + 1), step = 8 * hwy::RoundUpTo(key_dim, 16);
  return HWY_MAX(run, step);
}

// Where a step's update goes, for taking it back.
struct UpdateRecord {
  float* to = nullptr;  // decay, k, b, u, w; see RecurrentState
  Index columns = 0, first = 0;
};

// Substep t alone.
template <class Policy, class T>
void step(const RecurrenceTask& p, Index t, T* state, const UpdateRecord& record) {
  using Sweep = SweepOf<Policy, 1, 0>;
  RecurrenceBlock<1> block;
  const Index pitch = hwy::RoundUpTo(p.key_dim, 16);
  place_blocks<Policy, 1>(p.scratch, 1, pitch, &block);
  HeldDecay held{1, block.scale + pitch};
  held.reset(Policy::kVector ? pitch : 0);
  prepare_block<Policy, 1, 0>(p, t, true, held, block);
  if (record.to != nullptr && record.first == 0) {
    for (Index i = 0; i < p.key_dim; ++i) {
      record.to[i] = block.scales ? block.scale[i] : 1;
      record.to[p.key_dim + i] = block.update_key[i];
      record.to[2 * p.key_dim + i] = Policy::kLowRank ? block.update_low[i] : 0;
    }
  }
  constexpr Index kColumns = kSweepColumns<Sweep>;
  HWY_ALIGN float u[2 * kPanel], seen[kPanel], read[kPanel];
  for (Index from = 0; from < p.panels() * kPanel; from += kPanel, state += p.key_dim * kPanel)
    for (Index c = 0; c < kPanel; c += kColumns) {
      if (record.to == nullptr && from + c >= p.state_columns()) break;
      sweep_columns<Sweep, SweepPart::read>(state + c, p.key_dim, block.reads(), u, seen, read);
      solve_columns<Policy, kColumns>(p, block, t, from + c, seen, read, u);
      if (record.to != nullptr) {
        float* to = record.to + 3 * p.key_dim + record.first + from + c;
        std::memcpy(to, u, sizeof(float) * kColumns);
        if constexpr (Policy::kLowRank)
          std::memcpy(to + record.columns, u + kPanel, sizeof(float) * kColumns);
      }
      sweep_columns<Sweep, SweepPart::update>(state + c, p.key_dim, block.updates(), u, seen, read);
    }
}

// Rows of tokens lie pages apart, where the hardware's prefetchers do not follow. Those that the next run
// prepares are fetched while this one sweeps, into the second-level cache.
template <class Policy>
HWY_INLINE void prefetch_keys(const RecurrenceTask& p, Index t, Index n) {
  for (Index i = t; i < HWY_MIN(t + n, p.tokens * p.substeps); ++i) {
    prefetch_row_far(p.k[i], p.key_dim);
    prefetch_row_far(p.q[i / p.substeps], p.key_dim);
    if constexpr (Policy::kVector) prefetch_row_far(p.gk[i / p.substeps], p.key_dim);
    if constexpr (Policy::kLowRank) prefetch_row_far(p.a[i], p.key_dim), prefetch_row_far(p.b[i], p.key_dim);
  }
}
HWY_INLINE void prefetch_values(const RecurrenceTask& p, Index t, Index n, Index from) {
  const Index columns = HWY_MIN(kPanel, p.columns - from);
  for (Index i = t; i < HWY_MIN(t + n, p.tokens * p.substeps); ++i) {
    prefetch_row(p.v[i] + from, columns);
    if (p.out != nullptr) prefetch_row(p.out + i / p.substeps * p.out_stride + from, columns);
  }
}

// Substeps [t, t + n), n a multiple of the block's tokens and at most kRunTokens.
template <class Policy, Index kPitch>
void run_blocks(const RecurrenceTask& p, Index t, Index n, float* state) {
  constexpr int B = kBlockTokens<Policy>, kBlocks = static_cast<int>(kRunTokens / B);
  using Sweep = SweepOf<Policy, B, kPitch>;
  RecurrenceBlock<B> block[kBlocks];
  place_blocks<Policy, B>(p.scratch, kBlocks, kPitch, block);
  HeldDecay held{1, block[kBlocks - 1].scale + kPitch};
  held.reset(Policy::kVector ? kPitch : 0);
  const int blocks = static_cast<int>(n / B);
  for (int i = 0; i < blocks; ++i)
    prepare_block<Policy, B, kPitch>(p, t + i * B, i + 1 == blocks, held, block[i]);
  // The columns of a panel are taken in turns, so that one solution is under way while the next sweep begins.
  constexpr Index kColumns = kSweepColumns<Sweep>;
  HWY_ALIGN float u[2 * B * kPanel], seen[B * kPanel], read[B * kPanel];
  for (Index from = 0; from < p.panels() * kPanel; from += kPanel, state += p.key_dim * kPanel) {
    const Index end = HWY_MIN(kPanel, p.state_columns() - from);
    for (int i = 0; i < blocks; ++i) {
      if (from == 0) prefetch_keys<Policy>(p, t + n + i * B, B);
      prefetch_values(p, t + (i + 1) * B, B, from);
      SweepRows rows = block[i].reads();
      if (i > 0) {
        const SweepRows before = block[i - 1].updates();
        rows.scale = before.scale, rows.update_key = before.update_key, rows.update_low = before.update_low;
      }
      for (Index c = 0; c < end; c += kColumns) {
        if (i == 0)
          sweep_columns<Sweep, SweepPart::read>(state + c, p.key_dim, rows, u + c, seen, read);
        else
          sweep_columns<Sweep, SweepPart::update_and_read>(state + c, p.key_dim, rows, u + c, seen, read);
        solve_columns<Policy, kColumns>(p, block[i], t + i * B, from + c, seen, read, u + c);
      }
    }
    for (Index c = 0; c < end; c += kColumns)
      sweep_columns<Sweep, SweepPart::update>(state + c, p.key_dim, block[blocks - 1].updates(), u + c, seen,
                                              read);
  }
}

// The recurrent form as recur() drives it: run() takes up to length() substeps, from a multiple of it on.
template <class Policy>
struct RecurrentForm {
  static Index length(const RecurrenceTask&) { return kRunTokens; }
  static void run(const RecurrenceTask& p, Index t, Index n, float* state) {
    const Index whole = p.key_dim <= kLargePitch - 16 ? n / kBlockTokens<Policy> * kBlockTokens<Policy> : 0;
    if (whole > 0 && p.key_dim <= kSmallPitch - 16)
      run_blocks<Policy, kSmallPitch>(p, t, whole, state);
    else if (whole > 0)
      run_blocks<Policy, kLargePitch>(p, t, whole, state);
    for (Index i = t + whole; i < t + n; ++i) step<Policy>(p, i, state, {});
  }
};

// A state as f32 and back.
inline void widen(const RecurrenceTask& p, const void* from, bool narrow, float* to) {
  const Index size = p.panels() * p.key_dim * kPanel;
  const FloatTag d;
  if (!narrow)
    std::memcpy(to, from, sizeof(float) * static_cast<std::size_t>(size));
  else
    for (Index i = 0; i < size; i += kLanes)
      hn::StoreU(load(d, static_cast<const bf16*>(from) + i), d, to + i);
}
inline void narrow_to(const RecurrenceTask& p, const float* from, void* to, bool narrow) {
  const Index size = p.panels() * p.key_dim * kPanel;
  const FloatTag d;
  if (!narrow)
    std::memcpy(to, from, sizeof(float) * static_cast<std::size_t>(size));
  else
    for (Index i = 0; i < size; i += kLanes) store(hn::LoadU(d, from + i), d, static_cast<bf16*>(to) + i);
}

// Works `count` recorded updates from `first` on into a state, with the roundings of the steps that made
// them.
template <class T>
void replay_updates(const RecurrenceTask& p, Index first, Index count, T* state) {
  const FloatTag d;
  for (Index from = 0; from < p.panels() * kPanel; from += kPanel)
    for (Index i = 0; i < p.key_dim; ++i, state += kPanel)
      for (Index c = 0; c < kPanel; c += kLanes) {
        auto row = load(d, state + c);
        for (Index n = 0; n < count; ++n) {
          const float* x = p.updates + (first + n) % p.update_slots * p.update_stride;
          const float* u = x + 3 * p.key_dim + p.first_column + from + c;
          row = hn::MulAdd(hn::Set(d, x[p.key_dim + i]), hn::LoadU(d, u), hn::Mul(row, hn::Set(d, x[i])));
          if (p.low_updates)
            row = hn::MulAdd(hn::Set(d, x[2 * p.key_dim + i]), hn::LoadU(d, u + p.update_columns), row);
          if constexpr (sizeof(T) == 2) {
            store(row, d, state + c);
            row = load(d, state + c);
          }
        }
        store(row, d, state + c);
      }
}

// Tokens [p.recorded, p.tokens) one by one, recorded when the task says so; before each, the copies that ask
// for it.
template <class Policy, class T, class Emit>
void recur_steps(const RecurrenceTask& p, Index token, T* state, const Emit& emit) {
  for (Index slot = p.first_update + p.kept; token < p.tokens; ++token) {
    for (Index i = token * p.substeps; i < (token + 1) * p.substeps; ++i) {
      UpdateRecord record;
      if (p.updates != nullptr)
        record = {p.updates + slot++ % p.update_slots * p.update_stride, p.update_columns, p.first_column};
      step<Policy>(p, i, state, record);
    }
    emit(token + 1);
  }
}

// A whole task. `copies` are of its state after some of its tokens, ascending.
template <class Policy, template <class> class Form>
void recur(const RecurrenceTask& p, std::span<const StateCopy> copies) {
  const Index n = p.updates != nullptr ? p.recorded : p.tokens, size = p.panels() * p.key_dim * kPanel;
  RecurrenceTask task = p;
  task.scratch += 2 * size;
  float *spare = p.scratch, *wide = p.narrow ? p.scratch + size : static_cast<float*>(p.state);
  auto emit = [&](const float* state, Index token) {
    for (; !copies.empty() && copies.front().tokens == token; copies = copies.subspan(1))
      narrow_to(p, state, copies.front().state, copies.front().narrow);
  };
  // Few tokens, and those that are recorded, work on the state itself.
  auto steps = [&](Index token) {
    auto emit_state = [&](Index now) {
      if (copies.empty() || copies.front().tokens != now) return;
      widen(p, p.state, p.narrow, spare);
      emit(spare, now);
    };
    if (p.narrow)
      recur_steps<Policy>(task, token, static_cast<bf16*>(p.state), emit_state);
    else
      recur_steps<Policy>(task, token, static_cast<float*>(p.state), emit_state);
  };
  if (p.updates != nullptr && p.folded > 0) {
    if (p.narrow)
      replay_updates(p, p.first_update - p.folded, p.folded, static_cast<bf16*>(p.checkpoint));
    else
      replay_updates(p, p.first_update - p.folded, p.folded, static_cast<float*>(p.checkpoint));
  }
  if (!copies.empty() && copies.front().tokens == 0) {
    widen(p, p.state, p.narrow, spare);
    emit(spare, 0);
  }
  if (p.updates == nullptr && n * p.substeps < kBlockTokens<Policy>) return steps(0);

  if (n > 0) {
    if (p.narrow) widen(p, p.state, true, wide);
    const Index length = Form<Policy>::length(p), end = n * p.substeps;
    for (Index t = 0; t < end; t += length) {
      const Index next = HWY_MIN(t + length, end);
      for (; !copies.empty() && copies.front().tokens * p.substeps < next && copies.front().tokens < n;) {
        const Index token = copies.front().tokens;
        std::memcpy(spare, wide, sizeof(float) * static_cast<std::size_t>(size));
        RecurrenceTask silent = task;
        silent.out = nullptr, silent.divisors = nullptr;
        for (Index i = t; i < token * p.substeps; ++i) step<Policy>(silent, i, spare, {});
        emit(spare, token);
      }
      Form<Policy>::run(task, t, next - t, wide);
    }
    emit(wide, n);
    if (p.narrow) narrow_to(p, wide, p.state, true);
  }
  if (p.updates == nullptr) return;
  if (p.kept == 0)
    std::memcpy(p.checkpoint, p.state,
                static_cast<std::size_t>(size) * (p.narrow ? sizeof(bf16) : sizeof(float)));
  steps(n);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
