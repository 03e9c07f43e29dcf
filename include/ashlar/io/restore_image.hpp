// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "ashlar/io/image.hpp"
#include "ashlar/models/tiled_restoration.hpp"

namespace ashlar {
inline namespace v0 {

// The restoration model of a checkpoint as its authors released it: a .pth, a .safetensors, or a Hugging Face
// directory. Settings that the tensors do not tell come from `config`, a JSON object, or else from the
// directory's config.json or the file's metadata. `level` is the dictionary inside of a .pth, as "params";
// empty: found by rule (PthFile::parameters()).
std::unique_ptr<RestorationModel<CpuExec>> open_restoration_model(const std::string& path, CpuExec& exec,
                                                                  std::string_view config = {},
                                                                  std::string_view level = {});

// A picture through a restoration model, by tiles: as many bits, channels with the same meaning, sides times
// the model's scale. A gray picture goes through a model of three channels as three equal ones, and their
// mean comes back; each colour of an RGB picture goes alone through a model of one channel. Alpha is enlarged
// by resize_image(). Memory beside the two pictures is bounded by the tile. Refused: models with other
// channels.
Image restore_image(const RestorationModel<CpuExec>& model, const Image& image, const TileOptions& options,
                    CpuExec& exec);

// Bicubic (PIL's kernel, a = -0.5) or by repetition, by whole factors: what the result may be compared with.
enum class Enlargement { nearest, bicubic };
Image resize_image(const Image& image, Index scale, Enlargement how, CpuExec& exec);

// 10 log10(1 / mean squared error) over all channels, with samples in [0, 1]; infinity for equal pictures.
double psnr(const Image& a, const Image& b);

}  // namespace v0
}  // namespace ashlar
