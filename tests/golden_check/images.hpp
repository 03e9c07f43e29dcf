// SPDX-License-Identifier: Apache-2.0
// Images of golden files: theirs are [N, C, H, W], ours [N, H, W, C].
#pragma once
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {

// A tensor [N, C, H, W] of a golden file, or tokens [N, H W, C] of an image of this size, as [N, H, W, C].
Tensor<float, 4> image_of(const Parameters& golden, const std::string& name);
Tensor<float, 4> tokens_of(const Parameters& golden, const std::string& name, std::array<Index, 2> size);

// Against a tensor [N, C, H, W], or [N, H W, C] where the golden's has three axes.
void compare_image(const std::string& slug, const std::string& name, View<const float, 4> got,
                   const Parameters& golden, double bound, Report& report);

// Golden files whose runner is named by their stem: X.safetensors, X_denoise.safetensors, ...
bool is_golden(const Path& path, std::initializer_list<const char*> stems);

// "config" of a golden's metadata.
Value config_of(const SafetensorsFile& file);

// A golden of a restoration model: input.lq or input.pixel_values through load_restoration_model(), and
// output.sr or output.reconstruction of it.
void check_restoration(const std::string& slug, const std::string& architecture, const Value& config,
                       const Parameters& weights, const Parameters& golden, Report& report);

}  // namespace ashlar::golden
