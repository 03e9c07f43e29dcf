// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string_view>

#include "ashlar/core/value.hpp"

namespace ashlar {
inline namespace v0 {

// Arrays and objects inside one another, at most.
inline constexpr int kJsonDepth = 128;

// A JSON text (RFC 8259, UTF-8) as a tree; `what` is what messages call it. An integer that 64 signed bits do
// not hold becomes a double. Memory stays below 64 times the text. Error("InvalidJson") for anything else,
// also for a name that an object has twice, and for a nesting deeper than kJsonDepth.
Value parse_json(std::string_view text, std::string_view what);

// The same of a file.
Value read_json(const std::string& path);

}  // namespace v0
}  // namespace ashlar
