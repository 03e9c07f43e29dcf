// SPDX-License-Identifier: Apache-2.0
// A block of a few tokens of the recurrence, for all columns: its decays and dot products, and its small
// triangular system. With S the state before the block, G the running sum of its log decays (a vector over
// the key channels, or one number) and w_jl = exp(G_j - G_l), the block's own recurrence is (the UT form of
// the delta rule; Yang et al., 2024)
//   delta rule:  u_j = beta_j (v_j - S^T (e_j k_j) - sum_{l<j} (k_j w_jl k_l) u_l),  e_j = exp(G_j)
//   else:        u_j = v_j
//   low rank:    y_j = S^T (e_{j-1} a_j) + sum_{l<j} (a_j w_{j-1,l} k_l) u_l + (a_j w_{j-1,l} b_l) y_l
//   o_j = scale (S^T (e_j q_j) + sum_{l<=j} (q_j w_jl k_l) u_l + (q_j w_jl b_l) y_l)
//   S <- e_last S + sum_l (w_last,l k_l) u_l^T + (w_last,l b_l) y_l^T
// where a read before the update has e_{j-1} and w_{j-1,l} in o_j, and q_j bonus k_j in its last term. The
// decay of S is kept outside of it while that costs no precision: S = held * (what is stored), so that most
// updates do not multiply S.
#if defined(ASHLAR_KERNELS_RECURRENCE_BLOCK_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_RECURRENCE_BLOCK_INL_HPP_
#undef ASHLAR_KERNELS_RECURRENCE_BLOCK_INL_HPP_
#else
#define ASHLAR_KERNELS_RECURRENCE_BLOCK_INL_HPP_
#endif

#include <algorithm>

#include "ashlar/kernels/recurrence_sweep-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// `kTokens` tokens as the sweeps and the solution take them. A decay by scalars is in the coefficients, one
// by vectors in the rows.
template <int kTokens>
struct RecurrenceBlock {
  float *key, *query;              // rows that read S: k or a, and scale q
  float *update_key, *update_low;  // rows that update it: k, b
  float* scale;                    // [Dk], of S in the update, when `scales`
  bool scales;
  float key_decay[kTokens], read_decay[kTokens], tail[kTokens];
  float key_key[kTokens][kTokens], key_low[kTokens][kTokens];      // l < j
  float query_key[kTokens][kTokens], query_low[kTokens][kTokens];  // l <= j
  float beta[kTokens];

  SweepRows reads() const { return {nullptr, nullptr, nullptr, key, query}; }
  SweepRows updates() const { return {scales ? scale : nullptr, update_key, update_low, nullptr, nullptr}; }
};

// The decay that is kept outside of S: a number, or a number a key channel.
struct HeldDecay {
  static constexpr float kSmallest = 0x1p-30f;
  float number = 1;
  float* channels = nullptr;  // [Dk], rounded up to lanes

  void reset(Index key_dim) {
    number = 1;
    if (channels != nullptr) std::fill(channels, channels + key_dim, 1.0f);
  }
};

// Decays of a block by scalars: w_jl for l <= j, and e_j. Sums between two tokens are taken directly, in f64:
// a difference of running sums would be NaN after -inf.
template <int B>
struct ScalarDecays {
  float between[B][B], start[B];

  HWY_INLINE ScalarDecays(const RecurrenceTask& p, Index t) {
    constexpr Index kRow = 8, kSize = HWY_MAX(B * kRow, kLanes);
    static_assert(B < kRow);
    HWY_ALIGN float logs[kSize] = {}, w[kSize];
    double g[B];
    for (int j = 0; j < B; ++j) g[j] = (t + j) % p.substeps == 0 ? *p.g[(t + j) / p.substeps] : 0;
    for (int j = 0; j < B; ++j) {
      double total = 0;
      for (int l = j; l >= 0; --l) {
        logs[kRow * j + 1 + l] = static_cast<float>(total);
        total += g[l];
      }
      logs[kRow * j] = static_cast<float>(total);
    }
    const FloatTag d;
    for (Index i = 0; i < kSize; i += kLanes) hn::StoreU(exp_negative(d, hn::LoadU(d, logs + i)), d, w + i);
    for (int j = 0; j < B; ++j) {
      start[j] = w[kRow * j];
      for (int l = 0; l <= j; ++l) between[j][l] = w[kRow * j + 1 + l];
    }
  }
};

// The sums of a block's dot products, a vector each.
template <class Policy, int B>
struct BlockSums {
  FloatVec key_key[B][B], key_low[B][B], query_key[B][B], query_low[B][B];

  HWY_INLINE BlockSums() {
    const FloatTag d;
    ASHLAR_UNROLL
    for (int j = 0; j < B; ++j) {
      ASHLAR_UNROLL
      for (int l = 0; l <= j; ++l)
        key_key[j][l] = key_low[j][l] = query_key[j][l] = query_low[j][l] = hn::Zero(d);
    }
  }
  HWY_INLINE void store(RecurrenceBlock<B>& block) const {
    const FloatTag d;
    for (int j = 0; j < B; ++j)
      for (int l = 0; l <= j; ++l) {
        if (l < j && Policy::kTransition != Transition::none) block.key_key[j][l] = sum(d, key_key[j][l]);
        if (l < j && Policy::kLowRank) block.key_low[j][l] = sum(d, key_low[j][l]);
        block.query_key[j][l] = sum(d, query_key[j][l]);
        if (Policy::kLowRank) block.query_low[j][l] = sum(d, query_low[j][l]);
      }
  }
};

// Rows and dot products of the block at substep t, for all key channels. With a vector decay everything is
// decayed here; `smallest` is the least decay of a channel since S was last multiplied.
template <class Policy, int B, Index kPitch>
HWY_INLINE void block_rows(const RecurrenceTask& p, Index t, const HeldDecay& held, RecurrenceBlock<B>& block,
                           float& smallest) {
  const FloatTag d;
  BlockSums<Policy, B> sums;
  auto least = hn::Set(d, 1.0f);
  const auto scale = hn::Set(d, p.scale);
  const bool whole_tokens = p.substeps == 1;
  for (Index i = 0; i < p.key_dim; i += kLanes) {
    const Index left = p.key_dim - i;
    auto decay = Policy::kVector ? hn::LoadU(d, held.channels + i) : hn::Set(d, 1.0f);
    FloatVec keys[B], lows[B];
    ASHLAR_UNROLL
    for (int j = 0; j < B; ++j) {
      const Index s = t + j, token = whole_tokens ? s : s / p.substeps;
      const bool first = whole_tokens || s % p.substeps == 0,
                 last = whole_tokens || (s + 1) % p.substeps == 0;
      const auto key = load_some(d, p.k[s] + i, left);
      const auto query = last ? hn::Mul(scale, load_some(d, p.q[token] + i, left)) : hn::Zero(d);
      if constexpr (Policy::kLowRank) {  // before the decay
        const auto a = load_some(d, p.a[s] + i, left);
        hn::StoreU(hn::Mul(a, decay), d, block.key + j * kPitch + i);
        ASHLAR_UNROLL
        for (int l = 0; l < j; ++l) {
          sums.key_key[j][l] = hn::MulAdd(a, keys[l], sums.key_key[j][l]);
          sums.key_low[j][l] = hn::MulAdd(a, lows[l], sums.key_low[j][l]);
        }
      }
      if constexpr (Policy::kEarly) {
        hn::StoreU(hn::Mul(query, decay), d, block.query + j * kPitch + i);
        ASHLAR_UNROLL
        for (int l = 0; l < j; ++l) sums.query_key[j][l] = hn::MulAdd(query, keys[l], sums.query_key[j][l]);
        sums.query_key[j][j] =
            hn::MulAdd(query, hn::Mul(load_some(d, p.bonus + i, left), key), sums.query_key[j][j]);
      }
      if constexpr (Policy::kVector)
        if (first) {
          const auto now = exp_negative(d, load_some(d, p.gk[token] + i, left));
          decay = hn::Mul(decay, now);
          ASHLAR_UNROLL
          for (int l = 0; l < j; ++l) {
            keys[l] = hn::Mul(keys[l], now);
            if constexpr (Policy::kLowRank) lows[l] = hn::Mul(lows[l], now);
          }
        }
      keys[j] = key;
      if constexpr (Policy::kLowRank) lows[j] = load_some(d, p.b[s] + i, left);
      if constexpr (Policy::kDelta) {
        hn::StoreU(hn::Mul(key, decay), d, block.key + j * kPitch + i);
        ASHLAR_UNROLL
        for (int l = 0; l < j; ++l) sums.key_key[j][l] = hn::MulAdd(key, keys[l], sums.key_key[j][l]);
      }
      if constexpr (!Policy::kEarly) {
        hn::StoreU(hn::Mul(query, decay), d, block.query + j * kPitch + i);
        ASHLAR_UNROLL
        for (int l = 0; l <= j; ++l) {
          sums.query_key[j][l] = hn::MulAdd(query, keys[l], sums.query_key[j][l]);
          if constexpr (Policy::kLowRank)
            sums.query_low[j][l] = hn::MulAdd(query, lows[l], sums.query_low[j][l]);
        }
      }
    }
    ASHLAR_UNROLL
    for (int j = 0; j < B; ++j) {
      hn::StoreU(keys[j], d, block.update_key + j * kPitch + i);
      if constexpr (Policy::kLowRank) hn::StoreU(lows[j], d, block.update_low + j * kPitch + i);
    }
    if constexpr (Policy::kVector) {
      hn::StoreU(decay, d, block.scale + i);
      least = hn::Min(least, decay);
    }
  }
  sums.store(block);
  if constexpr (Policy::kVector) smallest = hn::GetLane(hn::MinOfLanes(d, least));
}

// The decays of a block as coefficients, where they are scalars; returns e_last.
template <class Policy, int B>
HWY_INLINE float block_coefficients(const RecurrenceTask& p, Index t, float held, RecurrenceBlock<B>& block) {
  for (int j = 0; j < B; ++j) block.key_decay[j] = block.read_decay[j] = block.tail[j] = 1;
  if constexpr (Policy::kDecay != Decay::scalar) return 1;
  const ScalarDecays<B> w(p, t);
  for (int j = 0; j < B; ++j) {
    const int key = Policy::kLowRank ? j - 1 : j, read = Policy::kEarly ? j - 1 : j;
    block.key_decay[j] = key < 0 ? held : held * w.start[key];
    block.read_decay[j] = read < 0 ? held : held * w.start[read];
    block.tail[j] = w.between[B - 1][j];
    for (int l = 0; l <= key; ++l) block.key_key[j][l] *= w.between[key][l];
    for (int l = 0; l <= key; ++l) block.key_low[j][l] *= w.between[key][l];
    for (int l = 0; l <= read; ++l) block.query_key[j][l] *= w.between[read][l];
    for (int l = 0; l <= read; ++l) block.query_low[j][l] *= w.between[read][l];
  }
  return w.start[B - 1];
}

// The update's rows divided by the decay that S keeps from now on.
template <class Policy, int B, Index kPitch>
HWY_INLINE void hold_decay(Index key_dim, RecurrenceBlock<B>& block, float* channels) {
  const FloatTag d;
  for (Index i = 0; i < key_dim; i += kLanes) {
    const auto kept = hn::LoadU(d, block.scale + i), inverse = hn::Div(hn::Set(d, 1.0f), kept);
    hn::StoreU(kept, d, channels + i);
    for (int j = 0; j < B; ++j) {
      float* key = block.update_key + j * kPitch + i;
      hn::StoreU(hn::Mul(hn::LoadU(d, key), inverse), d, key);
      if constexpr (Policy::kLowRank) {
        float* low = block.update_low + j * kPitch + i;
        hn::StoreU(hn::Mul(hn::LoadU(d, low), inverse), d, low);
      }
    }
  }
}

// Makes the block at substep t, and lets `held` take its decay. `last`: the update is to leave S itself.
template <class Policy, int B, Index kPitch>
HWY_NOINLINE void prepare_block(const RecurrenceTask& p, Index t, bool last, HeldDecay& held,
                                RecurrenceBlock<B>& block) {
  float total = 1;
  block_rows<Policy, B, kPitch>(p, t, held, block, total);
  const float decay = block_coefficients<Policy, B>(p, t, held.number, block);
  for (int j = 0; j < B && Policy::kDelta; ++j) block.beta[j] = *p.beta[t + j];
  if constexpr (Policy::kDecay == Decay::scalar) total = held.number * decay;
  block.scales = Policy::kDecay != Decay::none && (last || !(total >= HeldDecay::kSmallest));
  if (block.scales) {
    if constexpr (Policy::kDecay == Decay::scalar) std::fill(block.scale, block.scale + p.key_dim, total);
    held.reset(p.key_dim);
  } else if constexpr (Policy::kDecay == Decay::scalar) {
    for (int j = 0; j < B; ++j) block.tail[j] /= total;
    held.number = total;
  } else if constexpr (Policy::kVector) {
    hold_decay<Policy, B, kPitch>(p.key_dim, block, held.channels);
  }
}

// Rows of v and out of a block's tokens; out is null where a substep has none.
template <int kTokens>
struct BlockRows {
  const float* v[kTokens];
  float* out[kTokens];
};

// u, y and o of a block from what its reads of S gave, for `columns` columns (whole vectors). u gets u, then
// y.
template <class Policy, int B>
HWY_INLINE void solve_block(const RecurrenceBlock<B>& c, Index columns, const BlockRows<B>& rows,
                            const float* seen, const float* read, float* u) {
  const FloatTag d;
  for (Index at = 0; at < columns; at += kLanes) {
    FloatVec x[B], y[B];
    ASHLAR_UNROLL
    for (int j = 0; j < B; ++j) {
      x[j] = hn::LoadU(d, rows.v[j] + at);
      if constexpr (Policy::kDelta) {
        x[j] = hn::NegMulAdd(hn::Set(d, c.key_decay[j]), hn::LoadU(d, seen + j * kPanel + at), x[j]);
        ASHLAR_UNROLL
        for (int l = 0; l < j; ++l) x[j] = hn::NegMulAdd(hn::Set(d, c.key_key[j][l]), x[l], x[j]);
        x[j] = hn::Mul(x[j], hn::Set(d, c.beta[j]));
      }
      if constexpr (Policy::kLowRank) {
        y[j] = hn::Mul(hn::Set(d, c.key_decay[j]), hn::LoadU(d, seen + j * kPanel + at));
        ASHLAR_UNROLL
        for (int l = 0; l < j; ++l) {
          y[j] = hn::MulAdd(hn::Set(d, c.key_key[j][l]), x[l], y[j]);
          y[j] = hn::MulAdd(hn::Set(d, c.key_low[j][l]), y[l], y[j]);
        }
      }
      auto o = hn::Mul(hn::Set(d, c.read_decay[j]), hn::LoadU(d, read + j * kPanel + at));
      ASHLAR_UNROLL
      for (int l = 0; l <= j; ++l) {
        o = hn::MulAdd(hn::Set(d, c.query_key[j][l]), x[l], o);
        if constexpr (Policy::kLowRank) o = hn::MulAdd(hn::Set(d, c.query_low[j][l]), y[l], o);
      }
      if (rows.out[j] != nullptr) hn::StoreU(o, d, rows.out[j] + at);
    }
    ASHLAR_UNROLL
    for (int j = 0; j < B; ++j) {
      const auto tail = hn::Set(d, c.tail[j]);
      hn::StoreU(hn::Mul(tail, x[j]), d, u + j * kPanel + at);
      if constexpr (Policy::kLowRank) hn::StoreU(hn::Mul(tail, y[j]), d, u + (B + j) * kPanel + at);
    }
  }
}

// solve_block on the task's v and out, for the block at substep t and kColumns columns from `from` on. Those
// that the task does not have go through padded rows, where the column of ones is.
template <class Policy, Index kColumns, int B>
HWY_INLINE void solve_columns(const RecurrenceTask& p, const RecurrenceBlock<B>& c, Index t, Index from,
                              const float* seen, const float* read, float* u) {
  const Index columns = HWY_MAX(0, HWY_MIN(kColumns, p.columns - from));
  BlockRows<B> rows;
  float* out[B];
  for (int j = 0; j < B; ++j) {
    const Index s = t + j, token = p.substeps == 1 ? s : s / p.substeps;
    const bool last = p.substeps == 1 || (s + 1) % p.substeps == 0;
    rows.v[j] = p.v[s] + from;
    rows.out[j] = out[j] = p.out != nullptr && last ? p.out + token * p.out_stride + from : nullptr;
  }
  if (columns == kColumns) return solve_block<Policy, B>(c, kColumns, rows, seen, read, u);
  const bool ones = p.ones && from <= p.columns;
  HWY_ALIGN float v_rows[B * kColumns] = {}, out_rows[B * kColumns];
  for (int j = 0; j < B; ++j) {
    copy_row(rows.v[j], columns, v_rows + j * kColumns);
    if (ones) v_rows[j * kColumns + columns] = 1;
    rows.v[j] = v_rows + j * kColumns, rows.out[j] = out_rows + j * kColumns;
  }
  solve_block<Policy, B>(c, kColumns, rows, seen, read, u);
  for (int j = 0; j < B; ++j) {
    if (out[j] == nullptr) continue;
    copy_row(out_rows + j * kColumns, columns, out[j]);
    if (ones && p.divisors != nullptr)
      p.divisors[(t + j) / p.substeps * p.divisor_stride] = out_rows[j * kColumns + columns];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
