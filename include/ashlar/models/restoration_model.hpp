// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ashlar/core/value.hpp"
#include "ashlar/nn/parameter_reader.hpp"

namespace ashlar {
inline namespace v0 {

// How an image is made to fit a network that works on whole windows; the result is cropped.
enum class RaggedImage : std::uint8_t {
  reflect,    // right and below to the next multiple, the edge not repeated: as the authors' models do it
  symmetric,  // to the next larger multiple, the edge repeated, at least one pixel: as their test scripts do
};

// What a restoration model says of itself.
struct RestorationInfo {
  std::string architecture;  // "SwinIR"
  Index scale = 1, in_channels = 3, out_channels = 3;
  Index multiple = 1;   // sides that the network works on are multiples of this, after padding
  Index smallest = 1;   // and at least this
  bool global = false;  // a part sees the whole image (pooling, attention over all): tiles change the result
  RaggedImage ragged = RaggedImage::reflect;
  Index floats_per_pixel = 0;  // of scratch memory, for each pixel of the padded input
  Index parameters = 0;
};

// A network that makes an image from an image: super-resolution, denoising, removal of compression artifacts.
// Const after loading and shared between threads, each with its own execution context. Results do not depend
// on the number of threads or on the other images of a call.
template <class Exec>
class RestorationModel {
 public:
  using Size = std::array<Index, 2>;  // rows, columns

  explicit RestorationModel(RestorationInfo info) : info_(std::move(info)) {}
  virtual ~RestorationModel() = default;

  const RestorationInfo& info() const { return info_; }
  // Before the model is shared.
  void set_ragged(RaggedImage ragged) { info_.ragged = ragged; }
  Index scale() const { return info_.scale; }
  // The size that an image of this size has when it is padded.
  Size padded(Size image) const;
  // The scratch memory that run() takes for one image of this size, without what each thread has for itself.
  Index scratch_bytes(Size image) const {
    const Size p = padded(image);
    return p[0] * p[1] * info_.floats_per_pixel * static_cast<Index>(sizeof(float));
  }

  // image [N, H, W, in_channels] of any size, in [0, 1]; out [N, scale H, scale W, out_channels], not
  // clamped. Reflection by more than the side, which the authors refuse, goes back and forth; one pixel is
  // repeated. Refused: shapes that differ, an empty image.
  void run(View<const float, 4> image, View<float, 4> out, Exec& exec) const;

  // The same of an image of which both sides fit. `out` is the part of the result, from the top left corner,
  // that is wanted.
  virtual void forward(View<const float, 4> image, View<float, 4> out, Exec& exec) const = 0;

 private:
  RestorationInfo info_;
};

extern template class RestorationModel<CpuExec>;

// What the caller says of a model beside its checkpoint.
struct RestorationOptions {
  std::string architecture;           // "SwinIR", ...: the checkpoint must be of this one; empty: any
  std::optional<RaggedImage> ragged;  // instead of the architecture's own
};

// The restoration model of a checkpoint, recognised by the names of its tensors. Widths, depths, heads, the
// window, the scale and the kind of reconstruction are read off the tensors' shapes; `config` (null, or an
// object with the authors' names of the settings) says what they do not tell, such as "img_range", and is
// refused where it contradicts them: Error("InvalidConfig"). Error("UnknownModel"): the checkpoint is of
// another architecture; the sentence names tensors that are missing or unexpected, and the model that it
// looks like. Random weights (ParameterSource) need options.architecture and a whole configuration.
std::unique_ptr<RestorationModel<CpuExec>> load_restoration_model(const Value& config,
                                                                  const Parameters& parameters, CpuExec& exec,
                                                                  const RestorationOptions& options = {});

// The architectures that load_restoration_model knows.
std::vector<std::string> restoration_architectures();

}  // namespace v0
}  // namespace ashlar
