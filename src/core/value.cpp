// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/value.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// The member, or null when it is absent or null.
const Value* present(const Value& v, std::string_view key) {
  const Value* member = v.find(key);
  return member == nullptr || member->is_null() ? nullptr : member;
}

[[noreturn]] void wrong_type(std::string_view key, std::string_view expected) {
  throw Error("InvalidConfig", concat("config: \"", key, "\" is not ", expected));
}

const Value& required(const Value& v, std::string_view key) {
  if (const Value* member = present(v, key)) return *member;
  throw Error("InvalidConfig", concat("config: \"", key, "\" is missing"));
}

Index integer(const Value& member, std::string_view key) {
  if (const auto* i = member.integer()) return static_cast<Index>(*i);
  wrong_type(key, "an integer");
}

}  // namespace

Index Value::get_integer(std::string_view key) const { return ashlar::integer(required(*this, key), key); }

Index Value::get_integer(std::string_view key, Index otherwise) const {
  const Value* member = present(*this, key);
  return member != nullptr ? ashlar::integer(*member, key) : otherwise;
}

double Value::get_number(std::string_view key) const {
  if (const std::optional<double> x = required(*this, key).number()) return *x;
  wrong_type(key, "a number");
}

double Value::get_number(std::string_view key, double otherwise) const {
  return present(*this, key) != nullptr ? get_number(key) : otherwise;
}

bool Value::get_boolean(std::string_view key, bool otherwise) const {
  const Value* member = present(*this, key);
  if (member == nullptr) return otherwise;
  if (const bool* b = member->boolean()) return *b;
  wrong_type(key, "true or false");
}

std::string Value::get_string(std::string_view key, std::string_view otherwise) const {
  const Value* member = present(*this, key);
  if (member == nullptr) return std::string(otherwise);
  if (const auto* s = member->string()) return *s;
  wrong_type(key, "a string");
}

}  // namespace v0
}  // namespace ashlar
