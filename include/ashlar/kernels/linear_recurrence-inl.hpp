// SPDX-License-Identifier: Apache-2.0
// The recurrence engine: value columns of one head of one sequence, in panels of 64, over all its tokens.
// Columns are independent, so that (sequence, head, panel) is the parallel axis.
//
// Recurrent prefill takes blocks of kTokens tokens. With S the state before a block, G the running sum of its
// log decays and w_jl = exp(G_j - G_l), the block's own recurrence is a small triangular system (the UT form
// of the delta rule):
//   u_j = beta_j (v_j - e_j S^T k_j - sum_{l<j} w_jl (k_j k_l) u_l),  e_j = exp(G_j)
//   o_j = scale (e_j S^T q_j + sum_{l<=j} w_jl (q_j k_l) u_l)
//   S  <- e_last S + sum_l k_l (w_last,l u_l)
// The last line is applied late, in the sweep over S that reads it for the next block: one load and one store
// of S for 3 kTokens multiply-adds.
#if defined(ASHLAR_KERNELS_LINEAR_RECURRENCE_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_LINEAR_RECURRENCE_INL_HPP_
#undef ASHLAR_KERNELS_LINEAR_RECURRENCE_INL_HPP_
#else
#define ASHLAR_KERNELS_LINEAR_RECURRENCE_INL_HPP_
#endif

#include <cmath>
#include <utility>

#include "ashlar/kernels/linear_recurrence.hpp"
#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

inline constexpr Index kPanel = RecurrentState::kPanel;
inline constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
// Vectors of columns a sweep holds: its registers are kTokens (u) + 2 kTokens (sums) + 1 (S) times this.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
inline constexpr int kBlockVectors = 2;
#else
inline constexpr int kBlockVectors = 1;
#endif
inline constexpr int kStepVectors = 4;
inline constexpr Index kPitch = RecurrenceTask::kPitch;

HWY_INLINE float dot(const float* x, const float* y, Index n) {
  const FloatTag d;
  auto s0 = hn::Zero(d), s1 = s0;
  Index i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    s0 = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), s0);
    s1 = hn::MulAdd(hn::LoadU(d, x + i + kLanes), hn::LoadU(d, y + i + kLanes), s1);
  }
  for (; i < n; i += kLanes) {
    const bool whole = i + kLanes <= n;
    s0 = hn::MulAdd(whole ? hn::LoadU(d, x + i) : load_n(d, x + i, n - i),
                    whole ? hn::LoadU(d, y + i) : load_n(d, y + i, n - i), s0);
  }
  return sum(d, hn::Add(s0, s1));
}

// One pass over kVectors vectors of columns of S: applies the pending update (S = decay S + sum_j k_before_j
// u_j), then adds up S^T k_j and S^T q_j. Keys and queries are rows kPitch apart; u, seen and read are
// [kTokens][kPanel].
template <class Policy, int kTokens, int kVectors, bool kUpdate, bool kRead, bool kScale>
HWY_NOINLINE void sweep(float* HWY_RESTRICT s, Index key_dim, float decay, const float* HWY_RESTRICT k_before,
                        const float* HWY_RESTRICT u, const float* HWY_RESTRICT k, const float* HWY_RESTRICT q,
                        float* HWY_RESTRICT seen, float* HWY_RESTRICT read) {
  const FloatTag d;
  FloatVec update[kTokens][kVectors], sum_k[kTokens][kVectors], sum_q[kTokens][kVectors];
  for (int j = 0; j < kTokens; ++j)
    for (int n = 0; n < kVectors; ++n) {
      if constexpr (kUpdate) update[j][n] = hn::LoadU(d, u + j * kPanel + n * kLanes);
      if constexpr (kRead) sum_q[j][n] = hn::Zero(d);
      if constexpr (kRead && Policy::kDelta) sum_k[j][n] = hn::Zero(d);
    }
  const auto keep = hn::Set(d, decay);
  const float* next = s + key_dim * (kUpdate ? kPanel + kPanel / 2 : kPanel);
  for (Index i = 0; i < key_dim; ++i, s += kPanel) {
    FloatVec row[kVectors];
    for (int n = 0; n < kVectors; ++n) row[n] = hn::LoadU(d, s + n * kLanes);
    if constexpr (kTokens ==
                  1) {  // steps wait for memory: fetch half of the panel behind this one in each pass
      prefetch_far(next), prefetch_far(next + kPanel / 4);
      next += kPanel / 2;
    }
    if constexpr (kUpdate) {
      if constexpr (kScale)
        for (int n = 0; n < kVectors; ++n) row[n] = hn::Mul(row[n], keep);
      for (int j = 0; j < kTokens; ++j) {
        const auto key = hn::Set(d, k_before[j * kPitch + i]);
        for (int n = 0; n < kVectors; ++n) row[n] = hn::MulAdd(key, update[j][n], row[n]);
      }
      for (int n = 0; n < kVectors; ++n) hn::StoreU(row[n], d, s + n * kLanes);
    }
    if constexpr (kRead) {
      for (int j = 0; j < kTokens; ++j) {
        if constexpr (Policy::kDelta) {
          const auto key = hn::Set(d, k[j * kPitch + i]);
          for (int n = 0; n < kVectors; ++n) sum_k[j][n] = hn::MulAdd(key, row[n], sum_k[j][n]);
        }
        const auto query = hn::Set(d, q[j * kPitch + i]);
        for (int n = 0; n < kVectors; ++n) sum_q[j][n] = hn::MulAdd(query, row[n], sum_q[j][n]);
      }
    }
  }
  if constexpr (kRead)
    for (int j = 0; j < kTokens; ++j)
      for (int n = 0; n < kVectors; ++n) {
        hn::StoreU(sum_q[j][n], d, read + j * kPanel + n * kLanes);
        if constexpr (Policy::kDelta) hn::StoreU(sum_k[j][n], d, seen + j * kPanel + n * kLanes);
      }
}

template <class Policy, int kTokens, int kVectors, bool kUpdate, bool kRead, bool kScale>
HWY_INLINE void sweep_panel(float* s, Index key_dim, Index columns, float decay, const float* k_before,
                            const float* u, const float* k, const float* q, float* seen, float* read) {
  constexpr Index kStep = kVectors * kLanes;
  for (Index c = 0; c < columns; c += kStep)
    sweep<Policy, kTokens, kVectors, kUpdate, kRead, kScale>(s + c, key_dim, decay, k_before, u + c, k, q,
                                                             seen + c, read + c);
}

// The block's u and o from S^T k and S^T q, for all columns of the panel; u is returned times w_last.
template <class Policy, int kTokens>
HWY_INLINE void solve_block(const BlockCoefficients& c, const float* beta, Index beta_stride, Index columns,
                            const float* v, Index v_stride, const float* seen, const float* read, float* u,
                            float* out, Index out_stride) {
  const FloatTag d;
  for (Index at = 0; at < columns; at += kLanes) {
    FloatVec solved[kTokens];
    for (int j = 0; j < kTokens; ++j) {
      auto x = hn::LoadU(d, v + j * v_stride + at);
      if constexpr (Policy::kDelta) {
        x = hn::NegMulAdd(hn::Set(d, c.decay[j]), hn::LoadU(d, seen + j * kPanel + at), x);
        for (int l = 0; l < j; ++l) x = hn::NegMulAdd(hn::Set(d, c.key_key[j][l]), solved[l], x);
        x = hn::Mul(x, hn::Set(d, beta[j * beta_stride]));
      }
      solved[j] = x;
      auto o = hn::Mul(hn::Set(d, c.read_decay[j]), hn::LoadU(d, read + j * kPanel + at));
      for (int l = 0; l <= j; ++l) o = hn::MulAdd(hn::Set(d, c.query_key[j][l]), solved[l], o);
      hn::StoreU(o, d, out + j * out_stride + at);
    }
    for (int j = 0; j < kTokens; ++j)
      hn::StoreU(hn::Mul(hn::Set(d, c.tail[j]), solved[j]), d, u + j * kPanel + at);
  }
}

// solve_block on the caller's v and out, from token t and column `from` on. A panel of fewer than 64 columns
// goes through padded rows.
template <class Policy, int kTokens>
HWY_INLINE void solve_rows(const RecurrenceTask& p, const BlockCoefficients& c, Index t, Index from,
                           const float* seen, const float* read, float* u) {
  const Index columns = HWY_MIN(kPanel, p.columns - from);
  const float* beta = p.beta + t * p.beta_stride;
  const float* v = p.v + t * p.v_stride + from;
  float* out = p.out + t * p.out_stride + from;
  if (columns == kPanel) {
    solve_block<Policy, kTokens>(c, beta, p.beta_stride, kPanel, v, p.v_stride, seen, read, u, out,
                                 p.out_stride);
    return;
  }
  HWY_ALIGN float v_rows[kTokens * kPanel] = {}, out_rows[kTokens * kPanel];
  for (int j = 0; j < kTokens; ++j) copy_row(v + j * p.v_stride, columns, v_rows + j * kPanel);
  const Index padded = hwy::RoundUpTo(columns, kLanes);
  solve_block<Policy, kTokens>(c, beta, p.beta_stride, padded, v_rows, kPanel, seen, read, u, out_rows,
                               kPanel);
  for (int j = 0; j < kTokens; ++j) copy_row(out_rows + j * kPanel, columns, out + j * p.out_stride);
}

// The dot products of a block's keys with each other and of its queries with its keys, l <= j; rows kPitch
// apart.
template <class Policy>
HWY_INLINE void gram(const float* q, const float* k, Index key_dim, float (&kk)[4][4], float (&qk)[4][4]) {
  constexpr int B = BlockCoefficients::kTokens, kPairs = B * (B + 1) / 2;  // pair (j, l): j (j + 1) / 2 + l
  const FloatTag d;
  FloatVec sum_kk[kPairs], sum_qk[kPairs];
  ASHLAR_UNROLL
  for (int i = 0; i < kPairs; ++i) sum_kk[i] = sum_qk[i] = hn::Zero(d);
  for (Index i = 0; i < key_dim; i += kLanes) {
    const bool whole = i + kLanes <= key_dim;
    FloatVec key[B];
    ASHLAR_UNROLL
    for (int j = 0; j < B; ++j) {
      const float *kj = k + j * kPitch + i, *qj = q + j * kPitch + i;
      key[j] = whole ? hn::LoadU(d, kj) : load_n(d, kj, key_dim - i);
      const auto query = whole ? hn::LoadU(d, qj) : load_n(d, qj, key_dim - i);
      ASHLAR_UNROLL
      for (int l = 0; l <= j; ++l) {
        const int pair = j * (j + 1) / 2 + l;
        if (Policy::kDelta && l < j) sum_kk[pair] = hn::MulAdd(key[j], key[l], sum_kk[pair]);
        sum_qk[pair] = hn::MulAdd(query, key[l], sum_qk[pair]);
      }
    }
  }
  ASHLAR_UNROLL
  for (int j = 0; j < B; ++j) {
    ASHLAR_UNROLL
    for (int l = 0; l <= j; ++l) {
      const int pair = j * (j + 1) / 2 + l;
      kk[j][l] = Policy::kDelta && l < j ? sum(d, sum_kk[pair]) : 0;
      qk[j][l] = sum(d, sum_qk[pair]);
    }
  }
}

// The coefficients of a block, from the dot products of its keys and queries. Sums of log decays
// between two tokens are taken directly, in f64: a difference of running sums would be NaN after -inf.
template <class Policy>
HWY_INLINE void block_coefficients(const float (&kk)[4][4], const float (&qk)[4][4], const float* g,
                                   Index g_stride, float scale, BlockCoefficients& c) {
  constexpr int B = BlockCoefficients::kTokens;
  const FloatTag d;
  // Row j: log decay from the block's start, then from after token l to token j.
  HWY_ALIGN float logs[B * 8] = {}, w[B * 8];
  if constexpr (Policy::kDecay)
    for (int j = 0; j < B; ++j) {
      double total = 0;
      for (int l = j; l >= 0; --l) {
        logs[8 * j + 1 + l] = static_cast<float>(total);
        total += g[l * g_stride];
      }
      logs[8 * j] = static_cast<float>(total);
    }
  for (Index i = 0; i < B * 8; i += kLanes)
    hn::Store(Policy::kDecay ? exp_negative(d, hn::Load(d, logs + i)) : hn::Set(d, 1.0f), d, w + i);
  for (int j = 0; j < B; ++j) {
    c.decay[j] = w[8 * j];
    c.read_decay[j] = w[8 * j] * scale;
    c.tail[j] = w[8 * (B - 1) + 1 + j];
    for (int l = 0; l <= j; ++l) {
      c.key_key[j][l] = w[8 * j + 1 + l] * kk[j][l];
      c.query_key[j][l] = w[8 * j + 1 + l] * qk[j][l] * scale;
    }
  }
}

// Rows of different tokens lie pages apart, where the hardware's prefetchers do not follow.
HWY_INLINE void prefetch_block(const RecurrenceTask& p, Index t) {
  for (int j = 0; j < BlockCoefficients::kTokens; ++j) {
    prefetch_row(p.k + (t + j) * p.k_stride, p.key_dim);
    prefetch_row(p.q + (t + j) * p.q_stride, p.key_dim);
    prefetch_row(p.v + (t + j) * p.v_stride, p.columns);
    prefetch_row(p.out + (t + j) * p.out_stride, p.columns);
  }
}

// One token: read S, then update it, while its panel is in the cache.
template <class Policy>
HWY_INLINE void step(const RecurrenceTask& p, Index t) {
  HWY_ALIGN float u[kPanel] = {}, seen[kPanel], read[kPanel];
  const float *q = p.q + t * p.q_stride, *k = p.k + t * p.k_stride;
  const float decay = Policy::kDecay ? std::exp(p.g[t * p.g_stride]) : 1;
  BlockCoefficients c;
  c.decay[0] = decay, c.read_decay[0] = decay * p.scale, c.tail[0] = 1;
  c.query_key[0][0] = dot(q, k, p.key_dim) * p.scale;
  float* s = p.state;
  for (Index from = 0; from < p.columns; from += kPanel, s += p.key_dim * kPanel) {
    const Index columns = HWY_MIN(kPanel, p.columns - from);
    sweep_panel<Policy, 1, kStepVectors, false, true, false>(s, p.key_dim, columns, 1, nullptr, u, k, q, seen,
                                                             read);
    solve_rows<Policy, 1>(p, c, t, from, seen, read, u);
    sweep_panel<Policy, 1, kStepVectors, true, false, Policy::kDecay>(s, p.key_dim, columns, decay, k, u,
                                                                      nullptr, nullptr, seen, read);
  }
}

// The decay of S is kept outside of it while that costs no precision: S = held * (what is stored), so that
// most updates do not multiply S. When held gets small, the next update multiplies by it.
struct HeldDecay {
  static constexpr float kSmallest = 0x1p-30f;
  float held = 1;         // after the pending update
  float factor = 1;       // of what is stored, in the pending update,
  bool multiply = false;  // when it has one

  // Makes a block's coefficients those of what is stored.
  void take(BlockCoefficients& c) {
    constexpr int B = BlockCoefficients::kTokens;
    const float total = held * c.decay[B - 1];
    multiply = total < kSmallest;
    for (int j = 0; j < B; ++j) {
      c.decay[j] *= held, c.read_decay[j] *= held;
      if (!multiply) c.tail[j] /= total;
    }
    factor = multiply ? total : 1;
    held = multiply ? 1 : total;
  }
  // Makes the pending update, u, the last one: it leaves S itself.
  void finish(float* u, Index size) {
    if (!multiply) {
      for (Index i = 0; i < size; ++i) u[i] *= held;
      factor = held;
    }
    held = 1;
  }
};

// Tokens [t, t + 4) for one panel: the pending update of the block before (none when `first`), then this
// block.
template <class Policy>
HWY_INLINE void recur_block(const RecurrenceTask& p, const BlockCoefficients& c, const HeldDecay& before,
                            bool first, Index t, Index from, float* s, const float* k_before, const float* k,
                            const float* q, float* u) {
  constexpr int B = BlockCoefficients::kTokens;
  HWY_ALIGN float seen[B * kPanel], read[B * kPanel];
  const Index columns = HWY_MIN(kPanel, p.columns - from);
  if (first)
    sweep_panel<Policy, B, kBlockVectors, false, true, false>(s, p.key_dim, columns, 1, k_before, u, k, q,
                                                              seen, read);
  else if (Policy::kDecay && before.multiply)
    sweep_panel<Policy, B, kBlockVectors, true, true, true>(s, p.key_dim, columns, before.factor, k_before, u,
                                                            k, q, seen, read);
  else
    sweep_panel<Policy, B, kBlockVectors, true, true, false>(s, p.key_dim, columns, 1, k_before, u, k, q,
                                                             seen, read);
  solve_rows<Policy, B>(p, c, t, from, seen, read, u);
}

// All tokens of a task: whole blocks with the late update, the rest one by one.
template <class Policy>
void recur(const RecurrenceTask& p) {
  constexpr int B = BlockCoefficients::kTokens;
  float kk[B][B], qk[B][B];
  BlockCoefficients c;
  HeldDecay decay;
  const Index blocks = p.key_dim <= RecurrenceTask::kMaxKeyDim ? p.tokens / B : 0;
  const Index panels = (p.columns + kPanel - 1) / kPanel, panel_size = p.key_dim * kPanel;
  float *k = p.scratch, *k_before = k + B * kPitch, *q = k_before + B * kPitch, *u = q + B * kPitch;
  for (Index b = 0; b < blocks; ++b) {
    const Index t = b * B;
    for (int j = 0; j < B; ++j) {
      copy_row(p.k + (t + j) * p.k_stride, p.key_dim, k + j * kPitch);
      copy_row(p.q + (t + j) * p.q_stride, p.key_dim, q + j * kPitch);
    }
    if (b + 1 < blocks) prefetch_block(p, t + B);
    gram<Policy>(q, k, p.key_dim, kk, qk);
    block_coefficients<Policy>(kk, qk, p.g + t * p.g_stride, p.g_stride, p.scale, c);
    const HeldDecay before = decay;
    if constexpr (Policy::kDecay) decay.take(c);
    for (Index i = 0; i < panels; ++i)
      recur_block<Policy>(p, c, before, b == 0, t, i * kPanel, p.state + i * panel_size, k_before, k, q,
                          u + i * B * kPanel);
    std::swap(k, k_before);
  }
  if (blocks > 0) {
    if constexpr (Policy::kDecay) decay.finish(u, panels * B * kPanel);
    for (Index i = 0; i < panels; ++i)
      sweep_panel<Policy, B, kBlockVectors, true, false, Policy::kDecay>(
          p.state + i * panel_size, p.key_dim, HWY_MIN(kPanel, p.columns - i * kPanel), decay.factor,
          k_before, u + i * B * kPanel, nullptr, nullptr, nullptr, nullptr);
  }
  for (Index t = blocks * B; t < p.tokens; ++t) step<Policy>(p, t);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
