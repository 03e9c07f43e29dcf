// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>

#include "ashlar/core/any_view.hpp"
#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

class LibraryFilters;  // what oneDNN keeps; src/cpu/conv2d_onednn.cpp

// The filters of a 2-D convolution, kept in the order that the kernels read; the caller's memory is not
// needed any more. bf16 is widened, once.
class Conv2dWeight {
 public:
  Conv2dWeight() = default;
  // filters [outputs, inputs / groups, kh, kw], f32 or bf16, packed, at any address. Refused: other element
  // types, groups that do not divide the outputs, an empty extent.
  Conv2dWeight(AnyView<4> filters, Index groups, CpuExec& exec);

  Index outputs() const { return outputs_; }
  Index inputs() const { return inputs_; }
  Index groups() const { return groups_; }
  std::array<Index, 2> kernel() const { return kernel_; }
  explicit operator bool() const { return static_cast<bool>(packed_); }

  // For the kernels: how the convolution is worked out, and the filters in the order for that.
  //   dense      by the library, or, without it, blocks of pixels by vectors of outputs
  //   products   few outputs: a product with each pixel, whose parts are then added up where they belong
  //   channels   depthwise: channel by channel
  enum class Form : std::uint8_t { dense, products, channels };
  Form form() const { return form_; }
  const Tensor<float, 1>& packed() const { return packed_; }
  // Of the dense form: the filters once more, in the orders that the library asks for; each is made when a
  // shape of image first needs it. Any thread may ask. Null without the library.
  LibraryFilters* library() const { return library_.get(); }

 private:
  Index outputs_ = 0, inputs_ = 0, groups_ = 1;
  std::array<Index, 2> kernel_{};
  Form form_ = Form::dense;
  Tensor<float, 1> packed_;
  std::shared_ptr<LibraryFilters> library_;
};

}  // namespace v0
}  // namespace ashlar
