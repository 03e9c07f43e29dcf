// SPDX-License-Identifier: Apache-2.0
#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// The first few, in quotes.
std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kNamed = 3;
  std::string s;
  for (std::size_t i = 0; i < std::min(kNamed, names.size()); ++i)
    s.append(i == 0 ? "\"" : ", \"").append(names[i]).append("\"");
  if (names.size() > kNamed) s.append(concat(" and ", names.size() - kNamed, " more"));
  return s;
}

std::string known_architectures() {
  std::string s;
  for (const std::string& name : restoration_architectures()) s.append(s.empty() ? "" : ", ").append(name);
  return s;
}

struct Likest {
  const Model* model = nullptr;
  KeyDifference difference;
};

Likest likest(std::span<const std::string> names) {
  Likest best;
  for (const Model* model : models()) {
    if (model->keys.empty()) continue;
    KeyDifference d = compare_keys(model->keys, names);
    if (best.model == nullptr || d.likeness > best.difference.likeness) best = {model, std::move(d)};
  }
  return best;
}

std::string sentence(const KeyDifference& d) {
  std::string s;
  if (!d.missing.empty()) s.append("missing ").append(listed(d.missing));
  if (!d.unexpected.empty())
    s.append(s.empty() ? "" : "; ").append("unexpected ").append(listed(d.unexpected));
  return s;
}

// The model to load a checkpoint with.
const Model& recognise(const Parameters& parameters) {
  constexpr double kLike = 0.25;
  const std::vector<std::string> names = parameters.names();
  const Likest best = likest(names);
  if (best.model == nullptr || best.difference.likeness < kLike)
    throw Error("UnknownModel",
                concat("checkpoint: its ", names.size(), " tensors (", listed(names),
                       ") are like those of no model for images, expected one of ", known_architectures()));
  if (best.difference.likeness < 1)
    throw Error("UnknownModel", concat("checkpoint: it looks like ", best.model->architecture,
                                       ", but is not: ", sentence(best.difference)));
  if (best.model->restoration == nullptr)
    throw Error("UnknownModel",
                concat("checkpoint: it is of ", best.model->architecture,
                       ", which does not restore images, expected one of ", known_architectures()));
  return *best.model;
}

const Model& named(std::string_view architecture, const Parameters& parameters) {
  const Model* found = nullptr;
  for (const Model* model : models())
    if (model->restoration != nullptr && model->architecture == architecture) found = model;
  if (found == nullptr)
    throw Error("UnknownModel",
                concat("architecture is \"", architecture, "\", expected one of ", known_architectures()));
  if (dynamic_cast<const ParameterSource*>(&parameters) != nullptr) return *found;
  const std::vector<std::string> names = parameters.names();
  const KeyDifference d = compare_keys(found->keys, names);
  if (d.likeness == 1) return *found;
  const Likest best = likest(names);
  std::string looks;
  if (best.model != nullptr && best.model != found && best.difference.likeness > d.likeness)
    looks = concat("; it looks like ", best.model->architecture);
  throw Error("UnknownModel", concat("checkpoint: it is not of ", architecture, ": ", sentence(d), looks));
}

}  // namespace

std::unique_ptr<RestorationModel<CpuExec>> load_restoration_model(const Value& config,
                                                                  const Parameters& parameters, CpuExec& exec,
                                                                  const RestorationOptions& options) {
  if (options.architecture.empty() && dynamic_cast<const ParameterSource*>(&parameters) != nullptr)
    refuse("load_restoration_model", "made-up weights tell no architecture, expected options.architecture");
  const Model& model =
      options.architecture.empty() ? recognise(parameters) : named(options.architecture, parameters);
  auto loaded = model.restoration(config, parameters, exec);
  if (options.ragged) loaded->set_ragged(*options.ragged);
  return loaded;
}

std::vector<std::string> restoration_architectures() {
  std::vector<std::string> names;
  for (const Model* model : models())
    if (model->restoration != nullptr) names.emplace_back(model->architecture);
  return names;
}

}  // namespace v0
}  // namespace ashlar
