// SPDX-License-Identifier: Apache-2.0
// The chunkwise form of the recurrence, by products of small matrices (Hua et al., 2022; Yang et al., 2024).
// For the rows of a chunk, with the keys decayed to their place of use and P(x, y)_ij = x_i y_j exp(G_i -
// G_j):
//   U = (I + tril(diag(beta) P(K, K), -1))^-1 diag(beta) (V - (K e^G) S)                  delta rule; else U
//   = V Y = (I - tril(P(A, B), -1))^-1 ((A e^E) S + tril(P(A, K), -1) V),  E_i = G_(i-1)      low rank O =
//   scale ((Q e^G) S + tril(P(Q, K)) U + tril(P(Q, B)) Y) S <- e^(G_last) S + (K e^(G_last - G))^T U + (B
//   e^(G_last - G))^T Y
// The triangular systems are solved for all columns of a panel, by substitution. A decay of the key channels
// is taken in sub-chunks: inside of one the keys are decayed row by row; between them P is a product of the
// rows, decayed from the sub-chunk's start, with the keys, decayed to it. All factors are exponentials of
// sums <= 0.
#if defined(ASHLAR_KERNELS_RECURRENCE_CHUNK_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_RECURRENCE_CHUNK_INL_HPP_
#undef ASHLAR_KERNELS_RECURRENCE_CHUNK_INL_HPP_
#else
#define ASHLAR_KERNELS_RECURRENCE_CHUNK_INL_HPP_
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "ashlar/kernels/matmul-inl.hpp"
#include "ashlar/kernels/recurrence_sweep-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

inline constexpr Index kSubChunk = 16;

// A matrix in scratch memory; rows are whole vectors.
struct ChunkMatrix {
  float* data = nullptr;
  Index pitch = 0;
  float* operator[](Index i) const { return data + i * pitch; }
};

// A chunk of `rows` substeps from t on, ready to be solved; `reads` of them are read from.
struct Chunk {
  Index t = 0, rows = 0, reads = 0;
  ChunkMatrix key, query;                              // [rows, Dk] K e^G or A e^E; [reads, Dk] scale Q e^G
  ChunkMatrix key_t, low_t;                            // [Dk, rows] K and B, decayed to the chunk's end
  ChunkMatrix key_key, key_low, query_key, query_low;  // P, lower triangles; zeros above
  ChunkMatrix near_key, near_low;                      // [kSubChunk, Dk] of the sub-chunk under way
  ChunkMatrix v, seen, out, y;                         // [rows, kPanel]
  float *decay, *near_decay;  // [Dk] of the whole chunk, and since the sub-chunk's start

  static Index pitch(Index n) { return static_cast<Index>(hwy::RoundUpTo(static_cast<std::size_t>(n), 16)); }
  // Lays the matrices out from `memory` on (or nowhere, when null), for up to `max_rows` rows; returns how
  // many floats that takes.
  Index place(float* memory, Index max_rows, Index key_dim) {
    Index taken = 0;
    auto take = [&](float*& data, Index size) {
      data = memory == nullptr ? nullptr : memory + taken;
      taken += size;
    };
    auto take_matrices = [&](std::initializer_list<ChunkMatrix*> list, Index count, Index width) {
      for (ChunkMatrix* m : list) {
        m->pitch = pitch(width);
        take(m->data, count * m->pitch);
      }
    };
    take_matrices({&key, &query}, max_rows, key_dim);
    take_matrices({&key_t, &low_t}, key_dim, max_rows + 4);
    take_matrices({&key_key, &key_low, &query_key, &query_low}, max_rows, max_rows);
    take_matrices({&near_key, &near_low}, kSubChunk, key_dim);
    take_matrices({&v, &seen, &out, &y}, max_rows, kPanel);
    take(decay, pitch(key_dim)), take(near_decay, pitch(key_dim));
    return taken;
  }
};

inline bool first_substep(const RecurrenceTask& p, Index s) { return p.substeps == 1 || s % p.substeps == 0; }
inline bool last_substep(const RecurrenceTask& p, Index s) {
  return p.substeps == 1 || (s + 1) % p.substeps == 0;
}

// to = from * factor (a row, or one number), zeros behind n.
HWY_INLINE void copy_times(const float* from, Index n, const float* factors, float factor, float* to) {
  const FloatTag d;
  const auto f = hn::Set(d, factor);
  for (Index i = 0; i < n; i += kLanes) {
    auto x = hn::Mul(load_some(d, from + i, n - i), f);
    if (factors != nullptr) x = hn::Mul(x, hn::LoadU(d, factors + i));
    hn::StoreU(x, d, to + i);
  }
}
HWY_INLINE void times(float* row, Index n, const float* factors) {
  const FloatTag d;
  for (Index i = 0; i < n; i += kLanes)
    hn::StoreU(hn::Mul(hn::LoadU(d, row + i), hn::LoadU(d, factors + i)), d, row + i);
}
HWY_INLINE void times(float* row, Index n, float factor) {
  const FloatTag d;
  for (Index i = 0; i < n; i += kLanes)
    hn::StoreU(hn::Mul(hn::LoadU(d, row + i), hn::Set(d, factor)), d, row + i);
}
// x [n], then zeros, with y [n] of whole vectors.
HWY_INLINE float dot(const float* x, const float* y, Index n) {
  const FloatTag d;
  auto s = hn::Zero(d);
  for (Index i = 0; i < n; i += kLanes) s = hn::MulAdd(load_some(d, x + i, n - i), hn::LoadU(d, y + i), s);
  return sum(d, s);
}
// sum_i q_i bonus_i k_i
HWY_INLINE float bonus_dot(const RecurrenceTask& p, Index s) {
  const FloatTag d;
  auto total = hn::Zero(d);
  const float *q = p.q[s / p.substeps], *k = p.k[s];
  for (Index i = 0; i < p.key_dim; i += kLanes) {
    const Index left = p.key_dim - i;
    const auto weighted = hn::Mul(load_some(d, p.bonus + i, left), load_some(d, k + i, left));
    total = hn::MulAdd(load_some(d, q + i, left), weighted, total);
  }
  return p.scale * sum(d, total);
}

// to [rows, columns] (+)= a [rows, depth] b [depth, columns], `columns` rounded up to whole vectors.
template <bool kAdd>
HWY_INLINE void multiply(Index rows, const float* a, Index a_pitch, const float* b, Index b_pitch,
                         Index depth, float* to, Index to_pitch, Index columns) {
  columns = static_cast<Index>(hwy::RoundUpTo(static_cast<std::size_t>(columns), kLanes));
  for (Index i = 0; i < rows; i += kStripRows)
    multiply_rows<kAdd>(HWY_MIN(kStripRows, rows - i), a + i * a_pitch, a_pitch, b, b_pitch, depth,
                        to + i * to_pitch, to_pitch, columns);
}

// Rows [begin, begin + n) of `from` (row i at from(i)) as columns of to [Dk, ...].
template <class From>
HWY_INLINE void transpose(Index n, Index key_dim, const From& from, Index stride, const ChunkMatrix& to,
                          Index begin) {
  for (Index i = 0; i < n; i += 4)
    transpose_rows<4>(from(i), stride, HWY_MIN(4, n - i), key_dim, to.data + begin + i, to.pitch);
}

// The chunk's matrices where the decay is one number a token, or none.
template <class Policy>
void prepare_scalar_chunk(const RecurrenceTask& p, Chunk& c, double* sums, float* factors) {
  const FloatTag d;
  const Index n = c.rows;
  // Below this an exponential is 0, and a difference of sums is never NaN.
  constexpr double kLowest = -1e4;
  double total = 0;
  c.reads = 0;
  for (Index i = 0; i < n; ++i) {
    const Index s = c.t + i;
    if constexpr (Policy::kDecay == Decay::scalar)
      if (first_substep(p, s)) total += HWY_MAX(static_cast<double>(*p.g[s / p.substeps]), kLowest);
    sums[i] = total;
    if constexpr (Policy::kTransition != Transition::none)
      copy_times(Policy::kLowRank ? p.a[s] : p.k[s], p.key_dim, nullptr, 1, c.key[i]);
    if (last_substep(p, s)) copy_times(p.q[s / p.substeps], p.key_dim, nullptr, p.scale, c.query[c.reads++]);
  }
  transpose(
      n, p.key_dim, [&](Index i) { return p.k[c.t + i]; }, p.k.stride, c.key_t, 0);
  if constexpr (Policy::kLowRank)
    transpose(
        n, p.key_dim, [&](Index i) { return p.b[c.t + i]; }, p.b.stride, c.low_t, 0);

  // exp(sum up to `place` - sum up to j) for j < count
  auto decays = [&](double place, Index count) {
    for (Index j = 0; j < count; ++j) factors[j] = static_cast<float>(place - sums[j]);
    for (Index j = 0; j < count; j += kLanes)
      hn::StoreU(exp_negative(d, hn::Min(hn::LoadU(d, factors + j), hn::Zero(d))), d, factors + j);
  };
  auto before = [&](Index i) { return i == 0 ? 0.0 : sums[i - 1]; };
  auto products = [&](const ChunkMatrix& rows, Index count, const ChunkMatrix& keys, const ChunkMatrix& to) {
    multiply<false>(count, rows.data, rows.pitch, keys.data, keys.pitch, p.key_dim, to.data, to.pitch, n);
  };
  auto finish = [&](float* row, Index count,
                    bool decayed) {  // columns [0, count) times factors, zeros behind them
    if (decayed) times(row, count, factors);
    std::fill(row + count, row + c.key_key.pitch, 0.0f);
  };
  constexpr bool kDecays = Policy::kDecay == Decay::scalar;
  if constexpr (Policy::kTransition != Transition::none) {
    products(c.key, n, c.key_t, c.key_key);
    if constexpr (Policy::kLowRank) products(c.key, n, c.low_t, c.key_low);
    for (Index i = 0; i < n; ++i) {
      const double place = Policy::kLowRank ? before(i) : sums[i];
      if constexpr (kDecays) decays(place, i);
      finish(c.key_key[i], i, kDecays);
      if constexpr (Policy::kLowRank) finish(c.key_low[i], i, kDecays);
      if constexpr (kDecays) times(c.key[i], p.key_dim, static_cast<float>(std::exp(place)));
    }
  }
  products(c.query, c.reads, c.key_t, c.query_key);
  if constexpr (Policy::kLowRank) products(c.query, c.reads, c.low_t, c.query_low);
  for (Index i = 0, read = 0; i < n; ++i) {
    if (!last_substep(p, c.t + i)) continue;
    const double place = Policy::kEarly ? before(i) : sums[i];
    const Index count = Policy::kEarly ? i : i + 1;
    if constexpr (kDecays) decays(place, count);
    finish(c.query_key[read], count, kDecays);
    if constexpr (Policy::kLowRank) finish(c.query_low[read], count, kDecays);
    if constexpr (Policy::kEarly) c.query_key[read][i] = bonus_dot(p, c.t + i);
    if constexpr (kDecays) times(c.query[read], p.key_dim, static_cast<float>(std::exp(place)));
    ++read;
  }
  if constexpr (kDecays) {
    decays(total, n);
    for (Index i = 0; i < p.key_dim; ++i) {
      times(c.key_t[i], n, factors);
      if constexpr (Policy::kLowRank) times(c.low_t[i], n, factors);
    }
    std::fill(c.decay, c.decay + p.key_dim, static_cast<float>(std::exp(total)));
  }
}

// Rows [s, s + n) of a chunk with a decay of the key channels: a sub-chunk by itself. Leaves its rows decayed
// from its start, and its keys, in near_key and near_low, decayed to its end.
template <class Policy>
void prepare_sub_chunk(const RecurrenceTask& p, Chunk& c, Index s, Index n) {
  const FloatTag d;
  const Index dk = p.key_dim;
  std::fill(c.near_decay, c.near_decay + Chunk::pitch(dk), 1.0f);
  auto products = [&](const float* row, float* key_to, float* low_to, Index count) {
    for (Index l = 0; l < count; ++l) {
      key_to[s + l] = dot(row, c.near_key[l], dk);
      if constexpr (Policy::kLowRank) low_to[s + l] = dot(row, c.near_low[l], dk);
    }
  };
  for (Index j = 0; j < n; ++j) {
    const Index row = s + j, substep = c.t + row, token = substep / p.substeps;
    const bool read = last_substep(p, substep);
    if constexpr (Policy::kLowRank) {
      products(p.a[substep], c.key_key[row], c.key_low[row], j);
      copy_times(p.a[substep], dk, c.near_decay, 1, c.key[row]);
    }
    auto take_query = [&](Index count) {
      copy_times(p.q[token], dk, nullptr, p.scale, c.query[c.reads]);
      products(c.query[c.reads], c.query_key[c.reads], c.query_low[c.reads], count);
      times(c.query[c.reads], dk, c.near_decay);
      ++c.reads;
    };
    if constexpr (Policy::kEarly)
      if (read) {
        take_query(j);
        c.query_key[c.reads - 1][row] = bonus_dot(p, substep);
      }
    if (first_substep(p, substep))
      for (Index i = 0; i < dk; i += kLanes) {
        const auto now = exp_negative(d, load_some(d, p.gk[token] + i, dk - i));
        hn::StoreU(hn::Mul(now, hn::LoadU(d, c.near_decay + i)), d, c.near_decay + i);
        for (Index l = 0; l < j; ++l) {
          hn::StoreU(hn::Mul(now, hn::LoadU(d, c.near_key[l] + i)), d, c.near_key[l] + i);
          if constexpr (Policy::kLowRank)
            hn::StoreU(hn::Mul(now, hn::LoadU(d, c.near_low[l] + i)), d, c.near_low[l] + i);
        }
      }
    copy_times(p.k[substep], dk, nullptr, 1, c.near_key[j]);
    if constexpr (Policy::kLowRank) copy_times(p.b[substep], dk, nullptr, 1, c.near_low[j]);
    if constexpr (Policy::kDelta) {
      products(p.k[substep], c.key_key[row], nullptr, j);
      copy_times(p.k[substep], dk, c.near_decay, 1, c.key[row]);
    }
    if constexpr (!Policy::kEarly)
      if (read) take_query(j + 1);
  }
}

// The chunk's matrices where the decay is of the key channels.
template <class Policy>
void prepare_vector_chunk(const RecurrenceTask& p, Chunk& c) {
  const Index dk = p.key_dim;
  for (const ChunkMatrix* m : {&c.key_key, &c.key_low, &c.query_key, &c.query_low})
    std::memset(m->data, 0, sizeof(float) * static_cast<std::size_t>(c.rows * m->pitch));
  std::fill(c.decay, c.decay + Chunk::pitch(dk), 1.0f);
  c.reads = 0;
  for (Index s = 0; s < c.rows; s += kSubChunk) {
    const Index n = HWY_MIN(kSubChunk, c.rows - s), read = c.reads;
    prepare_sub_chunk<Policy>(p, c, s, n);
    const Index reads = c.reads - read;
    auto far = [&](const ChunkMatrix& rows, Index first, Index count, const ChunkMatrix& keys,
                   const ChunkMatrix& to) {
      if (s > 0)  // s is a multiple of the vectors' lanes
        multiply<false>(count, rows[first], rows.pitch, keys.data, keys.pitch, dk, to[first], to.pitch, s);
    };
    if constexpr (Policy::kTransition != Transition::none) far(c.key, s, n, c.key_t, c.key_key);
    if constexpr (Policy::kLowRank)
      far(c.key, s, n, c.low_t, c.key_low), far(c.query, read, reads, c.low_t, c.query_low);
    far(c.query, read, reads, c.key_t, c.query_key);
    for (Index i = s; i < s + n && Policy::kTransition != Transition::none; ++i) times(c.key[i], dk, c.decay);
    for (Index i = read; i < read + reads; ++i) times(c.query[i], dk, c.decay);
    times(c.decay, dk, c.near_decay);
    for (Index i = 0; i < dk; ++i) {
      times(c.key_t[i], s, c.near_decay[i]);
      if constexpr (Policy::kLowRank) times(c.low_t[i], s, c.near_decay[i]);
    }
    transpose(
        n, dk, [&](Index i) { return c.near_key[i]; }, c.near_key.pitch, c.key_t, s);
    if constexpr (Policy::kLowRank)
      transpose(
          n, dk, [&](Index i) { return c.near_low[i]; }, c.near_low.pitch, c.low_t, s);
  }
}

// x_i = (x_i - sum_{j<i} m_ij x_j) beta_i, or x_i + sum_{j<i} m_ij x_j without beta, for the rows of x [rows,
// kPanel].
inline void substitute(const RecurrenceTask& p, const Chunk& c, const ChunkMatrix& m, const ChunkMatrix& x,
                       const ChunkMatrix& sums, bool delta) {
  const FloatTag d;
  for (Index s = 0; s < c.rows; s += kStripRows) {
    const Index n = HWY_MIN(kStripRows, c.rows - s);
    std::memset(sums[s], 0, sizeof(float) * static_cast<std::size_t>(n * kPanel));
    if (s > 0) multiply<true>(n, m[s], m.pitch, x.data, x.pitch, s, sums[s], sums.pitch, kPanel);
    for (Index i = s; i < s + n; ++i) {
      const auto beta = hn::Set(d, delta ? *p.beta[c.t + i] : 1);
      for (Index at = 0; at < kPanel; at += kLanes) {
        auto total = hn::LoadU(d, sums[i] + at);
        for (Index j = s; j < i; ++j) total = hn::MulAdd(hn::Set(d, m[i][j]), hn::LoadU(d, x[j] + at), total);
        const auto own = hn::LoadU(d, x[i] + at);
        hn::StoreU(delta ? hn::Mul(beta, hn::Sub(own, total)) : hn::Add(own, total), d, x[i] + at);
      }
    }
  }
}

// to [rows, kPanel] += m x for the lower triangle m [rows, ...]; row i has `bound(i)` columns.
template <class Bound>
HWY_INLINE void multiply_lower(Index rows, const ChunkMatrix& m, const ChunkMatrix& x, const ChunkMatrix& to,
                               const Bound& bound) {
  for (Index s = 0; s < rows; s += kStripRows) {
    const Index n = HWY_MIN(kStripRows, rows - s);
    multiply<true>(n, m[s], m.pitch, x.data, x.pitch, bound(s + n - 1), to[s], to.pitch, kPanel);
  }
}

// One panel: columns [from, from + kPanel) of the task, and their state.
template <class Policy>
void solve_chunk(const RecurrenceTask& p, const Chunk& c, Index from, float* state) {
  const Index columns = HWY_MAX(0, HWY_MIN(kPanel, p.columns - from)), dk = p.key_dim;
  const bool ones = p.ones && columns < kPanel;
  for (Index i = 0; i < c.rows; ++i) {
    copy_row(p.v[c.t + i] + from, columns, c.v[i]);
    std::fill(c.v[i] + columns, c.v[i] + kPanel, 0.0f);
    if (ones) c.v[i][columns] = 1;
  }
  const FloatTag d;
  if constexpr (Policy::kDelta) {
    multiply<false>(c.rows, c.key.data, c.key.pitch, state, kPanel, dk, c.seen.data, c.seen.pitch, kPanel);
    for (Index i = 0; i < c.rows * kPanel; i += kLanes)
      hn::StoreU(hn::Sub(hn::LoadU(d, c.v.data + i), hn::LoadU(d, c.seen.data + i)), d, c.v.data + i);
    substitute(p, c, c.key_key, c.v, c.seen, true);
  }
  if constexpr (Policy::kLowRank) {
    multiply<false>(c.rows, c.key.data, c.key.pitch, state, kPanel, dk, c.y.data, c.y.pitch, kPanel);
    multiply_lower(c.rows, c.key_key, c.v, c.y, [](Index i) { return i; });
    substitute(p, c, c.key_low, c.y, c.seen, false);
  }
  const auto read_row = [&](Index read) { return (c.t / p.substeps + read + 1) * p.substeps - c.t; };
  multiply<false>(c.reads, c.query.data, c.query.pitch, state, kPanel, dk, c.out.data, c.out.pitch, kPanel);
  multiply_lower(c.reads, c.query_key, c.v, c.out, read_row);
  if constexpr (Policy::kLowRank) multiply_lower(c.reads, c.query_low, c.y, c.out, read_row);
  for (Index r = 0; r < c.reads && p.out != nullptr; ++r) {
    const Index token = c.t / p.substeps + r;
    copy_row(c.out[r], columns, p.out + token * p.out_stride + from);
    if (ones && p.divisors != nullptr) p.divisors[token * p.divisor_stride] = c.out[r][columns];
  }
  if constexpr (Policy::kDecay != Decay::none)
    for (Index i = 0; i < dk; ++i) times(state + i * kPanel, kPanel, c.decay[i]);
  multiply<true>(dk, c.key_t.data, c.key_t.pitch, c.v.data, c.v.pitch, c.rows, state, kPanel, kPanel);
  if constexpr (Policy::kLowRank)
    multiply<true>(dk, c.low_t.data, c.low_t.pitch, c.y.data, c.y.pitch, c.rows, state, kPanel, kPanel);
}

// Scratch memory of chunks of up to `rows` substeps.
inline Index chunk_scratch(Index rows, Index key_dim) {
  return Chunk().place(nullptr, rows, key_dim) + 4 * Chunk::pitch(rows);
}

// The chunk form as recur() drives it.
template <class Policy>
struct ChunkForm {
  static Index length(const RecurrenceTask& p) { return p.chunk; }
  static void run(const RecurrenceTask& p, Index t, Index n, float* state) {
    Chunk c;
    float* const rest = p.scratch + c.place(p.scratch, n, p.key_dim);
    c.t = t, c.rows = n;
    if constexpr (Policy::kVector)
      prepare_vector_chunk<Policy>(p, c);
    else
      prepare_scalar_chunk<Policy>(p, c, reinterpret_cast<double*>(rest), rest + 2 * Chunk::pitch(n));
    for (Index from = 0; from < p.panels() * kPanel; from += kPanel, state += p.key_dim * kPanel)
      solve_chunk<Policy>(p, c, from, state);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
