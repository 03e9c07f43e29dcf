// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <type_traits>

#include "ashlar/core/view.hpp"

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace ashlar {
inline namespace v0 {

using CudaStream = CUstream_st*;

// How products of activations with weights, keys and values are made. Sums are f32 always.
enum class Precision : std::uint8_t {
  full,  // f32 activations, bf16 weights widened: the CPU's results but for the order of sums
  fast   // activations rounded to bf16 where a tensor core multiplies them with bf16
};

struct CudaOptions {
  int device = 0;
  CudaStream stream = nullptr;  // of that device; null: one of the context's own
  Precision precision = Precision::fast;
};

// Whether this build has the CUDA layer and this machine a device that it runs on (compute capability 8.0 and
// later). why: a sentence that says what is missing.
bool cuda_available(std::string* why = nullptr);

class CudaScratch;
class CudaHostScratch;

namespace detail {
struct CudaResources;  // stream, cuBLASLt, scratch memory, what is being recorded
}  // namespace detail

// Where CUDA ops run: a stream of one device, scratch memory, the library for dense layers. Not shared
// between threads. Arrays of numbers (View<float, ...>) are in the device's memory; lists of integers that
// say where things are (offsets, positions, ids, pages) are in the host's, as on the CPU, and are read before
// an op returns. Ops are queued: results are there after synchronize(), and an error of the device's is
// thrown there, or where the next op meets it. With ASHLAR_CUDA_SYNC=1 in the environment each op waits, so
// that the error names the op. Refused: Error("NoCuda") where there is no device or the build has no CUDA
// layer.
class CudaExec {
 public:
  using Scratch = CudaScratch;

  explicit CudaExec(const CudaOptions& options = {});
  CudaExec(CudaExec&&) noexcept;
  CudaExec& operator=(CudaExec&&) noexcept;
  ~CudaExec();

  CudaStream stream() const { return stream_; }
  Precision precision() const { return precision_; }
  int capability() const { return capability_; }  // 80, 90, ...
  int multiprocessors() const { return processors_; }
  bool verbose() const { return verbose_; }
  // Waits for all that was queued. Error("CudaError").
  void synchronize();

  // For the ops.
  detail::CudaResources& resources() { return *resources_; }

 private:
  CudaStream stream_ = nullptr;
  Precision precision_ = Precision::fast;
  int capability_ = 0, processors_ = 0;
  bool verbose_ = false;
  detail::CudaResources* resources_ = nullptr;  // owned
};

// Scratch memory on the device, given back at the end of the scope, in the order of the stream: as
// CpuScratch.
class CudaScratch {
 public:
  explicit CudaScratch(CudaExec& exec);
  ~CudaScratch();
  CudaScratch(const CudaScratch&) = delete;
  CudaScratch& operator=(const CudaScratch&) = delete;

  template <class T, class... Extents>
  View<T, sizeof...(Extents)> get(Extents... extents) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::array<Index, sizeof...(Extents)> shape{static_cast<Index>(extents)...};
    Index n = 1;
    for (Index e : shape) n *= e;
    return {static_cast<T*>(bytes(n * static_cast<Index>(sizeof(T)))), shape};
  }
  template <class... Extents>
  View<float, sizeof...(Extents)> floats(Extents... extents) {
    return get<float>(extents...);
  }

 private:
  void* bytes(Index n);
  detail::CudaResources& resources_;
  std::size_t block_, used_;
};

// The same in host memory, for lists that ops read.
class CudaHostScratch {
 public:
  explicit CudaHostScratch(CudaExec& exec);
  ~CudaHostScratch();
  CudaHostScratch(const CudaHostScratch&) = delete;
  CudaHostScratch& operator=(const CudaHostScratch&) = delete;

  template <class T, class... Extents>
  View<T, sizeof...(Extents)> get(Extents... extents) {
    static_assert(std::is_trivially_destructible_v<T>);
    const std::array<Index, sizeof...(Extents)> shape{static_cast<Index>(extents)...};
    Index n = 1;
    for (Index e : shape) n *= e;
    return {static_cast<T*>(bytes(n * static_cast<Index>(sizeof(T)))), shape};
  }

 private:
  void* bytes(Index n);
  detail::CudaResources& resources_;
  std::size_t block_, used_;
};

}  // namespace v0
}  // namespace ashlar
