// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/conv2d_weight.hpp"
#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/dense_weight.hpp"
#include "ashlar/core/parameters.hpp"
#include "ashlar/core/tensor.hpp"
#include "ashlar/ops/conv2d.hpp"
#include "ashlar/ops/dense.hpp"
#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {

// What modules and models own, for one execution context: nn/, residual/ and models/ name memory only through
// this, so that another context needs its specialisation and its ops, and no second model.
template <class Exec>
struct Backend;

template <>
struct Backend<CpuExec> {
  using Matrix = DenseWeight;
  using Vector = Tensor<float, 1>;
  template <class T, int Rank>
  using Array = Tensor<T, Rank>;
  using Filters = Conv2dWeight;
  using Dense = ashlar::Dense;
  using GatedDense = ashlar::GatedDense;
  using Conv2d = ashlar::Conv2dArgs;
  using RecurrentState = ashlar::RecurrentState;
  using LinearRecurrence = ashlar::LinearRecurrence;
  // Memory for what the host hands to an op: positions, lists of states.
  using HostScratch = CpuScratch;

  // While it lives, the last dense layer of a module (Dense::last) that writes y may also do h += y;
  // reached() says whether it did. Here none does.
  struct ResidualTarget {
    ResidualTarget(View<float, 2>, View<float, 2>, CpuExec&) {}
    bool reached() const { return false; }
  };

  // A weight [rows, columns] where the checkpoint has it; f16 and f64 become f32, and f32 is also packed for
  // prefill when `pack` is set.
  static Matrix matrix(const Parameter& p, Index rows, Index columns, bool pack, CpuExec& exec);
  // The filters [outputs, inputs / groups, kh, kw] of a convolution.
  static Filters filters(const Parameter& p, Index groups, CpuExec& exec);
  static Vector vector(Tensor<float, 1> values, CpuExec&) { return values; }

  // to = from: equal shapes, innermost axes contiguous. To bf16 it rounds to the nearest (even).
  static void copy(View<const float, 3> from, View<float, 3> to, CpuExec& exec);
  static void copy(View<const float, 3> from, View<bf16, 3> to, CpuExec& exec);
  static void copy(View<const bf16, 3> from, View<float, 3> to, CpuExec& exec);
  static void copy(View<const bf16, 3> from, View<bf16, 3> to, CpuExec& exec);
  // to = from: equal shapes, rows contiguous; both may be rows of one array.
  static void move(View<const float, 2> from, View<float, 2> to);
  static void move(View<const bf16, 2> from, View<bf16, 2> to);
  static void fill(View<float, 3> to, float value, CpuExec& exec);
  // Packed host memory, at any address, from and to a strided view.
  static void read(View<const float, 3> from, void* to);
  static void read(View<const bf16, 3> from, void* to);
  static void write(const void* from, View<float, 3> to);
  static void write(const void* from, View<bf16, 3> to);
};

// The elements as floats, on the host. Refused: other types than f32, bf16, f16 and f64.
Tensor<float, 1> to_floats(const Parameter& p);

// The elements of several tensors one behind another.
Tensor<float, 1> joined(const std::vector<Parameter>& parts);

}  // namespace v0
}  // namespace ashlar
