// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ashlar {
inline namespace v0 {

// The names of the tensors of an architecture's checkpoints, as patterns: "*" is one part of a name between
// dots, "**" at the end is all that follows, and spellings that are alternatives stand beside each other with
// "|". `always`: some tensor of every checkpoint matches; `sometimes`: there may be tensors that match.
struct CheckpointKeys {
  std::span<const std::string_view> always, sometimes;
  bool empty() const { return always.empty(); }
};

bool matches(std::string_view pattern, std::string_view name);

// How the names of a checkpoint differ from those of an architecture.
struct KeyDifference {
  std::vector<std::string> missing;     // patterns
  std::vector<std::string> unexpected;  // names
  double likeness = 0;                  // 1: no difference, 0: nothing in common
};
KeyDifference compare_keys(const CheckpointKeys& keys, std::span<const std::string> names);

}  // namespace v0
}  // namespace ashlar
