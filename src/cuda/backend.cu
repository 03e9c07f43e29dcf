// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/backend.hpp"

#include "src/cuda/resources.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 256;

template <class From, class To, int kVector>
__global__ void __launch_bounds__(kThreads) copy_elements(View<const From, 3> from, View<To, 3> to) {
  let_next_start();
  wait_for_previous();
  const Index heads = from.shape[1], groups = from.shape[2] / kVector, all = from.shape[0] * heads * groups;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<Index>(gridDim.x) * kThreads) {
    const Index row = i / groups, t = row / heads, h = row % heads, c = i % groups * kVector;
    store<kVector>(to.data + t * to.strides[0] + h * to.strides[1] + c,
                   load<kVector>(from.data + t * from.strides[0] + h * from.strides[1] + c));
  }
}

__global__ void __launch_bounds__(kThreads) fill_elements(View<float, 3> to, float value) {
  let_next_start();
  wait_for_previous();
  const Index heads = to.shape[1], dim = to.shape[2], all = to.shape[0] * heads * dim;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<Index>(gridDim.x) * kThreads)
    to.data[i / dim / heads * to.strides[0] + i / dim % heads * to.strides[1] + i % dim] = value;
}

LaunchShape shape_for(const CudaExec& exec, Index items) {
  return {std::min(static_cast<unsigned>(exec.multiprocessors()) * 8, blocks(items, kThreads)), kThreads};
}

template <class From, class To>
void copy(View<const From, 3> from, View<To, 3> to, CudaExec& exec) {
  expect_shape("copy", "to", to, from.shape);
  if (from.size() == 0) return;
  if (by_four(from) && by_four(to))
    launch(exec, "copy", copy_elements<From, To, 4>, shape_for(exec, from.size() / 4), from, to);
  else
    launch(exec, "copy", copy_elements<From, To, 1>, shape_for(exec, from.size()), from, to);
}

// Rows [t][h] of packed host memory from or to a strided view.
template <class T, bool kRead>
void transfer(View<T, 3> device, std::conditional_t<kRead, void*, const void*> host) {
  if (device.size() == 0) return;
  const auto [tokens, heads, dim] = device.shape;
  const std::size_t row = sizeof(T) * static_cast<std::size_t>(dim);
  check_cuda(cudaDeviceSynchronize(), "copy");
  for (Index h = 0; h < heads; ++h) {  // a head's rows lie evenly apart on both sides
    const std::size_t pitch = row * static_cast<std::size_t>(heads),
                      device_pitch = sizeof(T) * static_cast<std::size_t>(device.strides[0]);
    auto* const at = device.at(0, h);
    const std::size_t skip = row * static_cast<std::size_t>(h);
    if constexpr (kRead)
      check_cuda(
          cudaMemcpy2D(static_cast<std::byte*>(host) + skip, pitch, at, tokens > 1 ? device_pitch : row, row,
                       static_cast<std::size_t>(tokens), cudaMemcpyDeviceToHost),
          "copy");
    else
      check_cuda(cudaMemcpy2D(at, tokens > 1 ? device_pitch : row, static_cast<const std::byte*>(host) + skip,
                              pitch, row, static_cast<std::size_t>(tokens), cudaMemcpyHostToDevice),
                 "copy");
  }
  check_cuda(cudaDeviceSynchronize(), "copy");
}

// Rows may overlap: through memory of its own.
template <class T>
void move(View<const T, 2> from, View<T, 2> to) {
  expect_shape("move", "to", to, from.shape);
  if (from.size() == 0) return;
  const auto [rows, dim] = from.shape;
  const std::size_t row = sizeof(T) * static_cast<std::size_t>(dim), n = static_cast<std::size_t>(rows);
  auto pitch = [&](Index stride) { return rows > 1 ? sizeof(T) * static_cast<std::size_t>(stride) : row; };
  DeviceTensor<T, 2> between(from.shape);
  check_cuda(
      cudaMemcpy2D(between.data(), row, from.data, pitch(from.strides[0]), row, n, cudaMemcpyDeviceToDevice),
      "move");
  check_cuda(
      cudaMemcpy2D(to.data, pitch(to.strides[0]), between.data(), row, row, n, cudaMemcpyDeviceToDevice),
      "move");
  check_cuda(cudaDeviceSynchronize(), "move");
}

}  // namespace
}  // namespace cuda

Backend<CudaExec>::ResidualTarget::ResidualTarget(View<float, 2> y, View<float, 2> h, CudaExec& exec)
    : y_(y), h_(h), exec_(&exec), outer_(exec.resources().residual) {
  exec.resources().residual = this;
}
Backend<CudaExec>::ResidualTarget::~ResidualTarget() { exec_->resources().residual = outer_; }

View<float, 2> Backend<CudaExec>::ResidualTarget::take(View<float, 2> y) {
  if (reached_ || y.data != y_.data || y.shape != y_.shape || y.strides != y_.strides) return {};
  reached_ = true;
  return h_;
}

DeviceWeight Backend<CudaExec>::matrix(const Parameter& p, Index rows, Index columns, bool, CudaExec&) {
  auto on_device = [&]<class T>(View<const T, 2> host) {
    auto values = std::make_shared<const DeviceTensor<T, 2>>(host);
    return DeviceWeight(AnyView<2>(values->view()), values);
  };
  if (p.dtype == DType::f32)
    return on_device(View<const float, 2>(static_cast<const float*>(p.data), {rows, columns}));
  if (p.dtype == DType::bf16)
    return on_device(View<const bf16, 2>(static_cast<const bf16*>(p.data), {rows, columns}));
  const Tensor<float, 1> wide = to_floats(p);
  return on_device(View<const float, 2>(wide.data(), {rows, columns}));
}

DeviceTensor<float, 1> Backend<CudaExec>::vector(Tensor<float, 1> values, CudaExec&) {
  return values ? DeviceTensor<float, 1>(std::as_const(values).view()) : DeviceTensor<float, 1>();
}

void Backend<CudaExec>::copy(View<const float, 3> from, View<float, 3> to, CudaExec& exec) {
  cuda::copy(from, to, exec);
}
void Backend<CudaExec>::copy(View<const float, 3> from, View<bf16, 3> to, CudaExec& exec) {
  cuda::copy(from, to, exec);
}
void Backend<CudaExec>::copy(View<const bf16, 3> from, View<float, 3> to, CudaExec& exec) {
  cuda::copy(from, to, exec);
}
void Backend<CudaExec>::copy(View<const bf16, 3> from, View<bf16, 3> to, CudaExec& exec) {
  cuda::copy(from, to, exec);
}
void Backend<CudaExec>::fill(View<float, 3> to, float value, CudaExec& exec) {
  if (to.size() != 0) launch(exec, "fill", cuda::fill_elements, cuda::shape_for(exec, to.size()), to, value);
}

void Backend<CudaExec>::move(View<const float, 2> from, View<float, 2> to) { cuda::move(from, to); }
void Backend<CudaExec>::move(View<const bf16, 2> from, View<bf16, 2> to) { cuda::move(from, to); }
void Backend<CudaExec>::read(View<const float, 3> from, void* to) {
  cuda::transfer<const float, true>(from, to);
}
void Backend<CudaExec>::read(View<const bf16, 3> from, void* to) {
  cuda::transfer<const bf16, true>(from, to);
}
void Backend<CudaExec>::write(const void* from, View<float, 3> to) { cuda::transfer<float, false>(to, from); }
void Backend<CudaExec>::write(const void* from, View<bf16, 3> to) { cuda::transfer<bf16, false>(to, from); }

}  // namespace v0
}  // namespace ashlar
