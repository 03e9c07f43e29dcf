// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/dense_weight.hpp"
#include "ashlar/ops/dense.hpp"

namespace ashlar {
inline namespace v0 {

void gated_dense(const GatedDense& a, CpuExec& exec) {
  const Index rows = a.x.shape[0];
  expect_shape("gated_dense", "out", a.out, {rows, a.up.rows()});
  CpuScratch scratch(exec);
  const auto products = scratch.floats(rows, a.up.rows());
  const Dense layers[] = {{a.x, a.gate, a.gate_bias, a.out, a.phase},
                          {a.x, a.up, a.up_bias, products, a.phase}};
  dense(layers, exec);
  activate(Activate{a.out, products, a.out, a.activation}, exec);
}

}  // namespace v0
}  // namespace ashlar
