// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/models/gemma.hpp"
#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

// What the configurations of Gemma 2 and 3 say in the same words; a full layer every `period` layers.
GemmaConfig gemma_config(const Value& config, Index max_positions, Index period);

// A cap of `key`: 0 where it is null, `otherwise` where it is absent.
float soft_cap_of(const Value& config, std::string_view key, double otherwise);

}  // namespace v0
}  // namespace ashlar
