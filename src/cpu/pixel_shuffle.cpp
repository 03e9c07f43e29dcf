// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/pixel_shuffle.hpp"

#include <algorithm>

#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/pixel_shuffle.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// parts[k][c] = x[c count + k]
void split_interleaved(const float* x, Index count, Index channels, float* const* parts) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  Index c = 0;
  if (count == 4)
    for (; c + lanes <= channels; c += lanes) {
      FloatVec v0, v1, v2, v3;
      hn::LoadInterleaved4(d, x + 4 * c, v0, v1, v2, v3);
      hn::StoreU(v0, d, parts[0] + c), hn::StoreU(v1, d, parts[1] + c);
      hn::StoreU(v2, d, parts[2] + c), hn::StoreU(v3, d, parts[3] + c);
    }
  for (; c < channels; ++c)
    for (Index k = 0; k < count; ++k) parts[k][c] = x[c * count + k];
}

// out[c count + k] = parts[k][c]
void join_interleaved(const float* const* parts, Index count, Index channels, float* out) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  Index c = 0;
  if (count == 4)
    for (; c + lanes <= channels; c += lanes)
      hn::StoreInterleaved4(hn::LoadU(d, parts[0] + c), hn::LoadU(d, parts[1] + c),
                            hn::LoadU(d, parts[2] + c), hn::LoadU(d, parts[3] + c), d, out + 4 * c);
  for (; c < channels; ++c)
    for (Index k = 0; k < count; ++k) out[c * count + k] = parts[k][c];
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
HWY_EXPORT(split_interleaved);
HWY_EXPORT(join_interleaved);
}  // namespace kernels
namespace {

// Checks the two images of a shuffle, and gives its ratio.
Index ratio_of(std::string_view op, std::string_view wide_name, const std::array<Index, 4>& wide,
               std::string_view fine_name, const std::array<Index, 4>& fine) {
  const Index r = wide[1] > 0 ? fine[1] / wide[1] : wide[2] > 0 ? fine[2] / wide[2] : 1;
  const std::array<Index, 4> want{wide[0], r * wide[1], r * wide[2], r > 0 ? wide[3] / (r * r) : 0};
  if (r < 1 || fine != want || want[3] * r * r != wide[3])
    refuse(op, fine_name, " has shape ", to_string(fine), ", which is no shuffle of ", wide_name, "'s ",
           to_string(wide));
  return r;
}

// each(wide pixel, the r r pixels of its block) for every pixel of the wide image.
template <class Wide, class Fine, class Each>
void each_block(const View<Wide, 4>& wide, const View<Fine, 4>& fine, Index r, CpuExec& exec, Each&& each) {
  const Index rows = wide.shape[1], columns = wide.shape[2];
  CpuScratch scratch(exec);
  const auto memory = scratch.get<Fine*>(exec.threads(), r * r);
  parallel_rows(exec, wide.shape[0] * rows, columns * wide.shape[3], [&](Index begin, Index end, int worker) {
    Fine** block = memory.at(worker);
    for (Index row = begin; row < end; ++row)
      for (Index w = 0; w < columns; ++w) {
        const Index n = row / rows, h = row % rows;
        for (Index k = 0; k < r * r; ++k) block[k] = fine.at(n, h * r + k / r, w * r + k % r);
        each(wide.at(n, h, w), block);
      }
  });
}

}  // namespace

void pixel_shuffle(const PixelShuffle& a, CpuExec& exec) {
  expect_shape("pixel_shuffle", "x", a.x, a.x.shape);
  expect_shape("pixel_shuffle", "out", a.out, a.out.shape);
  const Index r = ratio_of("pixel_shuffle", "x", a.x.shape, "out", a.out.shape), channels = a.out.shape[3];
  trace(exec, "pixel_shuffle", "blocks", to_string(a.x.shape), " by ", r);
  each_block(a.x, a.out, r, exec, [&](const float* x, float* const* block) {
    if (a.order == BlockOrder::channel_first)
      ASHLAR_DISPATCH(exec, split_interleaved)(x, r * r, channels, block);
    else
      for (Index k = 0; k < r * r; ++k) std::copy_n(x + k * channels, channels, block[k]);
  });
}

void pixel_unshuffle(const PixelShuffle& a, CpuExec& exec) {
  expect_shape("pixel_unshuffle", "x", a.x, a.x.shape);
  expect_shape("pixel_unshuffle", "out", a.out, a.out.shape);
  const Index r = ratio_of("pixel_unshuffle", "out", a.out.shape, "x", a.x.shape), channels = a.x.shape[3];
  trace(exec, "pixel_unshuffle", "blocks", to_string(a.x.shape), " by ", r);
  each_block(a.out, a.x, r, exec, [&](float* out, const float* const* block) {
    if (a.order == BlockOrder::channel_first)
      ASHLAR_DISPATCH(exec, join_interleaved)(block, r * r, channels, out);
    else
      for (Index k = 0; k < r * r; ++k) std::copy_n(block[k], channels, out + k * channels);
  });
}

void channel_shuffle(const ChannelShuffle& a, CpuExec& exec) {
  expect_shape("channel_shuffle", "x", a.x, a.x.shape);
  expect_shape("channel_shuffle", "out", a.out, a.x.shape);
  const Index channels = a.x.shape[3], rows = a.x.shape[1], columns = a.x.shape[2];
  if (a.groups < 1 || channels % a.groups != 0)
    refuse("channel_shuffle", a.groups, " groups do not divide the ", channels, " channels");
  trace(exec, "channel_shuffle", "rows", to_string(a.x.shape));
  const Index each = channels / a.groups;
  parallel_rows(exec, a.x.shape[0] * rows, columns * channels, [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      for (Index w = 0; w < columns; ++w) {
        const float* x = a.x.at(row / rows, row % rows, w);
        float* out = a.out.at(row / rows, row % rows, w);
        for (Index k = 0; k < each; ++k)
          for (Index q = 0; q < a.groups; ++q) *out++ = x[q * each + k];
      }
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
