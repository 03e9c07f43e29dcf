// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

#include "ashlar/core/index.hpp"

namespace ashlar {
inline namespace v0 {

// What every part of the library throws. what() is a full sentence that says what was wrong and what was
// expected; kind() is one word to switch on: "InvalidArgument" at an op's border, and the official names of a
// file format's errors in its loader ("InvalidOffset", "TensorNotFound", ...).
class Error : public std::runtime_error {
 public:
  Error(std::string_view kind, const std::string& sentence) : std::runtime_error(sentence), kind_(kind) {}
  const std::string& kind() const noexcept { return kind_; }

 private:
  std::string kind_;
};

namespace detail {
inline void append(std::string& s, std::string_view part) { s += part; }
inline void append(std::string& s, Index part) { s += std::to_string(part); }
inline void append(std::string& s, int part) { s += std::to_string(part); }
inline void append(std::string& s, std::size_t part) { s += std::to_string(part); }
inline void append(std::string& s, double part) { s += std::to_string(part); }
}  // namespace detail

// The parts (text and numbers) written one after another.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::string s;
  (detail::append(s, parts), ...);
  return s;
}

// Throws InvalidArgument with the sentence "<who>: <parts...>".
template <class... Parts>
[[noreturn]] void refuse(std::string_view who, const Parts&... parts) {
  throw Error("InvalidArgument", concat(who, ": ", parts...));
}

}  // namespace v0
}  // namespace ashlar
