// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <span>

#include "ashlar/core/any_view.hpp"
#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// out[t, :] = scale * table[ids[t], :]. The table is f32, bf16 or f16.
// Refused: ids that are not as many as rows of `out`, an id outside [0, V), other element types, shapes that
// differ; nothing is written then. Backward needs ids.
template <class T>
struct EmbeddingArgs {
  std::span<const std::int32_t> ids;  // [T]
  AnyView<2> table;                   // [V, D]
  View<T, 2> out;                     // [T, D]
  T scale = 1;
};
using Embedding = EmbeddingArgs<float>;

void embedding(const Embedding& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
