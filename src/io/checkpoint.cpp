// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/checkpoint.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <unordered_map>

#include "ashlar/io/json.hpp"
#include "ashlar/io/pth.hpp"
#include "ashlar/io/safetensors.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

namespace fs = std::filesystem;

// What a directory may hold; the first that is there is taken.
constexpr const char* kFiles[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                  "pytorch_model.bin.index.json"};

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

// By its name; where that says nothing, by its first bytes: a zip archive's, or a pickle's.
bool is_pth(const fs::path& path, const MappedFile& file) {
  const std::string extension = path.extension().string();
  if (extension == ".safetensors") return false;
  for (const char* known : {".pth", ".pt", ".bin", ".ckpt"})
    if (extension == known) return true;
  const std::string start = file.read(0, std::min<std::uint64_t>(file.size(), 4));
  return start == "PK\3\4" || start.starts_with("\x80\2\x8a");
}

std::shared_ptr<const Parameters> open_file(const fs::path& path) {
  MappedFile file(path.string());
  if (is_pth(path, file)) return PthFile(std::move(file)).parameters();
  return std::make_shared<const SafetensorsFile>(std::move(file));
}

std::shared_ptr<const Parameters> open_index(const fs::path& path) {
  const std::string what = concat("index \"", path.string(), "\"");
  return open_sharded(read_text(path.string()), what, [&](const std::string& name) {
    const fs::path shard = path.parent_path() / name;
    std::error_code ignored;
    if (!fs::exists(shard, ignored))
      throw Error("FileNotFound", concat(what, ": there is no shard \"", shard.string(), "\""));
    return open_file(shard);
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
    return open_file(path);
  }
  for (const char* name : kFiles)
    if (const fs::path file = fs::path(path) / name; fs::exists(file, ignored))
      return is_index(name) ? open_index(file) : open_file(file);
  throw Error("FileNotFound", concat("checkpoint: the directory \"", path, "\" has neither ", kFiles[0],
                                     " nor ", kFiles[1], ", nor ", kFiles[2], " nor ", kFiles[3]));
}

}  // namespace v0
}  // namespace ashlar
