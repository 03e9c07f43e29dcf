// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ashlar/core/dtype.hpp"
#include "ashlar/io/safetensors.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

inline constexpr std::uint64_t kSafetensorsHeaderLimit = 100'000'000;

// The format's name of a type, and the type of a name. The writer's order is descending rank.
std::string_view safetensors_name(DType t);
int safetensors_rank(DType t);
std::optional<DType> safetensors_dtype(std::string_view name);

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::u8;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0, end = 0;  // from where the data begin
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // sorted by (begin, end)
  SafetensorsMetadata metadata;
  std::uint64_t data = 0;  // where the data begin in the file
};

// Reads and validates the header of a file; what SafetensorsFile promises.
SafetensorsHeader read_safetensors_header(const MappedFile& file);

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
