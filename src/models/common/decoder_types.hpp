// SPDX-License-Identifier: Apache-2.0
// Language models in a list of architectures (Model, or of another execution context), by "model_type".
#pragma once
#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "ashlar/core/error.hpp"
#include "ashlar/core/value.hpp"

namespace ashlar {
inline namespace v0 {

// Whether `wanted` is one of a model's spellings of "model_type".
template <class Model>
bool is_type(const Model& model, std::string_view wanted) {
  const auto& others = model.other_types;
  return wanted == model.type ||
         (!wanted.empty() && std::find(others.begin(), others.end(), wanted) != others.end());
}

template <class Model>
std::vector<std::string> decoder_types(std::span<const Model* const> models) {
  std::vector<std::string> types;
  for (const Model* model : models)
    if (model->decoder_lm != nullptr) {
      types.emplace_back(model->type);
      for (std::string_view other : model->other_types)
        if (!other.empty()) types.emplace_back(other);
    }
  return types;
}

// Error("UnknownModel") lists the known types.
template <class Model>
const Model& decoder_model(std::span<const Model* const> models, const Value& config) {
  const std::string type = config.get_string("model_type", "");
  for (const Model* model : models)
    if (model->decoder_lm != nullptr && is_type(*model, type)) return *model;
  std::string known;
  for (const std::string& name : decoder_types(models)) known.append(known.empty() ? "" : ", ").append(name);
  throw Error("UnknownModel", concat("config: \"model_type\" is \"", type,
                                     "\", expected one of the known language models: ", known));
}

}  // namespace v0
}  // namespace ashlar
