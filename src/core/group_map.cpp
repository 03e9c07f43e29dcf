// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/group_map.hpp"

namespace ashlar {
inline namespace v0 {

namespace {

constexpr std::string_view kWho = "GroupMap";

void check_image(GroupMap::Size image) {
  if (image[0] < 1 || image[1] < 1)
    refuse(kWho, "the image is ", to_string(image), ", expected at least one row and one column");
}

void check_views(Index views) {
  if (views < 1) refuse(kWho, "there are ", views, " views, expected at least 1");
}

Index round_up(Index x, Index multiple) { return (x + multiple - 1) / multiple * multiple; }

GroupAxis window_axis(Index length, Index window, Index shift, Index pad_to) {
  if (window < 1) refuse(kWho, "a window has ", window, " rows or columns, expected at least 1");
  if (shift < 0 || shift >= window)
    refuse(kWho, "the shift is ", shift, " in windows of ", window, ", expected it in [0, window)");
  if (pad_to < 0 || pad_to % window != 0)
    refuse(kWho, "pad_to is ", pad_to, ", expected a multiple of the window, ", window);
  const Index padded = round_up(length, pad_to != 0 ? pad_to : window);
  return {length, padded / window, window, window, 1, shift, padded, shift};
}

}  // namespace

GroupMap GroupMap::window(Size image, Size window, Size shift, Size pad_to) {
  check_image(image);
  return {window_axis(image[0], window[0], shift[0], pad_to[0]),
          window_axis(image[1], window[1], shift[1], pad_to[1]), 1};
}

GroupMap GroupMap::overlapping(Size image, Index window, Index over) {
  check_image(image);
  if (window < 1) refuse(kWho, "a window has ", window, " rows, expected at least 1");
  if (over < window || (over - window) % 2 != 0)
    refuse(kWho, "overlapping windows of ", over, " around windows of ", window,
           ", expected the difference even and not negative");
  const auto axis = [&](Index length) -> GroupAxis {
    return {length, (length + window - 1) / window, over, window, 1, -(over - window) / 2, 0, 0};
  };
  return {axis(image[0]), axis(image[1]), 1};
}

GroupMap GroupMap::grid(Size image, Index stride, Index views) {
  check_image(image);
  check_views(views);
  if (stride < 1 || image[0] % stride != 0 || image[1] % stride != 0)
    refuse(kWho, "the stride of a grid is ", stride, " in an image of ", to_string(image),
           ", expected a divisor of both extents");
  const auto axis = [&](Index length) -> GroupAxis {
    return {length, stride, length / stride, 1, stride, 0, 0, 0};
  };
  return {axis(image[0]), axis(image[1]), views};
}

GroupMap GroupMap::global(Size image, Index views) { return grid(image, 1, views); }

}  // namespace v0
}  // namespace ashlar
