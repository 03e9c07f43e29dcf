// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/huggingface.hpp"

#include <filesystem>
#include <limits>

#include "ashlar/io/checkpoint.hpp"
#include "ashlar/io/json.hpp"
#include "ashlar/io/mapped_file.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// The text with NaN, Infinity and -Infinity, where they stand outside strings, as {"__float__": "<literal>"}.
std::string with_float_literals(std::string_view text) {
  std::string out;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::string_view found;
    if (!in_string)
      for (std::string_view literal : {"-Infinity", "Infinity", "NaN"})
        if (text.substr(i).starts_with(literal)) found = literal;
    if (!found.empty()) {
      out += concat("{\"__float__\": \"", found, "\"}");
      i += found.size() - 1;
      continue;
    }
    out += text[i];
    if (in_string && text[i] == '\\' && i + 1 < text.size())
      out += text[++i];
    else if (text[i] == '"')
      in_string = !in_string;
  }
  return out;
}

// The double that {"__float__": "<literal>"} stands for; null for any other value.
const double* float_object(const Value& v) {
  static constexpr double kInfinity = std::numeric_limits<double>::infinity(), kMinus = -kInfinity,
                          kNan = std::numeric_limits<double>::quiet_NaN();
  const Value* literal = v.find("__float__");
  if (literal == nullptr || literal->string() == nullptr || v.object()->size() != 1) return nullptr;
  const std::string& s = *literal->string();
  return s == "Infinity" ? &kInfinity : s == "-Infinity" ? &kMinus : s == "NaN" ? &kNan : nullptr;
}

Value with_floats(const Value& v) {
  if (const double* x = float_object(v)) return *x;
  if (const auto* array = v.array()) {
    Value::Array out;
    for (const Value& member : *array) out.push_back(with_floats(member));
    return out;
  }
  if (const auto* object = v.object()) {
    Value::Object out;
    for (const auto& [name, member] : *object) out.emplace_back(name, with_floats(member));
    return out;
  }
  return v;
}

Value read_config(const std::string& path) { return parse_config(read_text(path), path); }

std::int32_t token_id(const Value& v) {
  const std::int64_t* id = v.integer();
  if (id == nullptr)
    throw Error("InvalidConfig", "config: \"eos_token_id\" is not an integer, a list of them, or null");
  if (*id < 0 || *id > std::numeric_limits<std::int32_t>::max())
    throw Error("InvalidConfig", concat("config: \"eos_token_id\" is ", *id, ", which is no token"));
  return static_cast<std::int32_t>(*id);
}

}  // namespace

Value parse_config(std::string_view text, std::string_view what) {
  return with_floats(parse_json(with_float_literals(text), what));
}

HuggingFaceModel load_huggingface(const std::string& directory) {
  const std::filesystem::path base(directory);
  const std::filesystem::path generation = base / "generation_config.json";
  HuggingFaceModel model;
  model.config = read_config((base / "config.json").string());
  if (model.config.object() == nullptr)
    throw Error("InvalidConfig", concat("\"", directory, "\": config.json is not an object"));
  std::error_code ignored;
  if (std::filesystem::exists(generation, ignored))
    model.generation_config = read_config(generation.string());
  model.parameters = open_checkpoint(directory);
  return model;
}

std::vector<std::int32_t> end_of_text_ids(const HuggingFaceModel& model) {
  const Value* text_config = model.config.find("text_config");
  for (const Value* from : {&model.generation_config, &model.config, text_config}) {
    const Value* ids = from == nullptr ? nullptr : from->find("eos_token_id");
    if (ids == nullptr || ids->is_null()) continue;
    if (ids->array() == nullptr) return {token_id(*ids)};
    std::vector<std::int32_t> all;
    for (const Value& id : *ids->array()) all.push_back(token_id(id));
    return all;
  }
  return {};
}

}  // namespace v0
}  // namespace ashlar
