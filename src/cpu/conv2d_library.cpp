// SPDX-License-Identifier: Apache-2.0
// Convolution by the library: each task is some rows of one image, on one thread; rows, and so bits, depend
// on the shape of the image alone. Slices of wider images go through packed copies of a tile's rows.
#include "src/cpu/conv2d_library.hpp"

#include <algorithm>

#include "src/cpu/dispatch.hpp"
#include "src/cpu/gemm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/conv2d_library.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "src/cpu/conv2d_finish-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// The epilogue of rows [top, top + rows) of image n; sums [rows, W', outputs].
void conv2d_finish(const Conv2dArgs& a, Index n, Index top, Index rows, const float* sums) {
  const Index width = a.out.shape[2], outputs = a.out.shape[3];
  for (Index h = top; h < top + rows; ++h, sums += width * outputs)
    finish_pixels(a, (n * a.out.shape[1] + h) * width, width, 0, outputs, sums, outputs);
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
HWY_EXPORT(conv2d_finish);
}  // namespace kernels
namespace {

// Of a tile's input and output, so that they stay in the second-level cache.
constexpr Index kTileFloats = 131072, kTileRows = 16;
// Small images are cut further, for the sake of threads, down to tiles of this many multiplications.
constexpr Index kTiles = 16, kTileProducts = 1 << 22;

template <class T>
bool packed(const View<T, 4>& map) {
  return map.strides[2] == map.shape[3] && map.strides[1] == map.shape[2] * map.shape[3];
}

Index rows_seen(const Conv2dArgs& a, Index rows) {
  return (rows - 1) * a.steps.stride[0] + (a.weight.kernel()[0] - 1) * a.steps.dilation[0] + 1;
}

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// Rows of all tiles but the last, which may have fewer.
Index tile_rows(const Conv2dArgs& a) {
  const Index height = a.out.shape[1], out = a.out.shape[2] * a.out.shape[3],
              in = a.x.shape[2] * a.x.shape[3] * a.steps.stride[0],
              products =
                  out * a.weight.inputs() / a.weight.groups() * a.weight.kernel()[0] * a.weight.kernel()[1];
  const Index fitting = std::clamp<Index>(kTileFloats / (in + out), 1, kTileRows),
              wanted = std::max(ceil_div(height, kTiles), ceil_div(kTileProducts, products));
  return ceil_div(height, ceil_div(height, std::min(fitting, wanted)));
}

// Why the library is not asked.
std::string_view refused(const Conv2dArgs& a, const CpuExec& exec) {
  if (!a.weight.library()) return "blocks of pixels (oneDNN is not in this build)";
  // oneDNN chooses by the machine.
  if (exec.isa() != best_isa()) return "blocks of pixels (oneDNN cannot be held to the instruction set)";
  return {};
}

ConvolutionShape shape_of(const Conv2dArgs& a, const ConvolutionTile& t) {
  const Index begin = t.top * a.steps.stride[0] - a.steps.padding[0];
  ConvolutionShape s;
  s.inputs = a.weight.inputs(), s.outputs = a.weight.outputs(), s.groups = a.weight.groups();
  s.in = {t.height, a.x.shape[2]}, s.out = {t.rows, a.out.shape[2]};
  s.kernel = a.weight.kernel(), s.stride = a.steps.stride, s.dilation = a.steps.dilation;
  const Index right = (s.out[1] - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1 -
                      a.steps.padding[1] - a.x.shape[2];
  s.before = {t.first_row - begin, a.steps.padding[1]};
  s.after = {begin + rows_seen(a, t.rows) - t.first_row - t.height, std::max<Index>(right, 0)};
  s.bias = static_cast<bool>(a.bias);
  return s;
}

void copy_rows(const View<const float, 4>& x, Index n, Index first, Index rows, float* to) {
  const Index channels = x.shape[3];
  for (Index h = first; h < first + rows; ++h)
    for (Index w = 0; w < x.shape[2]; ++w, to += channels) std::copy_n(x.at(n, h, w), channels, to);
}

Index whole_vectors(Index floats) { return (floats + 31) / 16 * 16; }  // and a vector to read over the end

}  // namespace

ConvolutionPlan plan_convolution(const Conv2dArgs& a, CpuExec& exec, CpuScratch& scratch) {
  ConvolutionPlan plan{{}, refused(a, exec)};
  if (!plan.reason.empty()) return plan;
  const Index height = a.out.shape[1], rows = tile_rows(a), count = ceil_div(height, rows);
  const auto tiles = scratch.get<ConvolutionTile>(count);
  for (Index i = 0; i < count; ++i) {
    ConvolutionTile& t = tiles(i);
    t.top = i * rows, t.rows = std::min(rows, height - t.top);
    const Index begin = t.top * a.steps.stride[0] - a.steps.padding[0];
    t.first_row = std::clamp<Index>(begin, 0, a.x.shape[1]);
    t.height = std::clamp<Index>(begin + rows_seen(a, t.rows), t.first_row, a.x.shape[1]) - t.first_row;
    t.convolution = t.height == 0 ? nullptr : exec.gemm_cache().get(shape_of(a, t));
    if (!t.convolution) {
      plan.reason = "blocks of pixels (oneDNN is not made for this shape)";
      return plan;
    }
    t.filters = t.convolution->filters(a.weight);
  }
  plan.tiles = tiles;
  return plan;
}

void conv2d_library(const Conv2dArgs& a, const ConvolutionPlan& plan, CpuExec& exec) {
  const Index count = plan.tiles.shape[0], outputs = a.out.shape[3];
  const bool gather = !packed(a.x),
             finish = !packed(a.out) || a.activation != Activation::identity || a.residual;
  Index bytes = 0, height = 0;
  for (Index i = 0; i < count; ++i) {
    bytes = std::max(bytes, plan.tiles(i).convolution->scratch_bytes());
    height = std::max(height, plan.tiles(i).height);
  }
  CpuScratch scratch(exec);
  const auto copies =
      scratch.floats(exec.threads(), gather ? whole_vectors(height * a.x.shape[2] * a.x.shape[3]) : 0);
  const auto sums = scratch.floats(exec.threads(),
                                   finish ? whole_vectors(plan.tiles(0).rows * a.out.shape[2] * outputs) : 0);
  const auto memory = scratch.get<std::byte>(exec.threads(), (bytes + 63) / 64 * 64);
  const auto bias = scratch.floats(whole_vectors(outputs));
  for (Index o = 0; a.bias && o < outputs; ++o) bias(o) = a.bias(o);
  exec.parallel_for(a.out.shape[0] * count, [&](Index task, int worker) {
    const Index n = task / count;
    const ConvolutionTile& t = plan.tiles(task % count);
    if (gather) copy_rows(a.x, n, t.first_row, t.height, copies.at(worker));
    const float* x = gather ? copies.at(worker) : a.x.at(n, t.first_row);
    float* out = finish ? sums.at(worker) : a.out.at(n, t.top);
    t.convolution->run(x, t.filters, bias.data, out, memory.at(worker));
    if (finish) ASHLAR_DISPATCH(exec, conv2d_finish)(a, n, t.top, t.rows, out);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
