// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/window_bias.hpp"

#include <cmath>

namespace ashlar {
inline namespace v0 {

namespace {

void check_window(std::string_view op, std::array<Index, 2> window, Index least) {
  if (window[0] < least || window[1] < least)
    refuse(op, "the window is ", to_string(window), ", expected extents of at least ", least);
}

// f(row of the table, dy, dx)
template <class F>
void each_offset(std::array<Index, 2> window, F&& f) {
  const Index h = window[0], w = window[1];
  for (Index dy = 1 - h, row = 0; dy < h; ++dy)
    for (Index dx = 1 - w; dx < w; ++dx, ++row) f(row, static_cast<float>(dy), static_cast<float>(dx));
}

}  // namespace

Tensor<std::int32_t, 2> window_position_index(std::array<Index, 2> window) {
  check_window("window_position_index", window, 1);
  const Index h = window[0], w = window[1], tokens = h * w;
  Tensor<std::int32_t, 2> index({tokens, tokens});
  for (Index n = 0; n < tokens; ++n)
    for (Index m = 0; m < tokens; ++m)
      index.view()(n, m) =
          static_cast<std::int32_t>((n / w - m / w + h - 1) * (2 * w - 1) + (n % w - m % w + w - 1));
  return index;
}

Tensor<std::int32_t, 2> overlapping_position_index(Index window, Index over, bool wrapped) {
  check_window("overlapping_position_index", {window, over}, 1);
  const Index side = window + over - 1, base = window - over + 1, rows = side * side;
  Tensor<std::int32_t, 2> index({window * window, over * over});
  for (Index n = 0; n < window * window; ++n)
    for (Index m = 0; m < over * over; ++m) {
      const Index row = (m / over - n / window + base) * side + (m % over - n % window + base);
      index.view()(n, m) = static_cast<std::int32_t>(wrapped ? (row % rows + rows) % rows : row);
    }
  return index;
}

Tensor<float, 2> log_position_coordinates(std::array<Index, 2> window, std::array<Index, 2> pretrained) {
  const std::array<Index, 2> of = {pretrained[0] > 0 ? pretrained[0] : window[0],
                                   pretrained[1] > 0 ? pretrained[1] : window[1]};
  check_window("log_position_coordinates", window, 1);
  check_window("log_position_coordinates", of, 2);
  Tensor<float, 2> table({(2 * window[0] - 1) * (2 * window[1] - 1), 2});
  const auto scaled = [](float distance, Index extent) {
    const float c = 8 * distance / static_cast<float>(extent - 1);
    return std::copysign(std::log2(std::abs(c) + 1) / 3, c);
  };
  each_offset(window, [&](Index row, float dy, float dx) {
    table.view()(row, 0) = scaled(dy, of[0]), table.view()(row, 1) = scaled(dx, of[1]);
  });
  return table;
}

Tensor<float, 2> position_offsets(std::array<Index, 2> window) {
  check_window("position_offsets", window, 1);
  Tensor<float, 2> table({(2 * window[0] - 1) * (2 * window[1] - 1), 2});
  each_offset(window,
              [&](Index row, float dy, float dx) { table.view()(row, 0) = dy, table.view()(row, 1) = dx; });
  return table;
}

Tensor<float, 3> gather_window_bias(View<const float, 2> table, View<const std::int32_t, 2> index) {
  const Index rows = table.shape[0], heads = table.shape[1], queries = index.shape[0], keys = index.shape[1];
  for (Index n = 0; n < queries; ++n)
    for (Index m = 0; m < keys; ++m)
      if (index(n, m) < 0 || index(n, m) >= rows)
        refuse("gather_window_bias", "the index has ", Index{index(n, m)}, ", the table ", rows, " rows");
  Tensor<float, 3> bias({heads, keys, queries});
  for (Index h = 0; h < heads; ++h)
    for (Index m = 0; m < keys; ++m)
      for (Index n = 0; n < queries; ++n) bias.view()(h, m, n) = table(index(n, m), h);
  return bias;
}

View<const float, 3> queries_first(View<const float, 3> b) {
  return {b.data, {b.shape[0], b.shape[2], b.shape[1]}, {b.strides[0], b.strides[2], b.strides[1]}};
}

}  // namespace v0
}  // namespace ashlar
