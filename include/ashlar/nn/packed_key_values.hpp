// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/backend.hpp"
#include "ashlar/ops/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {

// Keys [T, Hkv, D] and values [T, Hkv, Dv] of packed sequences, as softmax_attention takes them: one entry a
// sequence, in memory of the execution context until the end of the scope.
template <class Exec>
class PackedKeyValues {
 public:
  PackedKeyValues(View<const float, 3> k, View<const float, 3> v, const Offsets& offsets, Exec& exec)
      : scratch_(exec) {
    const Index tokens = v.shape[0];
    const auto list = scratch_.template get<KeyValue>(offsets.count());
    for (Index n = 0; n < offsets.count(); ++n) {
      const Index begin = offsets.begin(n), end = offsets.end(n, tokens);
      list(n) = KeyValue{k.slice(0, begin, end), v.slice(0, begin, end)};
    }
    sequences_ = {list.data, static_cast<std::size_t>(offsets.count())};
  }
  operator std::span<const KeyValue>() const { return sequences_; }

 private:
  typename Backend<Exec>::HostScratch scratch_;
  std::span<const KeyValue> sequences_;
};

}  // namespace v0
}  // namespace ashlar
