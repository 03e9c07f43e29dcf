// SPDX-License-Identifier: Apache-2.0
// What the window attention engine is told: one head of one group of an image.
#pragma once
#include <cstdint>

#include "ashlar/core/index.hpp"

namespace ashlar {
inline namespace v0 {
namespace kernels {

struct WindowGroup {
  static constexpr Index kQueries = 64;  // a block: the lanes of several vectors
  static constexpr Index kKeys = 288;    // a block: its probabilities stay in the second-level cache
  static constexpr Index kOutside = PTRDIFF_MIN;

  Index queries = 0, keys = 0, dim = 0, value_dim = 0;
  const float *q = nullptr, *k = nullptr, *v = nullptr;  // of the head; a slot is at its place behind
  float* out = nullptr;
  const Index *q_places = nullptr, *k_places = nullptr, *v_places = nullptr, *out_places = nullptr;
  // What comes after this one: its rows are fetched meanwhile. Null: nothing is known of it.
  const float *next_q = nullptr, *next_k = nullptr, *next_v = nullptr, *next_out = nullptr;
  const Index *next_q_places = nullptr, *next_k_places = nullptr, *next_v_places = nullptr,
              *next_out_places = nullptr;
  const float* bias = nullptr;  // [keys, queries], rows bias_pitch apart; null: none
  Index bias_pitch = 0;
  const std::uint8_t* regions = nullptr;  // of slots; null: no mask
  float mask = 0;                         // between slots of different regions
  float scale = 1;                        // of scores
  bool cosine = false;                    // scores of normalised queries and keys
  float* scratch = nullptr;               // scratch_size(...)

  static constexpr Index padded(Index n) { return (n + 15) / 16 * 16; }
  static constexpr Index scratch_size(Index keys, Index dim, Index value_dim) {
    const Index wide = padded(dim > value_dim ? dim : value_dim);
    return keys * (padded(dim) + padded(value_dim)) + 2 * wide + kQueries * (2 * wide + kKeys + 6);
  }
};

}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
