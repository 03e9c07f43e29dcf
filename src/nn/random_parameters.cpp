// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/random_parameters.hpp"

#include <cmath>

namespace ashlar {
inline namespace v0 {
namespace {

// splitmix64 (Steele, Lea and Flood, 2014)
struct Generator {
  std::uint64_t state;
  // Uniform in [-1, 1).
  float operator()() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return static_cast<float>(static_cast<std::int64_t>(z ^ z >> 31) >> 40) * 0x1p-23f;
  }
};

struct Range {
  float middle, reach;
};

Range range_of(std::string_view name, std::span<const Index> shape) {
  if (name.ends_with("A_log")) return {1.5f, 1};
  if (name.ends_with("dt_bias")) return {-4, 2};
  if (name.ends_with("norm.weight")) return {1, 0.25f};
  Index columns = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) columns *= shape[i];
  return {0, std::sqrt(3 / static_cast<float>(std::max<Index>(columns, 1)))};
}

template <class T>
Parameter generate(std::span<const Index> shape, Range range, Generator next) {
  Index n = 1;
  for (Index e : shape) n *= e;
  auto values = std::make_shared<Tensor<T, 1>>(std::array<Index, 1>{n});
  for (Index i = 0; i < n; ++i) values->data()[i] = T(range.middle + range.reach * next());
  return {values->data(), dtype_of<T>, {shape.begin(), shape.end()}, values};
}

}  // namespace

RandomParameters::RandomParameters(DType dtype, std::uint64_t seed,
                                   std::function<bool(std::string_view)> present)
    : dtype_(dtype), seed_(seed), present_(std::move(present)) {
  if (dtype != DType::f32 && dtype != DType::bf16)
    refuse("RandomParameters", "dtype is ", name(dtype), ", expected f32 or bf16");
}

bool RandomParameters::find(std::string_view name, Parameter* into) const {
  if (into != nullptr) refuse("RandomParameters", "\"", name, "\" was asked for without a shape");
  return present_ ? present_(name) : !name.ends_with(".bias");
}

Parameter RandomParameters::make(std::string_view name, std::span<const Index> shape) const {
  std::uint64_t hash = 0xcbf29ce484222325 ^ seed_;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  const Range range = range_of(name, shape);
  return dtype_ == DType::f32 ? generate<float>(shape, range, {hash}) : generate<bf16>(shape, range, {hash});
}

}  // namespace v0
}  // namespace ashlar
