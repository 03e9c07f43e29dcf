// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#include "ashlar/core/view.hpp"

namespace ashlar {
inline namespace v0 {

namespace detail {
// 64-byte aligned; blocks of 2 MiB and more ask for huge pages. Throws Error("OutOfMemory").
void* allocate(std::size_t bytes);
void release(void* p) noexcept;
}  // namespace detail

// An owning, packed, 64-byte aligned array; a value: copies copy. Elements start as zero.
template <class T, int Rank>
class Tensor {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Tensor() = default;
  explicit Tensor(const std::array<Index, Rank>& shape) : shape_(shape) {
    Index n = 1;
    for (Index e : shape) {
      if (e < 0) refuse("Tensor", "shape ", to_string(shape), " has a negative extent");
      if (__builtin_mul_overflow(n, e, &n)) refuse("Tensor", "shape ", to_string(shape), " overflows");
    }
    Index bytes = 0;
    if (__builtin_mul_overflow(n, static_cast<Index>(sizeof(T)), &bytes))
      refuse("Tensor", "shape ", to_string(shape), " overflows");
    size_ = n;
    data_ = static_cast<T*>(detail::allocate(static_cast<std::size_t>(bytes)));
    if (bytes != 0) std::memset(static_cast<void*>(data_), 0, static_cast<std::size_t>(bytes));
  }
  Tensor(const Tensor& t) : Tensor() {
    if (!t.data_) return;
    data_ = static_cast<T*>(detail::allocate(sizeof(T) * static_cast<std::size_t>(t.size_)));
    shape_ = t.shape_;
    size_ = t.size_;
    if (size_ != 0)
      std::memcpy(static_cast<void*>(data_), t.data_, sizeof(T) * static_cast<std::size_t>(size_));
  }
  Tensor(Tensor&& t) noexcept { swap(t); }
  Tensor& operator=(Tensor t) noexcept {
    swap(t);
    return *this;
  }
  ~Tensor() { detail::release(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }
  const std::array<Index, Rank>& shape() const { return shape_; }
  View<T, Rank> view() { return data_ ? View<T, Rank>(data_, shape_) : View<T, Rank>(); }
  View<const T, Rank> view() const {
    return data_ ? View<const T, Rank>(data_, shape_) : View<const T, Rank>();
  }
  explicit operator bool() const { return data_ != nullptr; }

  void swap(Tensor& t) noexcept {
    std::swap(data_, t.data_);
    std::swap(shape_, t.shape_);
    std::swap(size_, t.size_);
  }

 private:
  T* data_ = nullptr;
  std::array<Index, Rank> shape_{};
  Index size_ = 0;
};

}  // namespace v0
}  // namespace ashlar
