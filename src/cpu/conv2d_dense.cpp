// SPDX-License-Identifier: Apache-2.0
// Convolution, dense or in groups, where the library is not asked: blocks of neighbouring pixels by vectors
// of outputs stay in registers while the taps pass, read where they lie in the image.
#include <algorithm>

#include "src/cpu/conv2d.hpp"
#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/conv2d_dense.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "src/cpu/conv2d_finish-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// Registers of a full block: pixels * vectors sums, vectors of weights, one input. Few vectors: more pixels,
// so that no addition waits for the one before.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
inline constexpr int kConvVectors = 4;
template <int kVectors>
inline constexpr int kConvPixels = kVectors == 1 ? 12 : 24 / kVectors;
#else
inline constexpr int kConvVectors = 2;
template <int kVectors>
inline constexpr int kConvPixels = 6;
#endif

// out [kPixels, kVectors * lanes] = bias + the taps, in their order.
template <int kPixels, int kVectors>
HWY_NOINLINE void conv_block(const ConvTile& t, const float* HWY_RESTRICT x,
                             const float* HWY_RESTRICT weights, const float* HWY_RESTRICT bias,
                             float* HWY_RESTRICT out, Index pitch) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  FloatVec sums[kPixels][kVectors];
  ASHLAR_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const auto start = hn::LoadU(d, bias + v * kLanes);
    ASHLAR_UNROLL
    for (int p = 0; p < kPixels; ++p) sums[p][v] = start;
  }
  for (Index r = 0; r < t.kh; ++r)
    for (Index s = 0; s < t.runs; ++s) {
      const float* from = x + r * t.tap_row + s * t.tap;
      for (Index i = 0; i < t.run; ++i, weights += t.width) {
        FloatVec w[kVectors];
        ASHLAR_UNROLL
        for (int v = 0; v < kVectors; ++v) w[v] = hn::LoadU(d, weights + v * kLanes);
        ASHLAR_UNROLL
        for (int p = 0; p < kPixels; ++p) {
          const auto input = hn::Set(d, from[p * t.pixel + i]);
          ASHLAR_UNROLL
          for (int v = 0; v < kVectors; ++v) sums[p][v] = hn::MulAdd(input, w[v], sums[p][v]);
        }
      }
    }
  ASHLAR_UNROLL
  for (int p = 0; p < kPixels; ++p) {
    ASHLAR_UNROLL
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[p][v], d, out + p * pitch + v * kLanes);
  }
}

// The same for `pixels` of them, at most kMost.
template <int kVectors, int kMost = kConvPixels<kVectors>>
HWY_INLINE void conv_block(Index pixels, const ConvTile& t, const float* x, const float* weights,
                           const float* bias, float* out, Index pitch) {
  if (pixels == kMost) return conv_block<kMost, kVectors>(t, x, weights, bias, out, pitch);
  if constexpr (kMost > 1) conv_block<kVectors, kMost - 1>(pixels, t, x, weights, bias, out, pitch);
}

// Vectors of outputs [first, first + kVectors * lanes) of a panel for all pixels of a tile.
template <int kVectors>
void conv_strip(const Conv2dArgs& a, const ConvTile& t, Index first) {
  constexpr Index kColumns = kVectors * static_cast<Index>(HWY_LANES(float));
  constexpr Index kMost = kConvPixels<kVectors>;
  HWY_ALIGN float sums[kMost * kColumns];
  const Index columns = std::min(kColumns, t.filled - first);
  const bool plain = a.activation == Activation::identity && !a.residual && columns == kColumns;
  for (Index h = 0; h < t.rows; ++h)
    for (Index w = 0; w < t.columns;) {
      // As many to each block that is left.
      const Index left = t.columns - w, blocks = (left + kMost - 1) / kMost,
                  pixels = (left + blocks - 1) / blocks;
      const float* x = t.x + h * t.row + w * t.pixel;
      float* out = a.out.at(t.n, t.top + h, t.left + w, t.first + first);
      conv_block<kVectors>(pixels, t, x, t.weights + first, t.bias + first, plain ? out : sums,
                           plain ? a.out.strides[2] : kColumns);
      if (!plain)
        finish_pixels(a, (t.n * a.out.shape[1] + t.top + h) * a.out.shape[2] + t.left + w, pixels,
                      t.first + first, columns, sums, kColumns);
      w += pixels;
    }
}

void conv2d_tile(const Conv2dArgs& a, const ConvTile& t) {
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  Index first = 0;
  for (; first + kConvVectors * kLanes <= t.width; first += kConvVectors * kLanes)
    conv_strip<kConvVectors>(a, t, first);
  if constexpr (kConvVectors == 4) {
    const Index left = (t.width - first) / kLanes;
    if (left == 3) conv_strip<3>(a, t, first);
    if (left == 2) conv_strip<2>(a, t, first);
    if (left == 1) conv_strip<1>(a, t, first);
  }
}

// to [rows, columns, channels] = the pixels from (top, left) on, zeros outside the image.
void conv2d_pad(const Conv2dArgs& a, Index n, Index top, Index left, Index rows, Index columns, float* to) {
  const auto& x = a.x;
  const Index channels = x.shape[3];
  const Index begin = std::clamp<Index>(-left, 0, columns),
              end = std::clamp(x.shape[2] - left, begin, columns);
  for (Index y = top; y < top + rows; ++y, to += columns * channels) {
    if (y < 0 || y >= x.shape[1]) {
      std::fill_n(to, columns * channels, 0.0f);
      continue;
    }
    std::fill_n(to, begin * channels, 0.0f);
    std::fill_n(to + end * channels, (columns - end) * channels, 0.0f);
    if (begin == end) continue;
    if (x.strides[2] == channels)
      copy_row(x.at(n, y, left + begin), (end - begin) * channels, to + begin * channels);
    else
      for (Index j = begin; j < end; ++j) copy_row(x.at(n, y, left + j), channels, to + j * channels);
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
HWY_EXPORT(conv2d_tile);
HWY_EXPORT(conv2d_pad);
}  // namespace kernels
namespace {

// Of a tile's input, so that it stays in the second-level cache beside a panel of filters.
constexpr Index kTileFloats = 65536, kTileColumns = 72, kTileRows = 16;

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

}  // namespace

void conv2d_dense(const Conv2dArgs& a, CpuExec& exec) {
  const Conv2dSteps& s = a.steps;
  const Index groups = a.weight.groups(), channels = a.weight.inputs(), each = channels / groups,
              outputs = a.weight.outputs() / groups, padded = conv_padded(outputs), kh = a.weight.kernel()[0],
              kw = a.weight.kernel()[1];
  const Index images = a.out.shape[0], height = a.out.shape[1], width = a.out.shape[2];
  const auto span = [&](Index count, int axis) {
    return (count - 1) * s.stride[axis] + (a.weight.kernel()[axis] - 1) * s.dilation[axis] + 1;
  };
  const Index across = ceil_div(width, kTileColumns), columns = ceil_div(width, across);
  const Index seen_columns = span(columns, 1);
  const Index fitting = (kTileFloats / (seen_columns * channels) - span(1, 0)) / s.stride[0] + 1;
  const Index down = ceil_div(height, std::clamp<Index>(fitting, 1, kTileRows)),
              rows = ceil_div(height, down);
  const Index panels = ceil_div(padded, kConvPanel), units = groups * panels, tiles = images * down * across;
  // Few tiles: their panels are shared out as well.
  const Index parts = exec.threads() == 1 ? 1 : std::clamp<Index>(4 * exec.threads() / tiles, 1, units);
  const bool pads = s.padding[0] != 0 || s.padding[1] != 0;
  CpuScratch scratch(exec);
  const auto padded_tiles =
      scratch.floats(exec.threads(), pads ? span(rows, 0) * seen_columns * channels : 0);
  const auto bias = scratch.floats(groups, padded);
  for (Index g = 0; g < groups; ++g)
    for (Index o = 0; o < padded; ++o) bias(g, o) = a.bias && o < outputs ? a.bias(g * outputs + o) : 0;
  exec.parallel_for(tiles * parts, [&](Index task, int worker) {
    const Index tile = task / parts, part = task % parts;
    ConvTile t;
    t.n = tile / (down * across);
    t.top = tile / across % down * rows, t.left = tile % across * columns;
    t.rows = std::min(rows, height - t.top), t.columns = std::min(columns, width - t.left);
    if (t.rows <= 0 || t.columns <= 0) return;
    const Index first_row = t.top * s.stride[0] - s.padding[0],
                first_column = t.left * s.stride[1] - s.padding[1];
    const float* x = nullptr;
    Index pixel = channels, row = seen_columns * channels;
    if (pads) {
      ASHLAR_DISPATCH(exec, conv2d_pad)
      (a, t.n, first_row, first_column, span(t.rows, 0), seen_columns, padded_tiles.at(worker));
      x = padded_tiles.at(worker);
    } else {
      x = a.x.at(t.n, first_row, first_column), pixel = a.x.strides[2], row = a.x.strides[1];
    }
    t.pixel = s.stride[1] * pixel, t.row = s.stride[0] * row;
    t.tap = s.dilation[1] * pixel, t.tap_row = s.dilation[0] * row;
    t.kh = kh, t.runs = kw, t.run = each;
    if (t.tap == each) t.runs = 1, t.run = kw * each;  // one behind another
    for (Index unit = units * part / parts; unit < units * (part + 1) / parts; ++unit) {
      const Index group = unit / panels, first = unit % panels * kConvPanel;
      t.x = x + group * each;
      t.weights = a.weight.packed().data() + (group * padded + first) * kh * kw * each;
      t.bias = bias.at(group, first);
      t.width = std::min(kConvPanel, padded - first), t.filled = std::min(kConvPanel, outputs - first);
      t.first = group * outputs + first;
      ASHLAR_DISPATCH(exec, conv2d_tile)(a, t);
    }
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
