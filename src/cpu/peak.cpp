// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/peak.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "ashlar/core/tensor.hpp"
#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/peak.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// 12 chains of `steps` multiply-adds; returns their number of flops. The sum goes to *sink so that it is
// computed.
double multiply_add(Index steps, float* sink) {
  const FloatTag d;
  const auto b = hn::Set(d, 0.999f), c = hn::Set(d, 0.001f);
  const auto at = [&](float x) { return hn::Set(d, x + *sink); };  // 12 different chains
  auto x0 = at(0), x1 = at(1), x2 = at(2), x3 = at(3), x4 = at(4), x5 = at(5), x6 = at(6), x7 = at(7),
       x8 = at(8);
  auto x9 = at(9), x10 = at(10), x11 = at(11);
  for (Index i = 0; i < steps; ++i) {
    x0 = hn::MulAdd(x0, b, c), x1 = hn::MulAdd(x1, b, c), x2 = hn::MulAdd(x2, b, c),
    x3 = hn::MulAdd(x3, b, c);
    x4 = hn::MulAdd(x4, b, c), x5 = hn::MulAdd(x5, b, c), x6 = hn::MulAdd(x6, b, c),
    x7 = hn::MulAdd(x7, b, c);
    x8 = hn::MulAdd(x8, b, c), x9 = hn::MulAdd(x9, b, c), x10 = hn::MulAdd(x10, b, c),
    x11 = hn::MulAdd(x11, b, c);
  }
  x0 = hn::Add(hn::Add(hn::Add(x0, x1), hn::Add(x2, x3)), hn::Add(hn::Add(x4, x5), hn::Add(x6, x7)));
  *sink = sum(d, hn::Add(x0, hn::Add(hn::Add(x8, x9), hn::Add(x10, x11))));
  return 12.0 * 2.0 * static_cast<double>(hn::Lanes(d)) * static_cast<double>(steps);
}

float read_all(const float* p, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  for (Index i = 0; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, hn::LoadU(d, p + i)), s1 = hn::Add(s1, hn::LoadU(d, p + i + lanes));
    s2 = hn::Add(s2, hn::LoadU(d, p + i + 2 * lanes)), s3 = hn::Add(s3, hn::LoadU(d, p + i + 3 * lanes));
  }
  return sum(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

void update_all(float* p, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const auto b = hn::Set(d, 0.999f);
  for (Index i = 0; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(b, hn::LoadU(d, p + i)), d, p + i);
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
HWY_EXPORT(multiply_add);
HWY_EXPORT(read_all);
HWY_EXPORT(update_all);
}  // namespace kernels
namespace {

constexpr Index kFloats = Index{32} << 20;  // 128 MiB

template <class F>
double seconds(F&& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Best of what f() returns, over `runs`.
template <class F>
double best(int runs, F&& f) {
  double most = 0;
  for (int r = 0; r < runs; ++r) most = std::max(most, f());
  return most;
}

// f(memory, floats) on one contiguous part a worker; bytes touched a second.
template <class F>
double stream(CpuExec& exec, Tensor<float, 1>& memory, F&& f) {
  const Index part = kFloats / exec.threads() / 64 * 64;
  const double time = seconds(
      [&] { exec.parallel_for(exec.threads(), [&](Index i, int) { f(memory.data() + i * part, part); }); });
  return static_cast<double>(part) * exec.threads() * sizeof(float) / time;
}

}  // namespace

MemoryPasses::MemoryPasses(CpuExec& exec) : exec_(exec), memory_({kFloats}) {
  for (Index i = 0; i < kFloats; i += 16) memory_.data()[i] = 1.0f + static_cast<float>(i % 7);
}

double MemoryPasses::read() {
  std::atomic<float> sink{0};  // keeps the sums alive
  return stream(exec_, memory_, [&](float* p, Index n) { sink = ASHLAR_DISPATCH(exec_, read_all)(p, n); });
}

double MemoryPasses::update() {
  return 2 * stream(exec_, memory_, [&](float* p, Index n) { ASHLAR_DISPATCH(exec_, update_all)(p, n); });
}

double measure_read_bandwidth(CpuExec& exec) {
  MemoryPasses memory(exec);
  return best(6, [&] { return memory.read(); });
}

Peak measure_peak(CpuExec& exec) {
  MemoryPasses memory(exec);
  Peak peak;
  peak.read_bytes = best(6, [&] { return memory.read(); });
  peak.copy_bytes = best(6, [&] { return memory.update(); });
  constexpr Index kSteps = 2'000'000;
  peak.fma_flops = best(10, [&] {
    std::atomic<double> flops{0};
    const double time = seconds([&] {
      exec.parallel_for(exec.threads(), [&](Index, int) {
        float sink = 0;
        const double mine = ASHLAR_DISPATCH(exec, multiply_add)(kSteps, &sink);
        flops = mine + 0 * static_cast<double>(sink);
      });
    });
    return flops * exec.threads() / time;
  });
  return peak;
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
