// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <compare>
#include <memory>

#include "src/cpu/conv2d.hpp"

namespace ashlar {
inline namespace v0 {

// Of some rows of an image: [in..., inputs] -> [out..., outputs], both packed. Of the two axes, rows first.
struct ConvolutionShape {
  Index inputs = 0, outputs = 0, groups = 1;
  std::array<Index, 2> in{}, out{}, kernel{}, stride{}, dilation{};
  std::array<Index, 2> before{}, after{};  // zeros on both sides
  bool bias = false;
  auto operator<=>(const ConvolutionShape&) const = default;
};

// The library's convolution of f32 maps, on one thread, with its bias: oneDNN.
class Convolution {
 public:
  virtual ~Convolution() = default;
  // Any thread may call it, several at a time, each with `scratch` of its own, 64-byte aligned.
  virtual void run(const float* x, const float* filters, const float* bias, float* out,
                   void* scratch) const = 0;
  virtual Index scratch_bytes() const = 0;
  // The filters in the order for run(); they live as long as the weight.
  virtual const float* filters(const Conv2dWeight& weight) const = 0;

  // Null: the library is not in this build, or has nothing but its reference implementation for this shape.
  static std::shared_ptr<const Convolution> make(const ConvolutionShape& shape);
};

// Null: the library is not in this build.
std::shared_ptr<LibraryFilters> make_library_filters();

// Rows of the output, and what works them out.
struct ConvolutionTile {
  const Convolution* convolution;
  const float* filters;
  Index top, rows;          // of the output
  Index first_row, height;  // of the input
};

// The tiles of an image; they depend on its shape alone. None: the kernel of this project does it, for the
// reason given.
struct ConvolutionPlan {
  View<ConvolutionTile, 1> tiles;
  std::string_view reason;
};

ConvolutionPlan plan_convolution(const Conv2dArgs& args, CpuExec& exec, CpuScratch& scratch);
void conv2d_library(const Conv2dArgs& args, const ConvolutionPlan& plan, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
