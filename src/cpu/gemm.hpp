// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// The library's product of f32 matrices in memory, on one thread: oneDNN, or Eigen where that is absent.
// C [m, n] = A [m, k] B [k, n], row-major, packed. oneDNN chooses among kernels that add up in different
// orders by the strides, not by m: with packed matrices a row's result is the same bits for every m.
// (Measured, and tested.)
class Gemm {
 public:
  virtual ~Gemm() = default;
  // Any thread may call it, several at a time, each with `scratch` of its own, 64-byte aligned.
  virtual void multiply(const float* a, const float* b, float* c, void* scratch) const = 0;
  virtual Index scratch_bytes() const = 0;

  static std::shared_ptr<const Gemm> make(Index m, Index k, Index n);
  // "oneDNN", or the other one with the reason.
  static std::string_view library();
};

class Convolution;  // src/cpu/conv2d_library.hpp
struct ConvolutionShape;

// Products and convolutions by shape, made once a context.
class GemmCache {
 public:
  GemmCache();
  ~GemmCache();
  const Gemm& get(Index m, Index k, Index n);
  const Convolution* get(const ConvolutionShape& shape);  // null as Convolution::make

 private:
  struct Table;
  std::unique_ptr<Table> table_;
};

}  // namespace v0
}  // namespace ashlar
