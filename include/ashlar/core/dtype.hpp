// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <bit>
#include <cstdint>
#include <string_view>

#include "ashlar/core/index.hpp"

namespace ashlar {
inline namespace v0 {

// Storage types: arithmetic is done in float.

// The upper half of a float (8 exponent bits). Rounds to nearest even; a NaN stays a (quiet) NaN.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  explicit bf16(float x) {
    const auto u = std::bit_cast<std::uint32_t>(x);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<std::uint16_t>(nan ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

// IEEE binary16. Rounds to nearest even, overflows to infinity.
struct f16 {
  std::uint16_t bits = 0;

  f16() = default;
  explicit f16(float x) {
    const auto u = std::bit_cast<std::uint32_t>(x);
    const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
    const std::uint32_t magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
      bits = sign | 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
      bits = sign | 0x7c00u;
    } else if (magnitude <
               0x38800000u) {  // subnormal: adding 0.5 leaves the rounded mantissa in the low bits
      const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
      bits = static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
    } else {
      const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
      bits = static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
    }
  }
  explicit operator float() const {
    const std::uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu,
                        mantissa = bits & 0x3ffu;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -subnormal : subnormal;
  }
};

// Element types that a checkpoint may hold.
enum class DType : std::uint8_t {
  boolean,
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  u64,
  i64,
  f16,
  bf16,
  f32,
  f64,
  c64,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  f6_e2m3,
  f6_e3m2,
  f4
};

constexpr Index bits(DType t) {
  switch (t) {
    case DType::f4: return 4;
    case DType::f6_e2m3:
    case DType::f6_e3m2: return 6;
    case DType::u16:
    case DType::i16:
    case DType::f16:
    case DType::bf16: return 16;
    case DType::u32:
    case DType::i32:
    case DType::f32: return 32;
    case DType::u64:
    case DType::i64:
    case DType::f64:
    case DType::c64: return 64;
    default: return 8;
  }
}

constexpr std::string_view name(DType t) {
  constexpr std::string_view names[] = {
      "bool",    "u8",          "i8",          "u16",     "i16",     "u32", "i32",     "u64",
      "i64",     "f16",         "bf16",        "f32",     "f64",     "c64", "f8_e4m3", "f8_e5m2",
      "f8_e8m0", "f8_e4m3fnuz", "f8_e5m2fnuz", "f6_e2m3", "f6_e3m2", "f4"};
  return names[static_cast<int>(t)];
}

template <class T>
inline constexpr DType dtype_of = DType::u8;
template <>
inline constexpr DType dtype_of<float> = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<f16> = DType::f16;
template <>
inline constexpr DType dtype_of<bf16> = DType::bf16;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::i64;

// x as a number of a type that is narrower than float.
inline float rounded_to(DType t, float x) {
  if (t == DType::bf16) return static_cast<float>(bf16(x));
  return t == DType::f16 ? static_cast<float>(f16(x)) : x;
}

}  // namespace v0
}  // namespace ashlar
