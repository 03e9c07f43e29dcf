// SPDX-License-Identifier: Apache-2.0
// How ops start kernels and copies: through these, so that a graph can record them and an error names its op.
#pragma once
#include <cuda_runtime.h>

#include <array>
#include <functional>
#include <span>
#include <tuple>
#include <type_traits>

#include "ashlar/cuda/cuda_exec.hpp"

namespace ashlar {
inline namespace v0 {

// Throws Error("CudaError") with the op's name and CUDA's sentence.
void check_cuda(cudaError_t status, const char* op);

struct LaunchShape {
  dim3 grid, block;
  std::size_t shared = 0;  // dynamic shared memory, bytes; may exceed 48 KiB
  // The kernel may start while the one before it ends: it calls wait_for_previous() before it reads what
  // another kernel wrote and before it writes anything.
  bool overlaps = true;
  dim3 cluster = {1, 1, 1};
};

namespace detail {
void launch_kernel(CudaExec& exec, const char* op, const void* kernel, const LaunchShape& shape,
                   std::span<void* const> arguments, std::span<const std::size_t> sizes);
}  // namespace detail

// Queues kernel(arguments...). An empty grid is no launch.
template <class... P>
void launch(CudaExec& exec, const char* op, void (*kernel)(P...), const LaunchShape& shape,
            std::type_identity_t<P>... arguments) {
  void* const pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  static constexpr std::size_t sizes[] = {sizeof(arguments)...};
  detail::launch_kernel(exec, op, reinterpret_cast<const void*>(kernel), shape, pointers, sizes);
}

// Queues work of a library, `call`, which is what it is as long as `signature` (all pointers and sizes that
// it is given) stays the same.
void launch_call(CudaExec& exec, const char* op, std::span<const std::byte> signature,
                 const std::function<void()>& call);
template <class Signature>
void launch_call(CudaExec& exec, const char* op, const Signature& signature,
                 const std::function<void()>& call) {
  static_assert(std::has_unique_object_representations_v<Signature>, "padding would differ");
  launch_call(exec, op, std::span<const std::byte>(std::as_bytes(std::span(&signature, 1))), call);
}

// Queues a copy to the device of a list in host memory, which is free to change when this returns; `to` is
// device memory.
void upload(CudaExec& exec, const char* op, const void* host, std::size_t bytes, void* to);

// Copies from the device and waits for it in the middle of an op, whose step then cannot be recorded.
void download(CudaExec& exec, const char* op, const void* from, std::size_t bytes, void* host);

namespace cuda {
// Prints what runs, where that is asked for (ASHLAR_VERBOSE).
void trace(const CudaExec& exec, std::string_view op, std::string_view kernel, const std::string& shape);
}  // namespace cuda

// A list of a kernel's argument: a few elements inside the argument itself, more in device memory that
// `scratch` has.
template <class T, int kFew>
struct ArgumentList {
  static_assert(std::is_trivially_copyable_v<T>);
  const T* many = nullptr;
  T few[kFew] = {};
  __host__ __device__ const T& operator[](Index i) const { return many != nullptr ? many[i] : few[i]; }
};
template <int kFew, class T, class Element>
ArgumentList<T, kFew> argument_list(CudaExec& exec, const char* op, Index n, CudaScratch& scratch,
                                    Element&& element) {
  ArgumentList<T, kFew> list;
  if (n <= kFew) {
    for (Index i = 0; i < n; ++i) list.few[i] = element(i);
    return list;
  }
  CudaHostScratch host(exec);
  const auto all = host.get<T>(n);
  for (Index i = 0; i < n; ++i) all.data[i] = element(i);
  const auto there = scratch.get<T>(n);
  upload(exec, op, all.data, sizeof(T) * static_cast<std::size_t>(n), there.data);
  list.many = there.data;
  return list;
}

#ifdef __CUDACC__
// See LaunchShape::overlaps. All threads call it first, or after reading weights alone.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel start as far as it may before its wait_for_previous().
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#endif

}  // namespace v0
}  // namespace ashlar
