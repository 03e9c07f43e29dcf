// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

namespace ashlar {
inline namespace v0 {

// Sizes, strides and positions, in elements.
using Index = std::ptrdiff_t;

}  // namespace v0
}  // namespace ashlar
