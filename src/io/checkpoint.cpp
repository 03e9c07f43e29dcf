// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/checkpoint.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <unordered_map>

#include "ashlar/io/json.hpp"
#include "ashlar/io/safetensors.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

struct Listed {
  std::string name;
  std::shared_ptr<const Parameters> shard;
};

class Sharded final : public Parameters {
 public:
  explicit Sharded(std::vector<Listed> tensors) : tensors_(std::move(tensors)) {
    std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (const Listed& t : tensors_) all.push_back(t.name);
    return all;
  }
  bool find(std::string_view name, Parameter* into) const override {
    const auto at = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                     [](const Listed& t, std::string_view n) { return t.name < n; });
    return at != tensors_.end() && at->name == name && at->shard->find(name, into);
  }

 private:
  std::vector<Listed> tensors_;
};

bool plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

const Value::Object& weight_map(const Value& index, std::string_view what) {
  const Value* map = index.find("weight_map");
  if (map == nullptr || map->object() == nullptr)
    throw Error("InvalidIndex", concat(what, ": there is no object \"weight_map\""));
  for (const auto& [tensor, shard] : *map->object()) {
    if (shard.string() == nullptr)
      throw Error("InvalidIndex", concat(what, ": the shard of \"", tensor, "\" is not a string"));
    if (!plain_file_name(*shard.string()))
      throw Error("InvalidShardName", concat(what, ": the shard \"", *shard.string(), "\" of \"", tensor,
                                             "\" is not the plain name of a file in the same directory"));
  }
  return *map->object();
}

bool is_index(std::string_view path) { return path.ends_with(".json"); }

std::shared_ptr<const Parameters> open_index(const fs::path& path) {
  const std::string what = concat("index \"", path.string(), "\"");
  return open_sharded(read_text(path.string()), what, [&](const std::string& name) {
    const fs::path shard = path.parent_path() / name;
    std::error_code ignored;
    if (!fs::exists(shard, ignored))
      throw Error("FileNotFound", concat(what, ": there is no shard \"", shard.string(), "\""));
    return std::make_shared<const SafetensorsFile>(shard.string());
  });
}

}  // namespace

std::shared_ptr<const Parameters> open_sharded(std::string_view text, std::string_view what,
                                               const OpenShard& open) {
  const Value index = parse_json(text, what);
  const Value::Object& map = weight_map(index, what);
  std::map<std::string_view, std::shared_ptr<const Parameters>> shards;
  for (const auto& [tensor, shard] : map) shards[*shard.string()] = nullptr;
  std::unordered_map<std::string, std::string_view> holder;  // of each tensor: the shard's name
  for (auto& [shard, parameters] : shards) {
    parameters = open(std::string(shard));
    for (const std::string& name : parameters->names())
      if (const auto [at, fresh] = holder.emplace(name, shard); !fresh)
        throw Error("DuplicateTensor", concat(what, ": the tensor \"", name, "\" is in the shards \"",
                                              at->second, "\" and \"", shard, "\""));
  }
  std::vector<Listed> tensors;
  tensors.reserve(map.size());
  for (const auto& [tensor, shard] : map) {
    const auto& parameters = shards[*shard.string()];
    if (!parameters->contains(tensor))
      throw Error("TensorNotFound", concat(what, ": there is no tensor \"", tensor, "\" in the shard \"",
                                           *shard.string(), "\""));
    tensors.push_back({tensor, parameters});
  }
  return std::make_shared<const Sharded>(std::move(tensors));
}

std::shared_ptr<const Parameters> open_checkpoint(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    if (is_index(path)) return open_index(path);
    return std::make_shared<const SafetensorsFile>(path);
  }
  const fs::path single = fs::path(path) / kSingle, index = fs::path(path) / kIndex;
  if (fs::exists(single, ignored)) return std::make_shared<const SafetensorsFile>(single.string());
  if (fs::exists(index, ignored)) return open_index(index);
  throw Error("FileNotFound",
              concat("checkpoint: the directory \"", path, "\" has neither ", kSingle, " nor ", kIndex));
}

}  // namespace v0
}  // namespace ashlar
