// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <type_traits>
#include <variant>

#include "ashlar/nn/backend.hpp"

namespace ashlar {
inline namespace v0 {

// Of what is remembered of a token: keys [heads, key_dim] and values [heads, value_dim].
struct KvShape {
  Index heads = 0, key_dim = 0, value_dim = 0;
  bool operator==(const KvShape&) const = default;
};

// f(float()) or f(bf16()), as keys and values are kept.
template <class F>
decltype(auto) with_kv_type(DType type, F&& f) {
  return type == DType::bf16 ? f(bf16()) : f(0.0f);
}
inline void check_kv_type(std::string_view who, DType type) {
  if (type != DType::f32 && type != DType::bf16)
    refuse(who, "keys and values were to be kept as ", name(type), ", expected f32 or bf16");
}

// Rows of keys and values of f32 or bf16; a value. Kept as [heads][rows][dim]: the rows that one head's
// attention reads are contiguous. What is written is rounded to the nearest (even).
template <class Exec>
class KvRows {
 public:
  KvRows() = default;
  KvRows(const KvShape& shape, Index rows, DType type) : shape_(shape), rows_(rows), type_(type) {
    with_kv_type(type, [&](auto zero) {
      using A = Array<decltype(zero)>;
      keys_ = A({shape.heads, rows, shape.key_dim});
      values_ = A({shape.heads, rows, shape.value_dim});
    });
  }

  const KvShape& shape() const { return shape_; }
  Index rows() const { return rows_; }
  DType type() const { return type_; }
  Index bytes_a_row() const { return shape_.heads * (shape_.key_dim + shape_.value_dim) * (bits(type_) / 8); }
  Index bytes() const { return rows_ * bytes_a_row(); }

  // [rows, heads, dim]; T is type()'s.
  template <class T>
  View<const T, 3> keys() const {
    return by_row(std::get<Array<T>>(keys_).view());
  }
  template <class T>
  View<const T, 3> values() const {
    return by_row(std::get<Array<T>>(values_).view());
  }

  // Writes k [n, heads, key_dim] and v [n, heads, value_dim] to the rows from `row` on.
  void write(Index row, View<const float, 3> k, View<const float, 3> v, Exec& exec) {
    const Index end = row + k.shape[0];
    each([&](auto to, bool values) {
      if (to.shape[2] != 0) Backend<Exec>::copy(values ? v : k, to.slice(0, row, end), exec);
    });
  }
  // The `n` rows of `other`, of the same shape and type, from `from` on, to `row`.
  void take(const KvRows& other, Index from, Index row, Index n) {
    each([&](auto to, bool values) {
      using T = std::remove_pointer_t<decltype(to.data)>;
      const auto source = values ? other.template values<T>() : other.template keys<T>();
      for (Index h = 0; h < to.shape[1]; ++h)
        Backend<Exec>::move(View<const T, 2>(source.at(from, h), {n, to.shape[2]}, {source.strides[0], 1}),
                            View<T, 2>(to.at(row, h), {n, to.shape[2]}, {to.strides[0], 1}));
    });
  }
  // Rows from `row` on from packed host memory: keys [n, heads, key_dim], values [n, heads, value_dim].
  void load(const std::byte* keys, const std::byte* values, Index row, Index n) {
    each([&](auto to, bool of_values) {
      Backend<Exec>::write(of_values ? values : keys, to.slice(0, row, row + n));
    });
  }

 private:
  template <class T>
  using Array = typename Backend<Exec>::template Array<T, 3>;
  using Storage = std::variant<Array<float>, Array<bf16>>;

  template <class T>
  static View<T, 3> by_row(View<T, 3> v) {
    return {v.data, {v.shape[1], v.shape[0], v.shape[2]}, {v.strides[1], v.strides[0], 1}};
  }
  template <class F>
  void each(F&& f) {
    with_kv_type(type_, [&](auto zero) {
      f(by_row(std::get<Array<decltype(zero)>>(keys_).view()), false);
      f(by_row(std::get<Array<decltype(zero)>>(values_).view()), true);
    });
  }

  KvShape shape_;
  Index rows_ = 0;
  DType type_ = DType::f32;
  Storage keys_, values_;
};

}  // namespace v0
}  // namespace ashlar
