// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <type_traits>
#include <utility>

#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

namespace detail {
// Memory of the current device. They wait for the device: for loading and for caches, not for ops. Throw
// Error("OutOfMemory"), Error("CudaError"), Error("NoCuda").
void* device_allocate(std::size_t bytes);  // zeros
void device_release(void* p) noexcept;
enum class CopyKind { to_device, to_host, on_device };
void device_copy(void* to, const void* from, std::size_t bytes, CopyKind kind);
}  // namespace detail

// An owning, packed array in device memory; a value: copies copy. Elements start as zero. Its memory is the
// current device's.
template <class T, int Rank>
class DeviceTensor {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  DeviceTensor() = default;
  explicit DeviceTensor(const std::array<Index, Rank>& shape) : shape_(shape) {
    Index bytes = static_cast<Index>(sizeof(T));
    for (Index e : shape) {
      if (e < 0) refuse("DeviceTensor", "shape ", to_string(shape), " has a negative extent");
      if (__builtin_mul_overflow(bytes, e, &bytes))
        refuse("DeviceTensor", "shape ", to_string(shape), " overflows");
    }
    size_ = bytes / static_cast<Index>(sizeof(T));
    data_ = static_cast<T*>(detail::device_allocate(this->bytes()));
  }
  // A copy of a host's array.
  explicit DeviceTensor(View<const T, Rank> host) : DeviceTensor(host.shape) {
    if (!host.packed()) refuse("DeviceTensor", "the host's array is strided, expected a packed one");
    detail::device_copy(data_, host.data, bytes(), detail::CopyKind::to_device);
  }
  DeviceTensor(const DeviceTensor& t) : DeviceTensor() {
    if (!t.data_) return;
    data_ = static_cast<T*>(detail::device_allocate(t.bytes()));
    shape_ = t.shape_, size_ = t.size_;
    detail::device_copy(data_, t.data_, bytes(), detail::CopyKind::on_device);
  }
  DeviceTensor(DeviceTensor&& t) noexcept { swap(t); }
  DeviceTensor& operator=(DeviceTensor t) noexcept {
    swap(t);
    return *this;
  }
  ~DeviceTensor() { detail::device_release(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }
  const std::array<Index, Rank>& shape() const { return shape_; }
  View<T, Rank> view() { return data_ ? View<T, Rank>(data_, shape_) : View<T, Rank>(); }
  View<const T, Rank> view() const {
    return data_ ? View<const T, Rank>(data_, shape_) : View<const T, Rank>();
  }
  explicit operator bool() const { return data_ != nullptr; }

  // A copy in the host's memory, of what all streams wrote before.
  Tensor<T, Rank> to_host() const {
    Tensor<T, Rank> host(shape_);
    detail::device_copy(host.data(), data_, bytes(), detail::CopyKind::to_host);
    return host;
  }

  void swap(DeviceTensor& t) noexcept {
    std::swap(data_, t.data_);
    std::swap(shape_, t.shape_);
    std::swap(size_, t.size_);
  }

 private:
  std::size_t bytes() const { return sizeof(T) * static_cast<std::size_t>(size_); }

  T* data_ = nullptr;
  std::array<Index, Rank> shape_{};
  Index size_ = 0;
};

}  // namespace v0
}  // namespace ashlar
