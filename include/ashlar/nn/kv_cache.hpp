// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/backend.hpp"

namespace ashlar {
inline namespace v0 {

// Keys and values of one sequence in one attention layer; a value. Kept as [Hkv][capacity][D]: the rows that
// one head's attention reads are contiguous.
template <class Exec>
class KvCache {
 public:
  KvCache() = default;
  KvCache(Index kv_heads, Index head_dim, Index capacity)
      : keys_({kv_heads, capacity, head_dim}), values_({kv_heads, capacity, head_dim}) {}

  Index length() const { return length_; }
  Index capacity() const { return keys_.shape()[1]; }
  Index kv_heads() const { return keys_.shape()[0]; }
  Index head_dim() const { return keys_.shape()[2]; }
  explicit operator bool() const { return static_cast<bool>(keys_); }

  // [length, Hkv, D]
  View<const float, 3> keys() const { return rows(keys_, 0, length_); }
  View<const float, 3> values() const { return rows(values_, 0, length_); }

  // Writes k, v [T, Hkv, D] behind the last position. Refused: more than the capacity.
  void append(View<const float, 3> k, View<const float, 3> v, Exec& exec) {
    const Index end = length_ + k.shape[0];
    if (end > capacity()) refuse("KvCache", "position ", end, " is behind the capacity, ", capacity());
    Backend<Exec>::copy(k, rows(keys_, length_, end), exec);
    Backend<Exec>::copy(v, rows(values_, length_, end), exec);
    length_ = end;
  }

  // [2, length, Hkv, D], keys first, from and to packed host memory.
  Index elements(Index length) const { return 2 * length * kv_heads() * head_dim(); }
  void save(float* to) const {
    Backend<Exec>::read(keys(), to);
    Backend<Exec>::read(values(), to + elements(length_) / 2);
  }
  void restore(const float* from, Index length) {
    length_ = length;
    Backend<Exec>::write(from, rows(keys_, 0, length));
    Backend<Exec>::write(from + elements(length) / 2, rows(values_, 0, length));
  }

 private:
  using Storage = typename Backend<Exec>::template Array<float, 3>;

  template <class S>
  static auto rows(S& storage, Index begin, Index end) {
    const auto v = storage.view();
    return std::remove_const_t<decltype(v)>(v.data + begin * v.strides[1],
                                            {end - begin, v.shape[0], v.shape[2]},
                                            {v.strides[1], v.strides[0], 1});
  }

  Storage keys_, values_;
  Index length_ = 0;
};

}  // namespace v0
}  // namespace ashlar
