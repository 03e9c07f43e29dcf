// SPDX-License-Identifier: Apache-2.0
// The product of two small matrices in the cache, row-major: the inner part of the engines.
#if defined(ASHLAR_KERNELS_MATMUL_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_KERNELS_MATMUL_INL_HPP_
#undef ASHLAR_KERNELS_MATMUL_INL_HPP_
#else
#define ASHLAR_KERNELS_MATMUL_INL_HPP_
#endif

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Registers of a full step: kStripRows * kStripVectors sums, kStripVectors of B and one of A.
inline constexpr int kStripRows = 6;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
inline constexpr int kStripVectors = 4;
#else
inline constexpr int kStripVectors = 2;
#endif

// Fetches what is `distance` elements behind an address into the first-level cache; 0: nothing. For matrices
// that come from memory in rows which do not set off the hardware's prefetchers.
struct FetchAhead {
  Index distance = 0;
  template <int kVectors, class T>
  HWY_INLINE void operator()(const T* p) const {
    constexpr int kElements = 64 / sizeof(T), kWidth = kVectors * static_cast<int>(HWY_LANES(float));
    if (distance == 0) return;
    ASHLAR_UNROLL
    for (int n = 0; n < kWidth; n += kElements) hwy::Prefetch(p + distance + n);
  }
};

// Where the sums of a product that is added to something start: at C itself, unless said otherwise.
struct SumsFrom {
  const float* data = nullptr;  // null: C
  Index pitch = 0;
  SumsFrom after(Index columns) const { return {data != nullptr ? data + columns : nullptr, pitch}; }
};

// C [kRows, kVectors * lanes] = (kAdd ? C : 0) + A [kRows, depth] B [depth, kVectors * lanes].
// B may be of any storage type. With kTurned, A is stored as its transpose [depth, kRows].
template <int kRows, int kVectors, bool kAdd, bool kTurned = false, class T>
HWY_INLINE void multiply_block(const float* HWY_RESTRICT a, Index a_pitch, const T* HWY_RESTRICT b,
                               Index b_pitch, Index depth, float* HWY_RESTRICT c, Index c_pitch,
                               FetchAhead fetch = {}, SumsFrom from = {}) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  FloatVec sums[kRows][kVectors];
  if (from.data == nullptr) from = {c, c_pitch};
  ASHLAR_UNROLL
  for (int r = 0; r < kRows; ++r) {
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n)
      sums[r][n] = kAdd ? hn::LoadU(d, from.data + r * from.pitch + n * kLanes) : hn::Zero(d);
  }
  for (Index i = 0; i < depth; ++i, b += b_pitch) {
    fetch.operator()<kVectors>(b);
    FloatVec row[kVectors];
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n) row[n] = load(d, b + n * kLanes);
    ASHLAR_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const auto x = hn::Set(d, kTurned ? a[i * a_pitch + r] : a[r * a_pitch + i]);
      ASHLAR_UNROLL
      for (int n = 0; n < kVectors; ++n) sums[r][n] = hn::MulAdd(x, row[n], sums[r][n]);
    }
  }
  ASHLAR_UNROLL
  for (int r = 0; r < kRows; ++r) {
    ASHLAR_UNROLL
    for (int n = 0; n < kVectors; ++n) hn::StoreU(sums[r][n], d, c + r * c_pitch + n * kLanes);
  }
}

// C [kRows, columns] (+)= A [kRows, depth] B [depth, columns]; columns is a multiple of the lanes.
template <int kRows, bool kAdd, bool kTurned = false, class T>
HWY_NOINLINE void multiply_strip(const float* a, Index a_pitch, const T* b, Index b_pitch, Index depth,
                                 float* c, Index c_pitch, Index columns, FetchAhead fetch = {},
                                 SumsFrom from = {}) {
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  Index at = 0;
  for (; at + kStripVectors * kLanes <= columns; at += kStripVectors * kLanes)
    multiply_block<kRows, kStripVectors, kAdd, kTurned>(a, a_pitch, b + at, b_pitch, depth, c + at, c_pitch,
                                                        fetch, from.after(at));
  for (; at < columns; at += kLanes)
    multiply_block<kRows, 1, kAdd, kTurned>(a, a_pitch, b + at, b_pitch, depth, c + at, c_pitch, fetch,
                                            from.after(at));
}

// The same for few rows and a B of f32 that comes from memory: a row of B at once, by few rows of A.
template <bool kAdd>
HWY_INLINE void multiply_streamed(Index rows, const float* a, Index a_pitch, const float* b, Index b_pitch,
                                  Index depth, float* c, Index c_pitch, Index columns, FetchAhead fetch) {
  constexpr int kVectors = 2 * kStripVectors;
  constexpr Index kWide = kVectors * static_cast<Index>(HWY_LANES(float));
  for (; rows > 0; rows -= 2, a += 2 * a_pitch, c += 2 * c_pitch, fetch.distance = 0) {
    Index at = 0;
    for (; at + kWide <= columns; at += kWide)
      if (rows >= 2)
        multiply_block<2, kVectors, kAdd>(a, a_pitch, b + at, b_pitch, depth, c + at, c_pitch, fetch);
      else
        multiply_block<1, kVectors, kAdd>(a, a_pitch, b + at, b_pitch, depth, c + at, c_pitch, fetch);
    if (rows >= 2)
      multiply_strip<2, kAdd>(a, a_pitch, b + at, b_pitch, depth, c + at, c_pitch, columns - at, fetch);
    else
      multiply_strip<1, kAdd>(a, a_pitch, b + at, b_pitch, depth, c + at, c_pitch, columns - at, fetch);
  }
}

// The same for up to kStripRows rows.
template <bool kAdd, class T>
HWY_INLINE void multiply_rows(Index rows, const float* a, Index a_pitch, const T* b, Index b_pitch,
                              Index depth, float* c, Index c_pitch, Index columns, FetchAhead fetch = {}) {
  if constexpr (sizeof(T) == 4)
    if (fetch.distance != 0)
      return multiply_streamed<kAdd>(rows, a, a_pitch, b, b_pitch, depth, c, c_pitch, columns, fetch);
  if (rows == kStripRows)
    return multiply_strip<kStripRows, kAdd>(a, a_pitch, b, b_pitch, depth, c, c_pitch, columns, fetch);
  if (rows >= 4) {
    multiply_strip<4, kAdd>(a, a_pitch, b, b_pitch, depth, c, c_pitch, columns, fetch);
    rows -= 4, a += 4 * a_pitch, c += 4 * c_pitch;
  }
  for (; rows >= 2; rows -= 2, a += 2 * a_pitch, c += 2 * c_pitch)
    multiply_strip<2, kAdd>(a, a_pitch, b, b_pitch, depth, c, c_pitch, columns, fetch);
  if (rows == 1) multiply_strip<1, kAdd>(a, a_pitch, b, b_pitch, depth, c, c_pitch, columns, fetch);
}

// C [rows, columns] (+)= A [rows, depth] B [depth, columns] for any number of rows; with kTurned, A is stored
// as its transpose. Strips of at least 3 rows where there are so many: fewer sums wait for one another. After
// each strip, between() is called: a moment to fetch something that is needed later.
template <bool kAdd, bool kTurned, class F>
HWY_INLINE void multiply_matrix(Index rows, const float* a, Index a_pitch, const float* b, Index b_pitch,
                                Index depth, float* c, Index c_pitch, Index columns, SumsFrom from,
                                F&& between) {
  const auto strip = [&](auto count) HWY_ATTR {
    constexpr int kRows = decltype(count)::value;
    multiply_strip<kRows, kAdd, kTurned>(a, a_pitch, b, b_pitch, depth, c, c_pitch, columns, {}, from);
    rows -= kRows, a += kTurned ? kRows : kRows * a_pitch, c += kRows * c_pitch;
    if (from.data != nullptr) from.data += kRows * from.pitch;
    between();
  };
  while (rows >= kStripRows + 4 || rows == kStripRows) strip(std::integral_constant<int, kStripRows>());
  while (rows >= 4 && rows != 5) strip(std::integral_constant<int, 4>());  // 7 to 9 rows are 4 and the rest
  if (rows == 5) return strip(std::integral_constant<int, 5>());
  if (rows == 3) return strip(std::integral_constant<int, 3>());
  if (rows == 2) return strip(std::integral_constant<int, 2>());
  if (rows == 1) strip(std::integral_constant<int, 1>());
}

#if HWY_TARGET != HWY_SCALAR
// The sums of a vector's 128-bit blocks, in one.
template <class D, class V>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> sum_of_blocks(D, V v) {
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    return sum_of_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    return v;
  }
}
// The sums of the lanes of four vectors.
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> sums_of_4(FloatTag d, FloatVec a, FloatVec b, FloatVec c,
                                                     FloatVec e) {
  const hn::RepartitionToWide<FloatTag> pairs;
  const auto ab = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  const auto lower = hn::BitCast(d, hn::InterleaveLower(pairs, ab, ce));
  return sum_of_blocks(d, hn::Add(lower, hn::BitCast(d, hn::InterleaveUpper(pairs, ab, ce))));
}
#endif

// c [kRows, keys] = a [kRows, depth] times the transpose of b [keys, depth] for up to 4 keys; rows of a are
// zero from depth to the next multiple of the lanes.
template <int kRows, class T>
HWY_INLINE void dot_4_keys(const float* HWY_RESTRICT a, Index a_pitch, const T* HWY_RESTRICT b, Index b_pitch,
                           Index keys, Index depth, float* HWY_RESTRICT c, Index c_pitch,
                           FetchAhead fetch = {}) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  FloatVec sums[kRows][4];
  const T* rows[4];
  ASHLAR_UNROLL
  for (int n = 0; n < 4; ++n) {
    rows[n] = b + HWY_MIN(n, keys - 1) * b_pitch;
    ASHLAR_UNROLL
    for (int r = 0; r < kRows; ++r) sums[r][n] = hn::Zero(d);
  }
  // Rows of f32, which wait for memory, one after another, as they lie there; those of narrower types, which
  // wait for their widening, side by side.
  constexpr int kTogether = sizeof(T) == 4 ? 1 : 4;
  const auto add = [&](int first, Index i, auto load_row) HWY_ATTR {
    FloatVec key[kTogether];
    ASHLAR_UNROLL
    for (int n = 0; n < kTogether; ++n) {
      fetch.operator()<1>(rows[first + n] + i);
      key[n] = load_row(rows[first + n] + i);
    }
    ASHLAR_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const auto x = hn::LoadU(d, a + r * a_pitch + i);
      ASHLAR_UNROLL
      for (int n = 0; n < kTogether; ++n) sums[r][first + n] = hn::MulAdd(x, key[n], sums[r][first + n]);
    }
  };
  ASHLAR_UNROLL
  for (int n = 0; n < 4; n += kTogether) {
    Index i = 0;
    for (; i + kLanes <= depth; i += kLanes) add(n, i, [&](const T* p) HWY_ATTR { return load(d, p); });
    if (i < depth) add(n, i, [&](const T* p) HWY_ATTR { return load_n(d, p, depth - i); });
  }
  ASHLAR_UNROLL
  for (int r = 0; r < kRows; ++r) {
#if HWY_TARGET != HWY_SCALAR
    const hn::FixedTag<float, 4> four;
    const auto s = sums_of_4(d, sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    if (keys == 4)
      hn::StoreU(s, four, c + r * c_pitch);
    else
      for (Index n = 0; n < keys; ++n) c[r * c_pitch + n] = hn::ExtractLane(s, static_cast<std::size_t>(n));
#else
    for (Index n = 0; n < keys; ++n) c[r * c_pitch + n] = hn::GetLane(sums[r][n]);
#endif
  }
}

#if HWY_TARGET != HWY_SCALAR
// 4 floats of every fourth row, from this one on, in a vector.
template <class D>
HWY_INLINE hn::Vec<D> load_fourth_rows(D d, const float* from, Index stride) {
  if constexpr (hn::MaxLanes(d) == 4) {
    return hn::LoadU(d, from);
  } else {
    const hn::Half<D> half;
    const float* upper = from + static_cast<Index>(hn::MaxLanes(half)) * stride;
    return hn::Combine(d, load_fourth_rows(half, upper, stride), load_fourth_rows(half, from, stride));
  }
}

// The 4x4 parts of four vectors, transposed in place.
template <class D, class V>
HWY_INLINE void transpose_4(D d, V& a, V& b, V& c, V& e) {
  const hn::RepartitionToWide<D> pairs;
  const auto low_ab = hn::BitCast(pairs, hn::InterleaveLower(d, a, b));
  const auto high_ab = hn::BitCast(pairs, hn::InterleaveUpper(d, a, b));
  const auto low_ce = hn::BitCast(pairs, hn::InterleaveLower(d, c, e));
  const auto high_ce = hn::BitCast(pairs, hn::InterleaveUpper(d, c, e));
  a = hn::BitCast(d, hn::InterleaveLower(pairs, low_ab, low_ce));
  b = hn::BitCast(d, hn::InterleaveUpper(pairs, low_ab, low_ce));
  c = hn::BitCast(d, hn::InterleaveLower(pairs, high_ab, high_ce));
  e = hn::BitCast(d, hn::InterleaveUpper(pairs, high_ab, high_ce));
}
#endif

// Columns [0, kRows) of to [columns, pitch] = the transpose of from [rows, columns], whose rows are `stride`
// apart; zeros where `rows` is less than kRows, which is 4 or the lanes of a vector.
template <int kRows>
HWY_INLINE void transpose_rows(const float* from, Index stride, Index rows, Index columns, float* to,
                               Index pitch) {
  Index c = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, kRows> d;
  for (; rows >= kRows && c + 4 <= columns; c += 4) {
    const auto row = [&](Index r) HWY_ATTR { return load_fourth_rows(d, from + r * stride + c, stride); };
    auto r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
    transpose_4(d, r0, r1, r2, r3);
    float* y = to + c * pitch;
    hn::StoreU(r0, d, y);
    hn::StoreU(r1, d, y + pitch);
    hn::StoreU(r2, d, y + 2 * pitch);
    hn::StoreU(r3, d, y + 3 * pitch);
  }
#endif
  for (; c < columns; ++c)
    for (Index i = 0; i < kRows; ++i) to[c * pitch + i] = i < rows ? from[i * stride + c] : 0;
}

// Columns [0, 4) of to [columns, pitch] = the transpose of four rows that are anywhere.
HWY_INLINE void transpose_4_rows(const float* const (&from)[4], Index columns, float* to, Index pitch) {
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  if (columns >= 4)
    for (Index c = 0;; c = HWY_MIN(c + 4, columns - 4)) {  // the last columns with some of those before them
      auto r0 = hn::LoadU(d, from[0] + c), r1 = hn::LoadU(d, from[1] + c);
      auto r2 = hn::LoadU(d, from[2] + c), r3 = hn::LoadU(d, from[3] + c);
      transpose_4(d, r0, r1, r2, r3);
      float* y = to + c * pitch;
      hn::StoreU(r0, d, y);
      hn::StoreU(r1, d, y + pitch);
      hn::StoreU(r2, d, y + 2 * pitch);
      hn::StoreU(r3, d, y + 3 * pitch);
      if (c + 4 >= columns) return;
    }
#endif
  for (Index c = 0; c < columns; ++c)
    for (Index i = 0; i < 4; ++i) to[c * pitch + i] = from[i][c];
}
// Four rows that are anywhere = columns [0, 4) of from [columns, pitch], each times its factor.
HWY_INLINE void transpose_4_columns(const float* from, Index pitch, Index columns, const float* factors,
                                    float* const (&to)[4]) {
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const auto by = hn::LoadU(d, factors);
  if (columns >= 4)
    for (Index c = 0;; c = HWY_MIN(c + 4, columns - 4)) {
      const float* x = from + c * pitch;
      auto r0 = hn::Mul(by, hn::LoadU(d, x)), r1 = hn::Mul(by, hn::LoadU(d, x + pitch));
      auto r2 = hn::Mul(by, hn::LoadU(d, x + 2 * pitch)), r3 = hn::Mul(by, hn::LoadU(d, x + 3 * pitch));
      transpose_4(d, r0, r1, r2, r3);
      hn::StoreU(r0, d, to[0] + c);
      hn::StoreU(r1, d, to[1] + c);
      hn::StoreU(r2, d, to[2] + c);
      hn::StoreU(r3, d, to[3] + c);
      if (c + 4 >= columns) return;
    }
#endif
  for (Index c = 0; c < columns; ++c)
    for (Index i = 0; i < 4; ++i) to[i][c] = factors[i] * from[c * pitch + i];
}

// Whether all of x [rows, columns] is finite.
template <class T>
HWY_INLINE bool all_finite(const T* x, Index stride, Index rows, Index columns) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  auto zeros = hn::Zero(d);  // unless something is not
  for (Index r = 0; r < rows; ++r, x += stride) {
    Index c = 0;
    for (; c + kLanes <= columns; c += kLanes) zeros = hn::MulAdd(load(d, x + c), hn::Zero(d), zeros);
    if (c < columns) zeros = hn::MulAdd(load_n(d, x + c, columns - c), hn::Zero(d), zeros);
  }
  return sum(d, zeros) == 0;
}

// to [rows, pitch] = from [rows, columns] * scale, zeros behind `columns`.
template <class T>
HWY_INLINE void copy_scaled(const T* from, Index stride, Index rows, Index columns, float scale, float* to,
                            Index pitch) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  const auto s = hn::Set(d, scale);
  for (Index r = 0; r < rows; ++r, from += stride, to += pitch) {
    Index c = 0;
    for (; c + kLanes <= columns; c += kLanes) hn::StoreU(hn::Mul(s, load(d, from + c)), d, to + c);
    for (; c < columns; ++c) to[c] = scale * static_cast<float>(from[c]);
    for (; c < pitch; ++c) to[c] = 0;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#endif  // toggle
