// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/residual_add.hpp"

#include "src/core/op_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

namespace ashlar {
inline namespace v0 {

// Bound by memory: what the compiler makes of the loop is enough.
void residual_add(const ResidualAdd& a, CpuExec& exec) {
  check(a);
  trace(exec, "residual_add", "rows", to_string(a.x.shape));
  const Index dim = a.x.shape[1];
  parallel_rows(exec, a.x.shape[0], dim, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      const float* x = a.x.at(t);
      float* h = a.h.at(t);
      if (a.scale == 1 && a.keep == 1)
        for (Index i = 0; i < dim; ++i) h[i] += x[i];
      else
        for (Index i = 0; i < dim; ++i) h[i] = a.keep * h[i] + a.scale * x[i];
    }
  });
}

}  // namespace v0
}  // namespace ashlar
