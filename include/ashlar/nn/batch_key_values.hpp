// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/sequence_batch.hpp"

namespace ashlar {
inline namespace v0 {

// How the caches of a batch keep keys and values; f32 without caches. Refused: some so and some otherwise.
template <class Exec>
DType kv_type(const SequenceBatch<Exec>& batch) {
  if (batch.states.empty()) return DType::f32;
  const DType first = batch.states[0]->kv.type();
  for (const LayerState<Exec>* state : batch.states)
    if (const DType type = state->kv.type(); type != first)
      refuse("attention", "caches of one batch keep keys and values as ", name(first), " and as ", name(type),
             ", expected one type");
  return first;
}

// Remembers the keys and values that come, k [T, Hkv, D] and v [T, Hkv, Dv] (empty: none), and is what each
// sequence's queries read, of its last `window` positions and the query's own at least (0: all). T is
// kv_type()'s. A cache that forgets is read in place by a single token; more of them read a copy of what they
// see, [the window before them | they], or k and v themselves at a sequence's beginning. Refused, before
// anything is written: what a cache has no room for.
template <class Exec, class T>
class BatchKeyValues {
 public:
  BatchKeyValues(const SequenceBatch<Exec>& batch, View<const float, 3> k, View<const float, 3> v,
                 Index window, Exec& exec)
      : scratch_(exec), host_(exec) {
    const Index count = batch.offsets.count();
    reserve(batch, k.shape[0]);
    sequences_ = host_.template get<KeyValueArgs<T>>(count);
    for (Index n = 0; n < count; ++n) {
      const Index first = batch.offsets.begin(n), last = batch.offsets.end(n, k.shape[0]);
      const View<const float, 3> mine = k.slice(0, first, last), values = v ? v.slice(0, first, last) : v;
      KvCache<Exec>* const cache = batch.states.empty() ? nullptr : &batch.states[n]->kv;
      std::construct_at(sequences_.at(n), read(cache, mine, values, window, exec));
    }
  }

  operator std::span<const KeyValueArgs<T>>() const {
    return {sequences_.data, static_cast<std::size_t>(sequences_.shape[0])};
  }

 private:
  static void reserve(const SequenceBatch<Exec>& batch, Index tokens) {
    std::size_t n = 0;
    try {
      for (; n < batch.states.size(); ++n) {
        const Index i = static_cast<Index>(n);
        batch.states[n]->kv.reserve(batch.offsets.end(i, tokens) - batch.offsets.begin(i));
      }
    } catch (const Error&) {
      while (n-- > 0) batch.states[n]->kv.release_reserved();
      throw;
    }
  }

  KeyValueArgs<T> read(KvCache<Exec>* cache, View<const float, 3> k, View<const float, 3> v, Index window,
                       Exec& exec) {
    if (cache == nullptr) return fresh(k, v);
    const Index tokens = k.shape[0], length = cache->length();
    if (!cache->bounded() || tokens <= 1) {
      cache->append(k, v, exec);
      return cache->template key_values<T>();
    }
    const Index before = std::min(length, window - 1);
    if (std::is_same_v<T, float> && length == 0) {
      cache->append(k, v, exec);
      return fresh(k, v);
    }
    const View<T, 3> keys = rows(before + tokens, k), values = rows(before + tokens, v);
    cache->template copy_keys<T>(length - before, length, keys.slice(0, 0, before), exec);
    cache->template copy_values<T>(length - before, length, values.slice(0, 0, before), exec);
    Backend<Exec>::copy(k, keys.slice(0, before, before + tokens), exec);
    Backend<Exec>::copy(v, values.slice(0, before, before + tokens), exec);
    cache->append(k, v, exec);
    return {keys, values, length - before, length + tokens};
  }
  // [n, Hkv, D], a head's rows contiguous.
  View<T, 3> rows(Index n, View<const float, 3> like) {
    const View<T, 3> by_head = scratch_.template get<T>(like.shape[1], n, like.shape[2]);
    return {by_head.data, {n, like.shape[1], like.shape[2]}, {by_head.strides[1], by_head.strides[0], 1}};
  }
  // The new ones themselves, if they are of the type.
  static KeyValueArgs<T> fresh(View<const float, 3> k, View<const float, 3> v) {
    if constexpr (std::is_same_v<T, float>)
      return {k, v};
    else
      return {};
  }

  typename Exec::Scratch scratch_;
  typename Backend<Exec>::HostScratch host_;
  View<KeyValueArgs<T>, 1> sequences_;
};

}  // namespace v0
}  // namespace ashlar
