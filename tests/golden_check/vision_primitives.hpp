// SPDX-License-Identifier: Apache-2.0
// Images of golden files, which have channels before pixels.
#pragma once
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {

// [N, H, W, C] from [N, C, H, W]; [N, C, T] is an image of T rows.
Tensor<float, 4> image(const Parameters& file, const std::string& name);
// [N, C, H, W] again, flat.
Tensor<float, 1> channels_first(const Tensor<float, 4>& image);
// Any four axes as they are, such as a convolution's filters.
Tensor<float, 4> filters(const Parameters& file, const std::string& name);

// One entry of vision-primitives: input.<name>.*, output.<name>, and its configuration.
struct VisionCase {
  const Parameters& file;
  const std::string name;
  const Value& config;
  Report& report;
  CpuExec& exec;

  std::string input(const char* what) const { return concat("input.", name, ".", what); }
  void compare(const std::string& output, const float* got, Index count) const;
  void compare(const Tensor<float, 4>& got) const;
};

// Each tells whether it knew the entry.
bool check_convolution(const VisionCase& c);
bool check_folding(const VisionCase& c);
bool check_map_operation(const VisionCase& c);

}  // namespace ashlar::golden
