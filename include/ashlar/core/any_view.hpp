// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/core/dtype.hpp"
#include "ashlar/core/view.hpp"

namespace ashlar {
inline namespace v0 {

// A View<const T, Rank> whose element type is known at run time: a weight as its checkpoint stores it.
template <int Rank>
struct AnyView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::array<Index, Rank> shape{};
  std::array<Index, Rank> strides{};

  AnyView() = default;
  AnyView(const void* p, DType type, std::array<Index, Rank> extents)
      : data(p), dtype(type), shape(extents), strides(View<const char, Rank>(nullptr, extents).strides) {}
  template <class T>
  AnyView(const View<T, Rank>& v)
      : data(v.data), dtype(dtype_of<std::remove_const_t<T>>), shape(v.shape), strides(v.strides) {}

  explicit operator bool() const { return data != nullptr; }
  // The caller has looked at dtype.
  template <class T>
  View<const T, Rank> as() const {
    return {static_cast<const T*>(data), shape, strides};
  }
};

}  // namespace v0
}  // namespace ashlar
