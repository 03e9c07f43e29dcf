// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/dtype.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace ashlar {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Bf16, RoundsToNearestEven) {
  EXPECT_EQ(bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(bf16(1.0f + 0x1p-8f).bits, 0x3f80);             // half way: to the even one
  EXPECT_EQ(bf16(1.0f + 3 * 0x1p-8f).bits, 0x3f82);         // half way: to the even one
  EXPECT_EQ(bf16(1.0f + 0x1p-8f + 0x1p-20f).bits, 0x3f81);  // above half way
  EXPECT_EQ(bf16(std::numeric_limits<float>::max()).bits, 0x7f80);
  EXPECT_EQ(bf16(-kInf).bits, 0xff80);
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u)))));
  for (std::uint32_t b = 0; b < 65536; ++b) {
    bf16 x;
    x.bits = static_cast<std::uint16_t>(b);
    const float f = static_cast<float>(x);
    if (!std::isnan(f)) {
      EXPECT_EQ(bf16(f).bits, x.bits);
    }
  }
}

TEST(F16, EveryValueSurvivesTheRoundTrip) {
  for (std::uint32_t b = 0; b < 65536; ++b) {
    f16 x;
    x.bits = static_cast<std::uint16_t>(b);
    const float f = static_cast<float>(x);
    const int exponent = static_cast<int>((b >> 10) & 31), mantissa = static_cast<int>(b & 1023);
    if (exponent == 31 && mantissa != 0) {
      EXPECT_TRUE(std::isnan(f));
      continue;
    }
    const double magnitude = exponent == 31  ? kInf
                             : exponent == 0 ? std::ldexp(mantissa, -24)
                                             : std::ldexp(1024 + mantissa, exponent - 25);
    EXPECT_EQ(f, b & 0x8000 ? -magnitude : magnitude);
    EXPECT_EQ(f16(f).bits, x.bits);
  }
}

TEST(RoundedTo, IsTheNumberThatTheTypeHas) {
  EXPECT_EQ(rounded_to(DType::bf16, 1 + 0x1p-7f + 0x1p-9f), 1 + 0x1p-7f);
  EXPECT_EQ(rounded_to(DType::f16, 1 + 0x1p-10f + 0x1p-12f), 1 + 0x1p-10f);
  EXPECT_EQ(rounded_to(DType::f32, 1 + 0x1p-23f), 1 + 0x1p-23f);
  EXPECT_EQ(rounded_to(DType::f64, 0.1f), 0.1f);
}

TEST(F16, RoundsToNearestEven) {
  EXPECT_EQ(f16(1.0f + 0x1p-11f).bits, 0x3c00);
  EXPECT_EQ(f16(1.0f + 3 * 0x1p-11f).bits, 0x3c02);
  EXPECT_EQ(f16(65519.0f).bits, 0x7bff);
  EXPECT_EQ(f16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(f16(0x1p-25f).bits, 0);  // half of the smallest: to the even one
  EXPECT_EQ(f16(1.5f * 0x1p-25f).bits, 1);
  EXPECT_EQ(f16(-1e-30f).bits, 0x8000);
}

}  // namespace
}  // namespace ashlar
