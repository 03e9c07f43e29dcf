// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <string>
#include <type_traits>

#include "ashlar/core/error.hpp"
#include "ashlar/core/index.hpp"

namespace ashlar {
inline namespace v0 {

// A strided, non-owning array: element (i, j, ...) is data[i * strides[0] + j * strides[1] + ...].
// A default-constructed view is empty, which ops read as "argument not given".
template <class T, int Rank>
struct View {
  static_assert(Rank >= 1);
  T* data = nullptr;
  std::array<Index, Rank> shape{};
  std::array<Index, Rank> strides{};

  View() = default;
  // Packed, row-major.
  View(T* p, std::array<Index, Rank> extents) : data(p), shape(extents) {
    Index stride = 1;
    for (int i = Rank - 1; i >= 0; --i) strides[i] = stride, stride *= shape[i];
  }
  View(T* p, std::array<Index, Rank> extents, std::array<Index, Rank> steps)
      : data(p), shape(extents), strides(steps) {}
  // View<T> converts to View<const T>.
  template <class U>
  requires std::is_same_v<const U, T> View(const View<U, Rank>& v)
      : data(v.data), shape(v.shape), strides(v.strides) {}

  explicit operator bool() const { return data != nullptr; }
  Index size() const {
    Index n = 1;
    for (Index e : shape) n *= e;
    return n;
  }
  bool packed() const {
    Index stride = 1;
    for (int i = Rank - 1; i >= 0; --i) {
      if (shape[i] > 1 && strides[i] != stride) return false;
      stride *= shape[i];
    }
    return true;
  }
  // Innermost axis contiguous: what ops ask of every argument.
  bool rows_contiguous() const { return strides[Rank - 1] == 1 || shape[Rank - 1] <= 1; }

  template <class... I>
  requires(sizeof...(I) == Rank) T& operator()(I... index) const { return *at(index...); }
  // Address of the element or sub-array at the leading indices.
  template <class... I>
  requires(sizeof...(I) <= Rank) T* at(I... index) const {
    T* p = data;
    int axis = 0;
    ((p += static_cast<Index>(index) * strides[axis++]), ...);
    return p;
  }
  // Sub-array i of the first axis.
  View<T, Rank - 1> operator[](Index i) const requires(Rank > 1) {
    View<T, Rank - 1> v;
    v.data = data + i * strides[0];
    for (int a = 1; a < Rank; ++a) v.shape[a - 1] = shape[a], v.strides[a - 1] = strides[a];
    return v;
  }
  // Elements [begin, end) of one axis.
  View slice(int axis, Index begin, Index end) const {
    View v = *this;
    v.data = data + begin * strides[axis];
    v.shape[axis] = end - begin;
    return v;
  }
  // One axis as two, the second of extent `inner`, which divides it: [T, H * D] is [T, H, D] with split(1,
  // D).
  View<T, Rank + 1> split(int axis, Index inner) const {
    View<T, Rank + 1> v;
    v.data = data;
    for (int a = 0; a <= Rank; ++a) {
      const int from = a <= axis ? a : a - 1;
      v.shape[a] = a == axis ? shape[axis] / (inner == 0 ? 1 : inner) : a == axis + 1 ? inner : shape[from];
      v.strides[a] = a == axis ? strides[axis] * inner : strides[from];
    }
    return v;
  }
};

// "[2, 3, 4]", for messages.
template <std::size_t Rank>
std::string to_string(const std::array<Index, Rank>& shape) {
  std::string s = "[";
  for (std::size_t i = 0; i < Rank; ++i) s.append(i ? ", " : "").append(std::to_string(shape[i]));
  return s.append("]");
}

// The check at an op's border: `view` (called `what` in the message) has exactly this shape, and its
// innermost axis is contiguous.
template <class T, int Rank>
void expect_shape(std::string_view op, std::string_view what, const View<T, Rank>& view,
                  const std::type_identity_t<std::array<Index, Rank>>& want) {
  if (view.shape != want)
    refuse(op, what, " has shape ", to_string(view.shape), ", expected ", to_string(want));
  if (!view.data && view.size() != 0) refuse(op, what, " of shape ", to_string(want), " has no data");
  if (!view.rows_contiguous())
    refuse(op, what, " has stride ", view.strides[Rank - 1], " on its last axis, expected 1");
}

}  // namespace v0
}  // namespace ashlar
