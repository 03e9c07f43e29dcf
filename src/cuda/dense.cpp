// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/dense.hpp"

#include "ashlar/core/dtype.hpp"
#include "ashlar/cuda/ops.hpp"
#include "src/cuda/launch.hpp"
#include "src/cuda/resources.hpp"

namespace ashlar {
inline namespace v0 {

DeviceWeight::DeviceWeight(AnyView<2> values, std::shared_ptr<const void> owner)
    : values_(values), owner_(std::move(owner)) {
  if (values.dtype != DType::f32 && values.dtype != DType::bf16)
    refuse("DeviceWeight", "the weight holds ", name(values.dtype), ", expected f32 or bf16");
  if (values.strides[1] != 1 && values.shape[1] > 1)
    refuse("DeviceWeight", "the weight has stride ", values.strides[1], " on its last axis, expected 1");
}

namespace {

constexpr std::string_view kOp = "dense";

void check(const DeviceDense& a) {
  if (!a.weight) refuse(kOp, "the weight is empty");
  const Index rows = a.weight.rows(), columns = a.weight.columns();
  expect_shape(kOp, "x", a.x, {a.x.shape[0], columns});
  expect_shape(kOp, "out", a.out, {a.x.shape[0], rows});
  if (a.bias) expect_shape(kOp, "bias", a.bias, {rows});
  if (a.residual) expect_shape(kOp, "residual", a.residual, a.out.shape);
}

bool is_bf16(const DeviceDense& a) { return a.weight.values().dtype == DType::bf16; }
bool empty(const DeviceDense& a) { return a.out.size() == 0; }
bool same_x(const DeviceDense& a, const DeviceDense& b) {
  return a.x.data == b.x.data && a.x.shape == b.x.shape && a.x.strides == b.x.strides;
}

// Products of f32, or of bf16 parts of x whose sum is x: one part, rounded, or three that are all of it.
void prefill(const DeviceDense& a, View<const bf16, 3> parts, CudaExec& exec) {
  cuda::MatmulPlans& plans = exec.resources().matmul_plans;
  const AnyView<2>& w = a.weight.values();
  cuda::MatmulPlans::Problem p{a.x.data,     w.data,           a.out.data, a.bias.data,
                               a.x.shape[0], w.shape[0],       w.shape[1], a.x.strides[0],
                               w.strides[0], a.out.strides[0], is_bf16(a), false};
  const Index count = p.is_bf16 ? parts.shape[0] : 1;
  for (Index i = 0; i < count; ++i) {
    if (p.is_bf16) p.x = parts.at(i), p.x_stride = parts.strides[1];
    p.accumulate = i > 0;
    if (i > 0) p.bias = nullptr;
    if (plans.run(p, exec)) continue;
    p.bias = nullptr;
    plans.run(p, exec);
    cuda::add_bias(a.bias, a.out, exec);
  }
}

}  // namespace

void dense(std::span<const DeviceDense> layers, CudaExec& exec) {
  for (const DeviceDense& a : layers) check(a);
  std::size_t i = 0;
  while (i < layers.size()) {
    const DeviceDense& first = layers[i];
    if (empty(first)) {
      ++i;
      continue;
    }
    const Index tokens = first.x.shape[0];
    const bool few = first.phase == Phase::decode && tokens <= cuda::kMostMatvecRows;
    // Neighbours that go the same way: decode in one launch, prefill with one rounding of x.
    std::size_t end = i + 1;
    while (end < layers.size() && !empty(layers[end]) && layers[end].phase == first.phase &&
           is_bf16(layers[end]) == is_bf16(first) && layers[end].x.shape[0] == tokens &&
           (few || same_x(layers[end], first)))
      ++end;
    const auto group = layers.subspan(i, end - i);
    i = end;
    if (exec.verbose())
      for (const DeviceDense& a : group)
        cuda::trace(exec, kOp,
                    few          ? "matvec"
                    : is_bf16(a) ? "cuBLASLt, bf16"
                                 : "cuBLASLt, f32",
                    to_string(std::array<Index, 3>{tokens, a.weight.rows(), a.weight.columns()}));
    if (few) {
      cuda::matvec(group, exec);
      continue;
    }
    CudaScratch scratch(exec);
    View<bf16, 3> parts;
    if (is_bf16(first)) {
      constexpr Index kStep = 8;  // rows at 16 bytes
      const Index columns = first.x.shape[1], stride = (columns + kStep - 1) / kStep * kStep;
      parts = scratch.get<bf16>(Index{exec.precision() == Precision::full ? 3 : 1}, tokens, stride)
                  .slice(2, 0, columns);
      cuda::split_to_bf16(first.x, parts, exec);
    }
    for (const DeviceDense& a : group) {
      prefill(a, parts, exec);
      if (a.residual) residual_add(ResidualAdd{a.out, a.residual}, exec);
    }
  }
}

void gated_dense(const DeviceGatedDense& a, CudaExec& exec) {
  const Index rows = a.x.shape[0];
  CudaScratch scratch(exec);
  const DeviceDense gate{a.x, a.gate, a.gate_bias, a.out, a.phase};
  const auto products = scratch.floats(rows, a.up.rows());
  const DeviceDense layers[] = {gate, {a.x, a.up, a.up_bias, products, a.phase}};
  for (const DeviceDense& layer : layers) check(layer);
  expect_shape("gated_dense", "out", a.out, {rows, a.up.rows()});
  if (empty(gate)) return;
  if (a.phase == Phase::decode && cuda::gated_matvec(gate, layers[1], a.activation, exec)) {
    cuda::trace(exec, "gated_dense", "matvec",
                to_string(std::array<Index, 3>{rows, a.up.rows(), a.up.columns()}));
    return;
  }
  dense(layers, exec);
  activate(Activate{a.out, products, a.out, a.activation}, exec);
}

void dense(const DeviceDense& args, CudaExec& exec) {
  DeviceDense layer = args;
  auto* const target = exec.resources().residual;
  const bool few = layer.phase == Phase::decode && layer.x.shape[0] <= cuda::kMostMatvecRows;
  if (layer.last && target != nullptr && few && !layer.residual) {
    check(layer);
    layer.residual = target->take(layer.out);
  }
  dense(std::span(&layer, 1), exec);
}

}  // namespace v0
}  // namespace ashlar
