// SPDX-License-Identifier: Apache-2.0
// efficient-attention-zoo.safetensors: a translation unit registers the checks of the mechanisms that it
// knows.
#pragma once
#include <set>

#include "ashlar/nn/mixers/efficient_attention.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {

// A tensor of the golden with its shape.
struct ZooTensor {
  Tensor<float, 1> values;
  std::vector<Index> shape;

  explicit operator bool() const { return static_cast<bool>(values); }
  Index extent(std::size_t axis) const { return shape.at(axis); }
  // [B, L, H, D] as packed tokens, [B, L, C] likewise; a matrix.
  View<const float, 3> tokens_heads() const {
    return {values.data(), {extent(0) * extent(1), extent(2), extent(3)}};
  }
  View<const float, 2> tokens() const { return {values.data(), {extent(0) * extent(1), extent(2)}}; }
  View<const float, 2> matrix() const { return {values.data(), {extent(0), extent(1)}}; }
};

class Zoo {
 public:
  Zoo(std::shared_ptr<const SafetensorsFile> file, std::string slug, Report& report);

  const Value& config() const { return config_; }
  const Parameters& file() const { return *file_; }
  std::shared_ptr<const SafetensorsFile> shared_file() const { return file_; }
  bool has(const std::string& name) const { return file_->contains("output." + name); }
  // "input.<name>" and the like, by the whole name.
  ZooTensor tensor(const std::string& name) const;
  // Offsets of `sequences` sequences of `length` tokens.
  static std::vector<Index> offsets(Index sequences, Index length);
  // Compares with output.<name>, within an operation's bound.
  void compare(const std::string& name, const float* got, Index count);
  // Runs an attention on the packed q, k, v [B, L, H, D] of the golden, and compares. q and k may be empty.
  void run(const std::string& name, const EfficientAttention<CpuExec>& attention, const ZooTensor& q,
           const ZooTensor& k, const ZooTensor& v, const ZooTensor& x = {});
  // What was not compared is reported as skipped.
  void skip_the_rest();

  CpuExec exec;

 private:
  std::shared_ptr<const SafetensorsFile> file_;
  std::string slug_;
  Report& report_;
  Value config_;
  std::set<std::string> done_;
};

using ZooCheck = void (*)(Zoo& zoo);
std::vector<ZooCheck>& zoo_checks();

struct ZooRegistration {
  explicit ZooRegistration(ZooCheck check) { zoo_checks().push_back(check); }
};

}  // namespace ashlar::golden
