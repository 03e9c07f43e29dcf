// SPDX-License-Identifier: Apache-2.0
#include "src/models/common/checkpoint_shape.hpp"

#include <charconv>
#include <cmath>
#include <set>

#include "ashlar/models/hf_config.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr Index kLargest = Index{1} << 20;  // products of two stay far from overflow

[[noreturn]] void contradiction(std::string_view key, const std::string& said, const std::string& shown,
                                std::string_view what) {
  throw Error("InvalidConfig",
              concat("config: \"", key, "\" is ", said, ", but the checkpoint has ", shown, " (", what, ")"));
}

std::string_view spelled(const Value& config, Keys keys) {
  for (std::string_view key : keys)
    if (given(config, key) != nullptr) return key;
  return *keys.begin();
}

std::string text(const Value& v) {
  if (const bool* b = v.boolean()) return *b ? "true" : "false";
  if (const auto* i = v.integer()) return std::to_string(*i);
  if (const std::string* s = v.string()) return concat("\"", *s, "\"");
  if (const auto x = v.number()) return std::to_string(*x);
  return v.is_null() ? "null" : "a list";
}

Index checked(std::string_view key, const Value& v) {
  const auto* i = v.integer();
  if (i == nullptr || *i < 1 || *i > kLargest)
    throw Error("InvalidConfig",
                concat("config: \"", key, "\" has ", text(v), ", expected an integer from 1 to ", kLargest));
  return static_cast<Index>(*i);
}

// An extent of a file may be anything.
Index checked(std::string_view what, Index seen) {
  if (seen < 1 || seen > kLargest)
    throw Error("InvalidShape",
                concat("checkpoint: it has ", seen, " (", what, "), expected from 1 to ", kLargest));
  return seen;
}

}  // namespace

CheckpointShape::CheckpointShape(const Parameters& parameters)
    : parameters_(&parameters), known_(dynamic_cast<const ParameterSource*>(&parameters) == nullptr) {}

std::optional<Parameter> CheckpointShape::find(const Names& names) const {
  if (!known_) return {};
  for (const std::string& name : names.spellings)
    if (Parameter p; parameters_->find(name, &p)) return p;
  return {};
}

bool CheckpointShape::contains(const Names& names) const { return find(names).has_value(); }

std::optional<Index> CheckpointShape::extent(const Names& names, std::size_t axis) const {
  const auto p = find(names);
  if (!p) return {};
  if (axis >= p->shape.size())
    throw Error("InvalidShape", concat("checkpoint: tensor \"", names.spellings.front(), "\" has ",
                                       p->shape.size(), " axes, expected at least ", axis + 1));
  return p->shape[axis];
}

std::optional<Index> CheckpointShape::elements(const Names& names) const {
  const auto p = find(names);
  return p ? std::optional(p->size()) : std::nullopt;
}

std::optional<Index> CheckpointShape::count(std::string_view prefix) const {
  if (!known_) return {};
  std::set<Index> found;
  for (const std::string& name : parameters_->names()) {
    if (name.size() <= prefix.size() + 1 || !name.starts_with(prefix) || name[prefix.size()] != '.') continue;
    const char *first = name.data() + prefix.size() + 1, *end = name.data() + name.size();
    Index i = 0;
    if (const auto [at, error] = std::from_chars(first, end, i);
        error == std::errc() && at != end && *at == '.')
      found.insert(i);
  }
  Index n = 0;
  while (found.contains(n)) ++n;
  return n;
}

const Value* setting(const Value& config, Keys keys) {
  for (std::string_view key : keys)
    if (const Value* v = given(config, key)) return v;
  return nullptr;
}

Index agreed(const Value& config, Keys keys, std::optional<Index> seen, std::string_view what,
             std::optional<Index> otherwise) {
  const std::string_view key = spelled(config, keys);
  const Value* v = given(config, key);
  if (v == nullptr) {
    if (seen) return checked(what, *seen);
    if (otherwise) return *otherwise;
    throw Error("InvalidConfig",
                concat("config: \"", key, "\" is missing, and the checkpoint does not tell it (", what, ")"));
  }
  const Index said = checked(key, *v);
  if (seen && *seen != said) contradiction(key, std::to_string(said), std::to_string(*seen), what);
  return said;
}

std::vector<Index> agreed_list(const Value& config, Keys keys, const std::vector<std::optional<Index>>& seen,
                               std::string_view what) {
  const std::string_view key = spelled(config, keys);
  const Value* v = given(config, key);
  std::vector<Index> values;
  if (v == nullptr) {
    for (const auto& entry : seen) {
      if (!entry)
        throw Error(
            "InvalidConfig",
            concat("config: \"", key, "\" is missing, and the checkpoint does not tell it (", what, ")"));
      values.push_back(checked(what, *entry));
    }
    if (values.empty()) throw Error("InvalidConfig", concat("config: \"", key, "\" is missing"));
    return values;
  }
  const Value::Array* list = v->array();
  if (list == nullptr || list->empty() || list->size() > static_cast<std::size_t>(kLargest))
    throw Error("InvalidConfig",
                concat("config: \"", key, "\" is ", text(*v), ", expected a list of integers"));
  if (!seen.empty() && list->size() != seen.size())
    contradiction(key, concat("a list of ", list->size()), std::to_string(seen.size()), what);
  for (std::size_t i = 0; i < list->size(); ++i) {
    values.push_back(checked(key, (*list)[i]));
    if (!seen.empty() && seen[i] && *seen[i] != values.back())
      contradiction(key, concat(values.back(), " at ", i), std::to_string(*seen[i]), what);
  }
  return values;
}

Index agreed_width(const Value& config, Keys ratio, Index width, std::optional<Index> seen,
                   std::string_view what, double otherwise) {
  const std::string_view key = spelled(config, ratio);
  if (given(config, key) == nullptr && seen) return checked(what, *seen);
  const double r = positive_number(config, key, otherwise);
  const double wide = static_cast<double>(width) * r;
  if (!(wide >= 1 && wide <= static_cast<double>(kLargest)))
    throw Error("InvalidConfig", concat("config: \"", key, "\" is ", r, ", which makes no width of ", width));
  const Index said = static_cast<Index>(wide);
  if (seen && *seen != said) contradiction(key, concat(r, " of ", width), std::to_string(*seen), what);
  return said;
}

std::optional<Index> window_of_table(std::optional<Index> rows) {
  if (!rows) return {};
  const auto side = static_cast<Index>(std::llround(std::sqrt(static_cast<double>(*rows))));
  if (side < 1 || side * side != *rows || side % 2 == 0)
    throw Error("InvalidShape", concat("checkpoint: a table of relative positions has ", *rows,
                                       " rows, expected the square of an odd number"));
  return (side + 1) / 2;
}

void expect_setting(const Value& config, std::string_view key, const Value& expected) {
  const Value* v = given(config, key);
  if (v != nullptr && text(*v) != text(expected) &&
      !(v->number() && expected.number() && *v->number() == *expected.number()))
    unsupported(key, text(*v), text(expected));
}

}  // namespace v0
}  // namespace ashlar
