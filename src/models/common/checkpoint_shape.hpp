// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <vector>

#include "ashlar/core/value.hpp"
#include "ashlar/nn/parameter_reader.hpp"

namespace ashlar {
inline namespace v0 {

// What the tensors of a checkpoint say of its model: which there are, and their extents. Nothing where
// tensors are made to measure; the configuration then says it all.
class CheckpointShape {
 public:
  explicit CheckpointShape(const Parameters& parameters);

  bool known() const { return known_; }
  bool contains(const Names& names) const;
  std::optional<Index> extent(const Names& names, std::size_t axis) const;
  std::optional<Index> elements(const Names& names) const;
  // How many of "<prefix>.0.", "<prefix>.1.", ... begin the name of a tensor.
  std::optional<Index> count(std::string_view prefix) const;

 private:
  std::optional<Parameter> find(const Names& names) const;

  const Parameters* parameters_;
  bool known_;
};

using Keys = std::initializer_list<std::string_view>;  // spellings of one setting

// The setting, or null when it is absent or null.
const Value* setting(const Value& config, Keys keys);
// A positive integer that the checkpoint shows, or else the configuration, or else the default. Error(
// "InvalidConfig") when there is none, or when both speak and differ; `what` says where it was seen.
Index agreed(const Value& config, Keys keys, std::optional<Index> seen, std::string_view what,
             std::optional<Index> otherwise = {});
// The same of a list with an entry for each of `seen`; without these the configuration decides.
std::vector<Index> agreed_list(const Value& config, Keys keys, const std::vector<std::optional<Index>>& seen,
                               std::string_view what);
// int(width * ratio), where the configuration has the ratio.
Index agreed_width(const Value& config, Keys ratio, Index width, std::optional<Index> seen,
                   std::string_view what, double otherwise);
// The window of a table with (2 w - 1)^2 rows.
std::optional<Index> window_of_table(std::optional<Index> rows);
// Error("UnsupportedConfig") unless the setting is absent, null or `expected`.
void expect_setting(const Value& config, std::string_view key, const Value& expected);

}  // namespace v0
}  // namespace ashlar
