// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/core/parameters.hpp"
#include "ashlar/core/value.hpp"

namespace ashlar {
inline namespace v0 {

// A model as transformers' save_pretrained writes it.
struct HuggingFaceModel {
  Value config;             // config.json
  Value generation_config;  // generation_config.json; null when there is none
  std::shared_ptr<const Parameters> parameters;
};

// A configuration as Python writes it: JSON, and NaN, Infinity and -Infinity, which JSON lacks, as bare words
// or, since transformers 5, as {"__float__": "Infinity"}. They become doubles. Errors as parse_json.
Value parse_config(std::string_view text, std::string_view what);

// Reads the directory; the weights are mapped, not read.
HuggingFaceModel load_huggingface(const std::string& directory);

// The tokens that end a generation: "eos_token_id" of generation_config, else of config, else of its
// text_config; an integer, a list of them, or null. Error("InvalidConfig") for anything else.
std::vector<std::int32_t> end_of_text_ids(const HuggingFaceModel& model);

}  // namespace v0
}  // namespace ashlar
