// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/dense.hpp"
namespace ashlar {
inline namespace v0 {
DenseWeight::DenseWeight(AnyView<2> values, std::shared_ptr<const void> owner) : values_(values), owner_(std::move(owner)) {}
void DenseWeight::pack(CpuExec&) {}
void dense(const Dense& a, CpuExec&) {
  for (Index m = 0; m < a.out.shape[0]; ++m)
    for (Index n = 0; n < a.out.shape[1]; ++n) {
      float sum = a.bias ? a.bias(n) : 0;
      for (Index k = 0; k < a.x.shape[1]; ++k)
        sum += a.x(m, k) * (a.weight.values().dtype == DType::f32 ? a.weight.values().as<float>()(n, k) : float(a.weight.values().as<bf16>()(n, k)));
      a.out(m, n) = sum;
    }
}
}  // namespace v0
}  // namespace ashlar
