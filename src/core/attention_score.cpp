// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/attention_score.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace ashlar {
inline namespace v0 {

Tensor<float, 1> alibi_slopes(Index heads) {
  if (heads < 1) refuse("alibi_slopes", "there are ", heads, " heads, expected 1 or more");
  Tensor<float, 1> slopes({heads});
  const auto whole = static_cast<Index>(std::bit_floor(static_cast<std::uint64_t>(heads)));
  for (Index h = 0; h < heads; ++h) {
    const double step = h < whole ? static_cast<double>(h + 1) / static_cast<double>(whole)
                                  : static_cast<double>(2 * (h - whole) + 1) / static_cast<double>(2 * whole);
    slopes.data()[h] = static_cast<float>(std::exp2(-8 * step));
  }
  return slopes;
}

Tensor<float, 2> t5_relative(View<const float, 2> weights, Index max_distance, bool bidirectional) {
  constexpr std::string_view kOp = "t5_relative";
  const auto [buckets, heads] = weights.shape;
  expect_shape(kOp, "weights", weights, weights.shape);
  if (buckets < (bidirectional ? 4 : 2))
    refuse(kOp, "there are ", buckets, " buckets, expected at least ", bidirectional ? 4 : 2);
  const Index side = bidirectional ? buckets / 2 : buckets, exact = side / 2;
  if (max_distance <= exact)
    refuse(kOp, "max_distance is ", max_distance, ", expected more than ", exact,
           ", the buckets of one distance each");
  Tensor<float, 2> table({heads, 2 * max_distance + 1});
  for (Index offset = -max_distance; offset <= max_distance; ++offset) {  // of the key from the query
    const Index distance = bidirectional ? std::abs(offset) : std::max<Index>(0, -offset);
    Index bucket = distance;
    if (distance >= exact) {
      // In float, as the published code: its rounding decides where buckets end.
      const float ratio = std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
                          std::log(static_cast<float>(max_distance) / static_cast<float>(exact));
      bucket = std::min(side - 1, exact + static_cast<Index>(ratio * static_cast<float>(side - exact)));
    }
    if (bidirectional && offset > 0) bucket += side;
    for (Index h = 0; h < heads; ++h) table.view()(h, max_distance + offset) = *weights.at(bucket, h);
  }
  return table;
}

}  // namespace v0
}  // namespace ashlar
