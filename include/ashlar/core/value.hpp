// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ashlar/core/error.hpp"

namespace ashlar {
inline namespace v0 {

// A tree of plain values: what a configuration file holds. Objects keep the order of the file.
class Value {
 public:
  using Array = std::vector<Value>;
  using Object = std::vector<std::pair<std::string, Value>>;

  Value() = default;  // null
  template <class T>
  requires std::is_constructible_v<
      std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object>, T>
  Value(T x) : data_(std::move(x)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&data_); }
  // An integer or a real number.
  std::optional<double> number() const {
    if (const double* x = std::get_if<double>(&data_)) return *x;
    return integer() != nullptr ? std::optional(static_cast<double>(*integer())) : std::nullopt;
  }
  const std::string* string() const { return std::get_if<std::string>(&data_); }
  const Array* array() const { return std::get_if<Array>(&data_); }
  const Object* object() const { return std::get_if<Object>(&data_); }

  // The member of this name; null when there is none, or when this is no object.
  const Value* find(std::string_view key) const {
    if (const Object* o = object())
      for (const auto& [name, value] : *o)
        if (name == key) return &value;
    return nullptr;
  }

  // Members of a configuration, with defaults for those that are absent or null. Error("InvalidConfig") when
  // the member has another type, or is required and absent.
  Index get_integer(std::string_view key) const;
  Index get_integer(std::string_view key, Index otherwise) const;
  double get_number(std::string_view key) const;
  double get_number(std::string_view key, double otherwise) const;
  bool get_boolean(std::string_view key, bool otherwise) const;
  std::string get_string(std::string_view key, std::string_view otherwise) const;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> data_;
};

}  // namespace v0
}  // namespace ashlar
