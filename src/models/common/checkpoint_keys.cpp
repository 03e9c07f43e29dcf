// SPDX-License-Identifier: Apache-2.0
#include "src/models/common/checkpoint_keys.hpp"

#include <algorithm>

namespace ashlar {
inline namespace v0 {
namespace {

// Takes what is before the next `separator` off `text`.
std::string_view next_part(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

bool matches_one(std::string_view pattern, std::string_view name) {
  while (!pattern.empty() && !name.empty()) {
    const std::string_view wanted = next_part(pattern, '.');
    if (wanted == "**") return true;
    if (const std::string_view part = next_part(name, '.'); wanted != "*" && wanted != part) return false;
  }
  return pattern.empty() && name.empty();
}

}  // namespace

bool matches(std::string_view pattern, std::string_view name) {
  while (!pattern.empty())
    if (matches_one(next_part(pattern, '|'), name)) return true;
  return false;
}

KeyDifference compare_keys(const CheckpointKeys& keys, std::span<const std::string> names) {
  KeyDifference d;
  std::vector<bool> met(keys.always.size(), false);
  for (const std::string& name : names) {
    bool known = false;
    for (std::size_t i = 0; i < met.size(); ++i)
      if (matches(keys.always[i], name)) known = met[i] = true;
    for (std::string_view pattern : keys.sometimes) known = known || matches(pattern, name);
    if (!known) d.unexpected.push_back(name);
  }
  for (std::size_t i = 0; i < met.size(); ++i)
    if (!met[i]) d.missing.emplace_back(keys.always[i]);
  if (names.empty() || met.empty()) return d;
  const auto share = [](std::size_t part, std::size_t all) {
    return static_cast<double>(all - part) / static_cast<double>(all);
  };
  d.likeness = share(d.missing.size(), met.size()) * share(d.unexpected.size(), names.size());
  return d;
}

}  // namespace v0
}  // namespace ashlar
