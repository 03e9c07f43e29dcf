// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/safetensors.hpp"

#include <algorithm>
#include <numeric>

#include "ashlar/core/tensor.hpp"
#include "src/io/safetensors_header.hpp"

namespace ashlar {
inline namespace v0 {

SafetensorsFile::SafetensorsFile(MappedFile file) : file_(std::move(file)) {
  detail::SafetensorsHeader header = detail::read_safetensors_header(file_);
  metadata_ = std::move(header.metadata);
  entries_.reserve(header.entries.size());
  for (auto& e : header.entries)
    entries_.push_back({std::move(e.name),
                        e.dtype,
                        {e.shape.begin(), e.shape.end()},
                        header.data + e.begin,
                        e.end - e.begin});
  by_name_.resize(entries_.size());
  std::iota(by_name_.begin(), by_name_.end(), std::size_t{0});
  std::sort(by_name_.begin(), by_name_.end(),
            [&](std::size_t a, std::size_t b) { return entries_[a].name < entries_[b].name; });
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> all;
  all.reserve(entries_.size());
  for (const Entry& e : entries_) all.push_back(e.name);
  return all;
}

bool SafetensorsFile::find(std::string_view name, Parameter* into) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](std::size_t i, std::string_view n) { return entries_[i].name < n; });
  if (at == by_name_.end() || entries_[*at].name != name) return false;
  if (into == nullptr) return true;
  const Entry& e = entries_[*at];
  const std::byte* data = file_.data() + e.offset;
  const auto alignment = static_cast<std::uintptr_t>(bits(e.dtype) < 8 ? 1 : bits(e.dtype) / 8);
  if (reinterpret_cast<std::uintptr_t>(data) % alignment == 0) {
    *into = {data, e.dtype, e.shape, file_.owner()};
  } else {
    auto copy = aligned_copy(*at);
    const void* p = copy.get();
    *into = {p, e.dtype, e.shape, std::move(copy)};
  }
  return true;
}

std::shared_ptr<const void> SafetensorsFile::aligned_copy(std::size_t entry) const {
  const std::lock_guard lock(mutex_);
  std::weak_ptr<const void>& known = copies_[entry];
  if (auto copy = known.lock()) return copy;
  const Entry& e = entries_[entry];
  const std::shared_ptr<void> copy(detail::allocate(e.bytes), detail::release);
  file_.read(e.offset, e.bytes, copy.get());
  known = copy;
  return copy;
}

}  // namespace v0
}  // namespace ashlar
