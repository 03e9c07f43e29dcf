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
  // `value_dim`: of a value row, where it is not the key row's.
  KvCache(Index kv_heads, Index head_dim, Index capacity, Index value_dim = -1)
      : keys_({kv_heads, capacity, head_dim}),
        values_({kv_heads, capacity, value_dim < 0 ? head_dim : value_dim}) {}

  Index length() const { return length_; }
  Index capacity() const { return keys_.shape()[1]; }
  Index kv_heads() const { return keys_.shape()[0]; }
  Index head_dim() const { return keys_.shape()[2]; }
  Index value_dim() const { return values_.shape()[2]; }
  explicit operator bool() const { return static_cast<bool>(keys_); }

  // [length, Hkv, D], [length, Hkv, Dv]
  View<const float, 3> keys() const { return rows(keys_, 0, length_); }
  View<const float, 3> values() const { return rows(values_, 0, length_); }

  // Writes k [T, Hkv, D] and v [T, Hkv, Dv] behind the last position. Refused: more than the capacity.
  void append(View<const float, 3> k, View<const float, 3> v, Exec& exec) {
    const Index end = length_ + k.shape[0];
    if (end > capacity()) refuse("KvCache", "position ", end, " is behind the capacity, ", capacity());
    Backend<Exec>::copy(k, rows(keys_, length_, end), exec);
    if (value_dim() != 0) Backend<Exec>::copy(v, rows(values_, length_, end), exec);
    length_ = end;
  }

  // Forgets the last tokens.
  void truncate(Index length) { length_ = length; }

  // [length, Hkv, D] keys, then [length, Hkv, Dv] values, from and to packed host memory.
  Index elements(Index length) const { return length * kv_heads() * (head_dim() + value_dim()); }
  void save(float* to) const {
    Backend<Exec>::read(keys(), to);
    Backend<Exec>::read(values(), to + length_ * kv_heads() * head_dim());
  }
  void restore(const float* from, Index length) {
    length_ = length;
    Backend<Exec>::write(from, rows(keys_, 0, length));
    Backend<Exec>::write(from + length * kv_heads() * head_dim(), rows(values_, 0, length));
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
