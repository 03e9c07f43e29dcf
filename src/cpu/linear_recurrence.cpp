// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/linear_recurrence.hpp"
namespace ashlar {
inline namespace v0 {
void linear_recurrence(const LinearRecurrence& a, CpuExec&) {
  const Index n = a.offsets.count(), h = a.v.shape[1], dk = a.k.shape[2], dv = a.v.shape[2];
  Tensor<float, 4> s({n, h, dk, dv});
  for (Index i = 0; i < n && !a.states.empty(); ++i) a.states[i]->export_to(s.view()[i]);
  ref::linear_recurrence<float>(a, s.view());
  for (Index i = 0; i < n && !a.states.empty(); ++i) a.states[i]->import_from(s.view()[i]);
}
}  // namespace v0
}  // namespace ashlar
