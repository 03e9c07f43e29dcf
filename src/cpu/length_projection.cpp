// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/length_projection.hpp"

#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/length_projection.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Rows of out that are summed side by side; twice as many accumulators fit the registers.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
inline constexpr int kRows = 12;
#else
inline constexpr int kRows = 6;
#endif

// kM rows of out = weight^T x, in `columns` columns, at most two vectors.
template <int kM>
HWY_INLINE void project_tile(View<const float, 2> x, View<const float, 2> weight, View<float, 2> out, Index m,
                             Index columns) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d)), more = columns - lanes;
  FloatVec first[kM], second[kM];
  ASHLAR_UNROLL
  for (int i = 0; i < kM; ++i) first[i] = second[i] = hn::Zero(d);
  for (Index l = 0; l < x.shape[0]; ++l) {
    const float *row = x.at(l), *w = weight.at(l, m);
    const FloatVec a = load_some(d, row, columns),
                   b = more > 0 ? load_some(d, row + lanes, more) : hn::Zero(d);
    ASHLAR_UNROLL
    for (int i = 0; i < kM; ++i) {
      const FloatVec factor = hn::Set(d, w[i]);
      first[i] = hn::MulAdd(factor, a, first[i]);
      second[i] = hn::MulAdd(factor, b, second[i]);
    }
  }
  for (int i = 0; i < kM; ++i) {
    store_some(first[i], d, out.at(m + i), columns);
    if (more > 0) store_some(second[i], d, out.at(m + i) + lanes, more);
  }
}

Index tile_columns() { return 2 * static_cast<Index>(hn::Lanes(FloatTag())); }

// x [L, at most tile_columns()], weight [L, r], out [r, as x]
void project_columns(View<const float, 2> x, View<const float, 2> weight, View<float, 2> out) {
  Index m = 0;
  for (; m + kRows <= out.shape[0]; m += kRows) project_tile<kRows>(x, weight, out, m, x.shape[1]);
  for (; m + 2 <= out.shape[0]; m += 2) project_tile<2>(x, weight, out, m, x.shape[1]);
  for (; m < out.shape[0]; ++m) project_tile<1>(x, weight, out, m, x.shape[1]);
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
HWY_EXPORT(tile_columns);
HWY_EXPORT(project_columns);
}  // namespace kernels

void length_projection(const LengthProjection& a, CpuExec& exec) {
  constexpr std::string_view kOp = "length_projection";
  const Index tokens = a.x.shape[0], positions = a.weight.shape[1], rank = a.weight.shape[2],
              sequences = a.offsets.count();
  Index heads = a.x.shape[1], dim = a.x.shape[2];
  expect_shape(kOp, "x", a.x, a.x.shape);
  a.offsets.check(kOp, tokens);
  if (a.weight.shape[0] != 1 && a.weight.shape[0] != heads)
    refuse(kOp, "weight has ", a.weight.shape[0], " heads, expected 1 or the ", heads, " of x");
  expect_shape(kOp, "weight", a.weight, a.weight.shape);
  expect_shape(kOp, "out", a.out, {sequences * rank, heads, dim});
  for (Index n = 0; n < sequences; ++n)
    if (const Index length = a.offsets.end(n, tokens) - a.offsets.begin(n); length > positions)
      refuse(kOp, "sequence ", n, " has ", length, " tokens, expected at most the ", positions,
             " that weight has");
  trace(exec, kOp, "tiles of columns", "x", to_string(a.x.shape), " rank=", rank, " sequences=", sequences);
  // Heads that lie side by side and share a weight are one.
  if (a.weight.shape[0] == 1 && a.x.strides[1] == dim && a.out.strides[1] == dim) dim *= heads, heads = 1;
  const Index width = ASHLAR_DISPATCH(exec, tile_columns)(), tiles = (dim + width - 1) / width;
  exec.parallel_for(sequences * heads * tiles, [&](Index task, int) {
    const Index n = task / (heads * tiles), h = task / tiles % heads, c = task % tiles * width,
                columns = std::min(width, dim - c);
    const Index begin = a.offsets.begin(n), length = a.offsets.end(n, tokens) - begin;
    const View<const float, 2> x(a.x.at(begin, h) + c, {length, columns}, {a.x.strides[0], 1});
    const View<const float, 2> weight(a.weight.at(a.weight.shape[0] == 1 ? 0 : h), {length, rank},
                                      {a.weight.strides[1], 1});
    const View<float, 2> out(a.out.at(n * rank, h) + c, {rank, columns}, {a.out.strides[0], 1});
    ASHLAR_DISPATCH(exec, project_columns)(x, weight, out);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
