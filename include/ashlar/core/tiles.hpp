// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <vector>

#include "ashlar/core/error.hpp"

namespace ashlar {
inline namespace v0 {

// Where the tiles of `tile` pixels begin that cover a side of `length` pixels with the least overlap: the
// test-time local converter (Chu et al., 2022), as DLGSANet uses it. With k = min(length, tile) and
// n = ceil(length / k): steps of ceil((length - k) / (n - 1)), the last tile moved so that it ends with the
// side. Each tile has k pixels. Refused: a length or a tile below 1.
inline std::vector<Index> tile_starts(Index length, Index tile) {
  if (length < 1 || tile < 1)
    refuse("tile_starts", "a side of ", length, " in tiles of ", tile, ", expected both at least 1");
  const Index k = std::min(length, tile), n = (length - 1) / k + 1;
  const Index step = n == 1 ? k : (length - k + n - 2) / (n - 1);
  std::vector<Index> starts;
  for (Index at = 0;; at += step) {
    starts.push_back(std::min(at, length - k));
    if (at + k >= length) return starts;
  }
}

}  // namespace v0
}  // namespace ashlar
