// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "ashlar/cuda/device_tensor.hpp"
#include "ashlar/cuda/ops.hpp"

namespace ashlar::test {

// Skips where there is no device.
class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string why; !cuda_available(&why)) GTEST_SKIP() << "no CUDA device: " << why;
  }
};

// An array on both sides whose rows lie further apart than they are long; what is not written is NaN on the
// device and behind each row.
template <class T, int Rank>
class Both {
 public:
  Both() = default;
  explicit Both(const std::array<Index, Rank>& shape, Index padding = 0) : shape_(shape) {
    std::array<Index, Rank> room = shape;
    room[Rank - 1] += padding;
    host_ = Tensor<T, Rank>(room);
    for (Index i = 0; i < host_.size(); ++i) host_.data()[i] = T(NAN);
    upload();
  }
  // Uniform in [low, high), as T has them.
  static Both random(const std::array<Index, Rank>& shape, unsigned seed, float low = -1, float high = 1,
                     Index padding = 0) {
    Both b(shape, padding);
    std::mt19937 rng(seed);
    std::uniform_real_distribution<float> u(low, high);
    const Index row = shape[Rank - 1], room = row + padding;
    for (Index i = 0; i < b.host_.size(); ++i)
      if (i % room < row) b.host_.data()[i] = T(u(rng));
    b.upload();
    return b;
  }

  View<const T, Rank> device() const { return cut(device_.view()); }
  View<T, Rank> device() { return cut(device_.view()); }
  View<const T, Rank> host() const { return cut(host_.view()); }
  View<T, Rank> host() { return cut(host_.view()); }
  void upload() { device_ = DeviceTensor<T, Rank>(std::as_const(host_).view()); }
  void download() { host_ = device_.to_host(); }
  // The host's elements in double, packed.
  Tensor<double, Rank> wide() const {
    Tensor<double, Rank> all(shape_);
    const Index row = shape_[Rank - 1], room = host_.shape()[Rank - 1];
    for (Index i = 0, j = 0; i < host_.size(); ++i)
      if (i % room < row) all.data()[j++] = static_cast<double>(static_cast<float>(host_.data()[i]));
    return all;
  }
  // Whether what lies behind the rows is still as it was.
  bool padding_kept() const {
    const Index row = shape_[Rank - 1], room = host_.shape()[Rank - 1];
    for (Index i = 0; i < host_.size(); ++i)
      if (i % room >= row && !std::isnan(static_cast<float>(host_.data()[i]))) return false;
    return true;
  }

 private:
  template <class U>
  View<U, Rank> cut(View<U, Rank> v) const {
    return v ? v.slice(Rank - 1, 0, shape_[Rank - 1]) : v;
  }
  std::array<Index, Rank> shape_{};
  Tensor<T, Rank> host_;
  DeviceTensor<T, Rank> device_;
};

// The Frobenius norm of got - want over that of want; infinite for a NaN. Downloads `got`.
template <class T, int Rank>
double error_of(Both<T, Rank>& got, const Tensor<double, Rank>& want) {
  got.download();
  EXPECT_TRUE(got.padding_kept()) << "written behind a row";
  const Tensor<double, Rank> all = got.wide();
  double difference = 0, norm = 0;
  for (Index i = 0; i < want.size(); ++i) {
    const double d = all.data()[i] - want.data()[i];
    difference += d * d, norm += want.data()[i] * want.data()[i];
  }
  if (std::isnan(difference)) return INFINITY;
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

constexpr double kFull = 1e-5, kRounded = 1e-2;  // f32; products of bf16

}  // namespace ashlar::test
