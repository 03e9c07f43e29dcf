// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/io/pending_file.hpp"
#include "src/io/safetensors_header.hpp"
#include "src/io/utf8.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr std::string_view kOp = "write_safetensors";

std::string quoted(std::string_view what, const std::string& text) {
  if (detail::find_invalid_utf8(text) != text.size()) refuse(kOp, what, " is not UTF-8");
  return nlohmann::json(text).dump();
}

std::uint64_t byte_count(const std::string& name, const Parameter& p) {
  std::uint64_t total = static_cast<std::uint64_t>(bits(p.dtype));
  for (const Index e : p.shape) {
    if (e < 0) refuse(kOp, "the tensor \"", name, "\" has the extent ", e);
    if (__builtin_mul_overflow(total, static_cast<std::uint64_t>(e), &total))
      refuse(kOp, "the shape of the tensor \"", name, "\" overflows");
  }
  if (total % 8 != 0)
    refuse(kOp, "the tensor \"", name, "\" has ", total, " bits, which are not whole bytes");
  if (total != 0 && p.data == nullptr) refuse(kOp, "the tensor \"", name, "\" has no data");
  return total / 8;
}

using Tensors = std::vector<const std::pair<std::string, Parameter>*>;

Tensors in_file_order(const std::vector<std::pair<std::string, Parameter>>& tensors) {
  Tensors all;
  for (const auto& t : tensors) all.push_back(&t);
  std::sort(all.begin(), all.end(), [](auto* a, auto* b) { return a->first < b->first; });
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i]->first == "__metadata__") refuse(kOp, "no tensor can have the name \"__metadata__\"");
    if (i > 0 && all[i]->first == all[i - 1]->first)
      refuse(kOp, "the name \"", all[i]->first, "\" appears twice");
  }
  std::stable_sort(all.begin(), all.end(), [](auto* a, auto* b) {
    return detail::safetensors_rank(a->second.dtype) > detail::safetensors_rank(b->second.dtype);
  });
  return all;
}

std::string header_text(const Tensors& tensors, const SafetensorsMetadata& metadata) {
  std::string text = "{";
  for (std::string_view comma; const auto& [key, value] : metadata) {
    text += concat(comma.empty() ? "\"__metadata__\":{" : comma, quoted("a name in the metadata", key), ":",
                   quoted("a value in the metadata", value));
    comma = ",";
  }
  if (!metadata.empty()) text += "}";
  std::uint64_t end = 0;
  for (const auto* t : tensors) {
    const auto& [name, tensor] = *t;
    std::string shape;
    for (const Index e : tensor.shape) shape += concat(shape.empty() ? "" : ",", e);
    const std::uint64_t begin = end;
    if (__builtin_add_overflow(end, byte_count(name, tensor), &end))
      refuse(kOp, "the tensors' size overflows");
    text += concat(text.size() > 1 ? "," : "", quoted("a tensor's name", name), ":{\"dtype\":\"",
                   detail::safetensors_name(tensor.dtype), "\",\"shape\":[", shape, "],\"data_offsets\":[",
                   begin, ",", end, "]}");
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > detail::kSafetensorsHeaderLimit)
    refuse(kOp, "the header has ", text.size(), " bytes, expected at most ", detail::kSafetensorsHeaderLimit);
  return text;
}

}  // namespace

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Parameter>>& tensors,
                       const SafetensorsMetadata& metadata) {
  const Tensors ordered = in_file_order(tensors);
  const std::string header = header_text(ordered, metadata);
  unsigned char prefix[8];
  for (int i = 0; i < 8; ++i) prefix[i] = static_cast<unsigned char>(header.size() >> 8 * i);
  detail::PendingFile file(path);
  file.write(prefix, 8);
  file.write(header.data(), header.size());
  for (const auto* t : ordered) file.write(t->second.data, byte_count(t->first, t->second));
  file.publish();
}

void write_safetensors(const std::string& path, const Parameters& tensors,
                       const SafetensorsMetadata& metadata) {
  std::vector<std::pair<std::string, Parameter>> all;
  for (const std::string& name : tensors.names()) all.emplace_back(name, tensors.at(name));
  write_safetensors(path, all, metadata);
}

}  // namespace v0
}  // namespace ashlar
