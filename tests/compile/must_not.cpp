// SPDX-License-Identifier: Apache-2.0
// Mistakes that the compiler must find; must_not.sh compiles this file once a case.
#include <ashlar/ashlar.hpp>

using namespace ashlar;

void accepted(const Tensor<float, 2>& weights, Tensor<float, 2>& t, CpuExec& exec) {
  const View<const float, 2> read = t.view();
  const View<float, 3> heads = t.view().split(1, 4);
  (void)weights.view()(0, 0), (void)read[0], (void)heads(0, 0, 0);
  rms_norm({.x = heads, .weight = {}, .out = heads}, exec);
}

#ifdef CONST_VIEW_TO_MUTABLE
void f(View<const float, 2> v) {
  View<float, 2> w = v;  // error: CONST_VIEW_TO_MUTABLE
}
#endif
#ifdef CONST_TENSOR_TO_MUTABLE_VIEW
void f(const Tensor<float, 2>& t) {
  View<float, 2> w = t.view();  // error: CONST_TENSOR_TO_MUTABLE_VIEW
}
#endif
#ifdef WRONG_RANK
void f(View<float, 2> v, CpuExec& exec) {
  rms_norm({.x = v, .weight = {}, .out = v}, exec);  // error: WRONG_RANK
}
#endif
#ifdef WRONG_ELEMENT_TYPE
void f(View<double, 3> v, CpuExec& exec) {
  rms_norm({.x = v, .weight = {}, .out = v}, exec);  // error: WRONG_ELEMENT_TYPE
}
#endif
#ifdef OUTPUT_IS_CONST
void f(View<const float, 3> v, CpuExec& exec) {
  rms_norm({.x = v, .weight = {}, .out = v}, exec);  // error: OUTPUT_IS_CONST
}
#endif
#ifdef TOO_FEW_INDICES
float f(View<float, 3> v) {
  return v(0, 0);  // error: TOO_FEW_INDICES
}
#endif
#ifdef ROW_OF_A_VECTOR
float* f(View<float, 1> v) {
  return v[0].data;  // error: ROW_OF_A_VECTOR
}
#endif
#ifdef CONST_CONTEXT
void f(View<float, 3> v, const CpuExec& exec) {
  rms_norm({.x = v, .weight = {}, .out = v}, exec);  // error: CONST_CONTEXT
}
#endif
#ifdef COPIED_CONTEXT
CpuExec f(const CpuExec& exec) {
  return exec;  // error: COPIED_CONTEXT
}
#endif
#ifdef TENSOR_OF_STRINGS
void f() {
  Tensor<std::string, 1> t({3});  // error: TENSOR_OF_STRINGS
}
#endif
#ifdef SILENT_BF16
bf16 f(float x) {
  return x;  // error: SILENT_BF16
}
#endif
