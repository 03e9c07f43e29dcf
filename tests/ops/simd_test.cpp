// SPDX-License-Identifier: Apache-2.0
// The elementary functions of kernels/simd-inl.hpp against the C library in double, for each instruction set.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)  // as the library is built

#include "src/cpu/dispatch.hpp"
#include "tests/support.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/ops/simd_test.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// y = f(x); n is a multiple of the widest vector.
template <class F>
void map(const float* x, float* y, Index n, const F& f) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  for (Index i = 0; i < n; i += lanes) hn::StoreU(f(d, hn::LoadU(d, x + i)), d, y + i);
}
void test_exp(const float* x, float* y, Index n) {
  map(x, y, n, [](FloatTag d, FloatVec v) HWY_ATTR { return exp(d, v); });
}
void test_exp_negative(const float* x, float* y, Index n) {
  map(x, y, n, [](FloatTag d, FloatVec v) HWY_ATTR { return exp_negative(d, v); });
}
void test_exp2_negative(const float* x, float* y, Index n) {
  map(x, y, n, [](FloatTag d, FloatVec v) HWY_ATTR {
    FloatVec all[1] = {v};
    exp2_negative(d, all);
    return all[0];
  });
}
void test_expm1_negative(const float* x, float* y, Index n) {
  map(x, y, n, [](FloatTag d, FloatVec v) HWY_ATTR { return expm1_negative(d, v); });
}
void test_sigmoid(const float* x, float* y, Index n) {
  map(x, y, n, [](FloatTag d, FloatVec v) HWY_ATTR { return sigmoid(d, v); });
}
void test_load_f16(const f16* x, float* y, Index n) {
  const FloatTag d;
  for (Index i = 0; i < n; i += static_cast<Index>(hn::Lanes(d))) hn::StoreU(load(d, x + i), d, y + i);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(test_exp);
HWY_EXPORT(test_exp_negative);
HWY_EXPORT(test_exp2_negative);
HWY_EXPORT(test_expm1_negative);
HWY_EXPORT(test_sigmoid);
HWY_EXPORT(test_load_f16);
}  // namespace kernels

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

double ulp(double x) { return std::ldexp(1.0, std::ilogb(x) - 23); }

// Evenly spaced numbers of [low, high], and both signs of powers of 1.1 as far as they lie inside.
std::vector<float> sweep(double low, double high) {
  std::vector<float> x;
  for (int i = 0; i < 1000000; ++i) x.push_back(static_cast<float>(low + (high - low) * i / 999999));
  for (double m = 1e-38; m < 100; m *= 1.1)
    for (double s : {m, -m})
      if (s >= low && s <= high) x.push_back(static_cast<float>(s));
  while (x.size() % 16 != 0) x.push_back(0);
  return x;
}

// Largest error in units in the last place of the exact result.
template <class Run, class Exact>
void expect_ulps(double low, double high, double limit, Run&& run, Exact&& exact) {
  const std::vector<float> x = sweep(low, high);
  std::vector<float> y(x.size(), kNan);
  for (CpuExec& exec : test::contexts()) {
    run(exec, x.data(), y.data(), static_cast<Index>(x.size()));
    double worst = 0;
    float where = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = exact(static_cast<double>(x[i]));
      const double error =
          want == 0 ? std::abs(static_cast<double>(y[i])) * 1e45 : std::abs(y[i] - want) / ulp(want);
      ASSERT_FALSE(std::isnan(y[i])) << x[i];
      if (error > worst) worst = error, where = x[i];
    }
    EXPECT_LE(worst, limit) << name(exec.isa()) << ", at " << where;
    testing::Test::RecordProperty(concat("ulps_", name(exec.isa())), concat(worst));
  }
}

TEST(Simd, ExpIsWithinOneUlp) {
  expect_ulps(
      -87.33654, 88.72283, 1,
      [](CpuExec& exec, auto... a) {
        ASHLAR_DISPATCH(exec, test_exp)
        (a...);
      },
      [](double x) { return std::exp(x); });
}

TEST(Simd, ExpNegativeIsWithinOneUlp) {
  expect_ulps(
      -87.33654, 0, 1,
      [](CpuExec& exec, auto... a) {
        ASHLAR_DISPATCH(exec, test_exp_negative)
        (a...);
      },
      [](double x) { return std::exp(x); });
}

TEST(Simd, Exp2NegativeIsWithinTwoUlps) {
  expect_ulps(
      -126, 0, 2,
      [](CpuExec& exec, auto... a) {
        ASHLAR_DISPATCH(exec, test_exp2_negative)
        (a...);
      },
      [](double x) { return std::exp2(x); });
}

TEST(Simd, Exp2NegativeIsTinyFarBelow) {
  const std::vector<float> x{-126, -127, -1e30f, -kInf, 0, -0.0f, -1, -2,
                             -126, -127, -1e30f, -kInf, 0, -0.0f, -1, -2};
  const std::vector<float> want{0x1p-126f, 0x1p-126f, 0x1p-126f, 0x1p-126f, 1, 1, 0.5f, 0.25f};
  for (CpuExec& exec : test::contexts()) {
    std::vector<float> y(x.size());
    ASHLAR_DISPATCH(exec, test_exp2_negative)(x.data(), y.data(), static_cast<Index>(x.size()));
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], want[i % 8]) << x[i];
  }
}

TEST(Simd, Expm1NegativeIsWithinOneUlp) {
  expect_ulps(
      -100, 0, 2,
      [](CpuExec& exec, auto... a) {
        ASHLAR_DISPATCH(exec, test_expm1_negative)
        (a...);
      },
      [](double x) { return std::expm1(x); });
}

TEST(Simd, SigmoidIsWithinThreeUlps) {
  expect_ulps(
      -87.3, 100, 3,
      [](CpuExec& exec, auto... a) {
        ASHLAR_DISPATCH(exec, test_sigmoid)
        (a...);
      },
      [](double x) { return 1 / (1 + std::exp(-x)); });
}

TEST(Simd, ExpAtItsEnds) {
  std::vector<float> x(16, 0), y(16);
  x[0] = -kInf, x[1] = kInf, x[2] = -88, x[3] = 89, x[4] = kNan, x[5] = -1e30f;
  for (CpuExec& exec : test::contexts()) {
    ASHLAR_DISPATCH(exec, test_exp)(x.data(), y.data(), 16);
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[1], kInf);
    EXPECT_EQ(y[2], 0);
    EXPECT_EQ(y[3], kInf);
    EXPECT_TRUE(std::isnan(y[4]));
    EXPECT_EQ(y[5], 0);
    EXPECT_EQ(y[6], 1);
    ASHLAR_DISPATCH(exec, test_exp_negative)(x.data(), y.data(), 16);
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[2], 0);
    EXPECT_EQ(y[5], 0);
    EXPECT_EQ(y[6], 1);
    ASHLAR_DISPATCH(exec, test_sigmoid)(x.data(), y.data(), 16);
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[1], 1);
    EXPECT_TRUE(std::isnan(y[4]));
    EXPECT_EQ(y[6], 0.5f);
  }
}

TEST(Simd, EveryHalfIsWidenedExactly) {
  std::vector<f16> x(65536);
  std::vector<float> y(65536);
  for (std::size_t i = 0; i < x.size(); ++i) x[i].bits = static_cast<std::uint16_t>(i);
  for (CpuExec& exec : test::contexts()) {
    ASHLAR_DISPATCH(exec, test_load_f16)(x.data(), y.data(), 65536);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float want = static_cast<float>(x[i]);
      ASSERT_TRUE(std::isnan(want) ? std::isnan(y[i])
                                   : std::bit_cast<std::uint32_t>(want) == std::bit_cast<std::uint32_t>(y[i]))
          << name(exec.isa()) << ": bits " << i << " became " << y[i] << ", want " << want;
    }
  }
}

}  // namespace
}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
