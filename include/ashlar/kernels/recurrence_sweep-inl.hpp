// SPDX-License-Identifier: Apache-2.0
// The recurrence engine's pass over a panel of the state: the only place that touches all of it.
#if defined(ASHLAR_KERNELS_RECURRENCE_SWEEP_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_RECURRENCE_SWEEP_INL_HPP_
#undef ASHLAR_KERNELS_RECURRENCE_SWEEP_INL_HPP_
#else
#define ASHLAR_KERNELS_RECURRENCE_SWEEP_INL_HPP_
#endif

#include <type_traits>

#include "ashlar/kernels/linear_recurrence.hpp"
#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

inline constexpr Index kPanel = RecurrentState::kPanel;
inline constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));

// What a sweep is made of: for kTokens tokens, rank-1 updates by a key each, and by a low-rank key each when
// kLow; then reads by a query each, and by a key each when kKeys. Rows of different tokens are kPitch apart.
template <int tokens, bool keys, bool low, Index pitch>
struct SweepShape {
  static constexpr int kTokens = tokens;
  static constexpr bool kKeys = keys, kLow = low;
  static constexpr Index kPitch = pitch;
  // Vectors of columns at once. Registers: updates, sums and one row of S for each of them, and a broadcast.
  static constexpr int kRegisters = tokens * ((low ? 2 : 1) + (keys ? 2 : 1)) + 1;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
  static constexpr int kFit = (32 - 2) / kRegisters;
#else
  static constexpr int kFit = (16 - 1) / kRegisters;
#endif
  static constexpr int kVectors = kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
};

struct SweepRows {
  const float* scale = nullptr;  // [Dk], of the rows of S before the update; not read without kScale
  const float *update_key = nullptr, *update_low = nullptr;
  const float *key = nullptr, *query = nullptr;
};

enum class SweepPart : std::uint8_t { read, update, update_and_read };

// For kVectors vectors of columns, over all rows i of S:
//   S_i <- scale_i S_i + sum_j update_key_ji u_j + sum_j update_low_ji u_(kTokens + j);  seen_j += key_ji
//   S_i; read_j += query_ji S_i
// u is [kTokens or twice that][kPanel], seen and read are [kTokens][kPanel].
template <class Shape, SweepPart part, bool kScale, int kVectors, class T>
HWY_NOINLINE void sweep(T* HWY_RESTRICT s, Index key_dim, const SweepRows& rows, const float* HWY_RESTRICT u,
                        float* HWY_RESTRICT seen, float* HWY_RESTRICT read) {
  constexpr int B = Shape::kTokens;
  constexpr Index P = Shape::kPitch;
  constexpr bool kUpdate = part != SweepPart::read, kRead = part != SweepPart::update;
  const FloatTag d;
  FloatVec update[B][kVectors], low[B][kVectors], sum_k[B][kVectors], sum_q[B][kVectors];
  ASHLAR_UNROLL
  for (int j = 0; j < B; ++j) {
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n) {
      if constexpr (kUpdate) update[j][n] = hn::LoadU(d, u + j * kPanel + n * kLanes);
      if constexpr (kUpdate && Shape::kLow) low[j][n] = hn::LoadU(d, u + (B + j) * kPanel + n * kLanes);
      if constexpr (kRead) sum_q[j][n] = hn::Zero(d);
      if constexpr (kRead && Shape::kKeys) sum_k[j][n] = hn::Zero(d);
    }
  }
  const float *scale = rows.scale, *up_k = rows.update_key, *up_b = rows.update_low;
  const float *key_row = rows.key, *query_row = rows.query;
  // Steps wait for memory: the panel behind this one is fetched meanwhile, a quarter with the reads.
  constexpr Index kLine = 64 / sizeof(T), kLines = kPanel / kLine, kReadLines = 1;
  const T* next = s + key_dim * (kUpdate ? kPanel + kReadLines * kLine : kPanel);
  // Some rows of S together: what one of them waits for, another fills.
  const auto rows_at = [&]<int kRows>(Index i, std::integral_constant<int, kRows>) HWY_ATTR {
    FloatVec row[kRows][kVectors];
    ASHLAR_UNROLL
    for (int r = 0; r < kRows; ++r) {
      ASHLAR_UNROLL
      for (int n = 0; n < kVectors; ++n) row[r][n] = load(d, s + r * kPanel + n * kLanes);
    }
    if constexpr (B == 1) {
      ASHLAR_UNROLL
      for (Index n = kUpdate ? kReadLines : 0; n < (kUpdate ? kLines : kReadLines); ++n, next += kLine)
        hwy::Prefetch(next);
    }
    if constexpr (kUpdate) {
      if constexpr (kScale) {
        ASHLAR_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const auto keep = hn::Set(d, scale[i + r]);
          ASHLAR_UNROLL
          for (int n = 0; n < kVectors; ++n) row[r][n] = hn::Mul(row[r][n], keep);
        }
      }
      ASHLAR_UNROLL
      for (int j = 0; j < B; ++j) {
        ASHLAR_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const auto key = hn::Set(d, up_k[j * P + i + r]);
          ASHLAR_UNROLL
          for (int n = 0; n < kVectors; ++n) row[r][n] = hn::MulAdd(key, update[j][n], row[r][n]);
          if constexpr (Shape::kLow) {
            const auto low_key = hn::Set(d, up_b[j * P + i + r]);
            ASHLAR_UNROLL
            for (int n = 0; n < kVectors; ++n) row[r][n] = hn::MulAdd(low_key, low[j][n], row[r][n]);
          }
        }
      }
      ASHLAR_UNROLL
      for (int r = 0; r < kRows; ++r) {
        ASHLAR_UNROLL
        for (int n = 0; n < kVectors; ++n) store(row[r][n], d, s + r * kPanel + n * kLanes);
      }
    }
    if constexpr (kRead) {
      ASHLAR_UNROLL
      for (int r = 0; r < kRows; ++r) {
        ASHLAR_UNROLL
        for (int j = 0; j < B; ++j) {
          if constexpr (Shape::kKeys) {
            const auto key = hn::Set(d, key_row[j * P + i + r]);
            ASHLAR_UNROLL
            for (int n = 0; n < kVectors; ++n) sum_k[j][n] = hn::MulAdd(key, row[r][n], sum_k[j][n]);
          }
          const auto query = hn::Set(d, query_row[j * P + i + r]);
          ASHLAR_UNROLL
          for (int n = 0; n < kVectors; ++n) sum_q[j][n] = hn::MulAdd(query, row[r][n], sum_q[j][n]);
        }
      }
    }
    s += kRows * kPanel;
  };
  constexpr int kRows = B == 1 ? 1 : 2;
  Index i = 0;
  for (; i + kRows <= key_dim; i += kRows) rows_at(i, std::integral_constant<int, kRows>());
  for (; i < key_dim; ++i) rows_at(i, std::integral_constant<int, 1>());
  if constexpr (kRead) {
    ASHLAR_UNROLL
    for (int j = 0; j < B; ++j) {
      ASHLAR_UNROLL
      for (int n = 0; n < kVectors; ++n) {
        hn::StoreU(sum_q[j][n], d, read + j * kPanel + n * kLanes);
        if constexpr (Shape::kKeys) hn::StoreU(sum_k[j][n], d, seen + j * kPanel + n * kLanes);
      }
    }
  }
}

// Columns that a sweep takes at once.
template <class Shape>
inline constexpr Index kSweepColumns = HWY_MIN(Shape::kVectors* kLanes, kPanel);

// kSweepColumns columns of a panel; `rows.scale` may be null.
template <class Shape, SweepPart part, class T>
HWY_INLINE void sweep_columns(T* s, Index key_dim, const SweepRows& rows, const float* u, float* seen,
                              float* read) {
  constexpr int kVectors = static_cast<int>(kSweepColumns<Shape> / kLanes);
  if (part != SweepPart::read && rows.scale != nullptr)
    return sweep<Shape, part, true, kVectors>(s, key_dim, rows, u, seen, read);
  sweep<Shape, part, false, kVectors>(s, key_dim, rows, u, seen, read);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
