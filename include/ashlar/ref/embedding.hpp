// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/ops/embedding.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

template <class T>
T element(const AnyView<2>& table, Index row, Index column) {
  switch (table.dtype) {
    case DType::bf16: return static_cast<T>(static_cast<float>(table.as<bf16>()(row, column)));
    case DType::f16: return static_cast<T>(static_cast<float>(table.as<f16>()(row, column)));
    default: return static_cast<T>(table.as<float>()(row, column));
  }
}

template <class T>
void embedding(const EmbeddingArgs<T>& a) {
  for (Index t = 0; t < a.out.shape[0]; ++t)
    for (Index i = 0; i < a.out.shape[1]; ++i)
      a.out(t, i) = a.scale * element<T>(a.table, a.ids[static_cast<std::size_t>(t)], i);
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
