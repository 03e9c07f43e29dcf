// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/gather_heads.hpp"

#include <algorithm>

#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

namespace ashlar {
inline namespace v0 {

void gather_heads(const GatherHeads& a, CpuExec& exec) {
  constexpr std::string_view kOp = "gather_heads";
  const auto [entries, heads] = a.index.shape;
  const Index rows = a.x.shape[0], dim = a.x.shape[2];
  expect_shape(kOp, "x", a.x, {rows, heads, dim});
  expect_shape(kOp, "index", a.index, a.index.shape);
  expect_shape(kOp, "out", a.out, {entries, heads, dim});
  for (Index e = 0; e < entries; ++e)
    for (Index h = 0; h < a.index.shape[1]; ++h)
      if (const Index row = a.index(e, h); row < -1 || row >= rows)
        refuse(kOp, "index", to_string<2>({e, h}), " is ", row, ", expected -1 to ", rows - 1);
  trace(exec, kOp, "rows", "x", to_string(a.x.shape), " out", to_string(a.out.shape));
  // Copies of rows: the compiler's memcpy is as fast as anything.
  parallel_rows(exec, entries, a.index.shape[1] * dim, [&](Index begin, Index end) {
    for (Index e = begin; e < end; ++e)
      for (Index h = 0; h < a.out.shape[1]; ++h) {
        const Index row = a.index(e, h);
        if (row < 0)
          std::fill_n(a.out.at(e, h), a.out.shape[2], 0.0f);
        else
          std::copy_n(a.x.at(row, h), a.out.shape[2], a.out.at(e, h));
      }
  });
}

}  // namespace v0
}  // namespace ashlar
