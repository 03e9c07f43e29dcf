// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/pad2d.hpp"

#include <algorithm>

#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr std::string_view kOp = "pad2d";

// The pixel of an axis of n that stands at i, which may be outside; -1: a zero.
Index source(PadMode mode, Index i, Index n) {
  if (i >= 0 && i < n) return i;
  if (mode == PadMode::zero) return -1;
  const Index edge = mode == PadMode::reflect ? 0 : 1;
  return i < 0 ? -i - edge : 2 * (n - 1) - i + edge;
}

void check(const Pad2d& a) {
  expect_shape(kOp, "x", a.x, a.x.shape);
  expect_shape(kOp, "out", a.out, {a.x.shape[0], a.out.shape[1], a.out.shape[2], a.x.shape[3]});
  if (a.mode != PadMode::zero && a.mode != PadMode::reflect && a.mode != PadMode::symmetric)
    refuse(kOp, "mode is ", static_cast<int>(a.mode), ", expected zero, reflect or symmetric");
  for (int axis : {0, 1}) {
    const Index side = a.x.shape[1 + axis], before = a.before[axis],
                behind = a.out.shape[1 + axis] - side - before;
    if (before < 0 || behind < 0)
      refuse(kOp, "out's side of ", a.out.shape[1 + axis], " does not hold x's of ", side, " behind ", before,
             " pixels");
    const Index most = a.mode == PadMode::reflect ? side - 1 : side;
    if (a.mode != PadMode::zero && std::max(before, behind) > most)
      refuse(kOp, a.mode == PadMode::reflect ? "reflect" : "symmetric", " padding by ",
             std::max(before, behind), " of a side of ", side, ", expected at most ",
             std::max<Index>(most, 0));
  }
}

}  // namespace

void pad2d(const Pad2d& a, CpuExec& exec) {
  check(a);
  const auto [images, height, width, channels] = a.out.shape;
  const Index rows = height, columns = width, count = channels;
  trace(exec, kOp, "rows", to_string(a.x.shape), " -> ", to_string(a.out.shape));
  const bool runs = a.x.strides[2] == count && a.out.strides[2] == count;
  parallel_rows(exec, images * rows, columns * count, [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const Index n = row / rows, h = row % rows, y = source(a.mode, h - a.before[0], a.x.shape[1]);
      for (Index w = 0; w < columns; ++w) {
        const Index j = source(a.mode, w - a.before[1], a.x.shape[2]);
        if (y < 0 || j < 0) {
          std::fill_n(a.out.at(n, h, w), count, 0.0f);
        } else if (runs && w == a.before[1]) {  // the image itself
          std::copy_n(a.x.at(n, y), a.x.shape[2] * count, a.out.at(n, h, w));
          w += a.x.shape[2] - 1;
        } else {
          std::copy_n(a.x.at(n, y, j), count, a.out.at(n, h, w));
        }
      }
    }
  });
}

}  // namespace v0
}  // namespace ashlar
