// SPDX-License-Identifier: Apache-2.0
// What the tests share: random arrays, outputs that show unwritten and overrun elements, comparison by an
// error bound.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar::test {

inline constexpr double kEps = std::numeric_limits<float>::epsilon();

// A float array and the same numbers in double, with room between rows: strides are larger than the shape.
template <int Rank>
class Array {
 public:
  explicit Array(std::array<Index, Rank> shape, Index row_padding = 3) : shape_(shape) {
    Index stride = 1;
    for (int a = Rank - 1; a >= 0; --a) {
      strides_[a] = stride;
      stride *= shape[a];
      if (a == Rank - 1) stride += row_padding;
    }
    size_ = stride;
    floats_.assign(static_cast<std::size_t>(size_), std::numeric_limits<float>::quiet_NaN());
  }
  View<float, Rank> view() { return {floats_.data(), shape_, strides_}; }
  View<const float, Rank> cview() { return view(); }
  // A copy in double.
  View<double, Rank> exact() {
    doubles_.assign(floats_.begin(), floats_.end());
    return {doubles_.data(), shape_, strides_};
  }
  // Calls f(element) for each element inside the shape.
  template <class F>
  void each(F&& f) {
    for (Index i = 0; i < count(); ++i) f(floats_[static_cast<std::size_t>(place(i))]);
  }
  Array& uniform(std::mt19937& rng, float low, float high) {
    std::uniform_real_distribution<float> u(low, high);
    each([&](float& e) { e = u(rng); });
    return *this;
  }
  Array& normal(std::mt19937& rng, float deviation = 1) {
    std::normal_distribution<float> n(0, deviation);
    each([&](float& e) { e = n(rng); });
    return *this;
  }
  Array& poison() {
    floats_.assign(floats_.size(), std::numeric_limits<float>::quiet_NaN());
    return *this;
  }
  // The padding between rows must still be NaN: nothing was written outside.
  void expect_padding_untouched() {
    std::vector<char> inside(floats_.size(), 0);
    for (Index i = 0; i < count(); ++i) inside[static_cast<std::size_t>(place(i))] = 1;
    for (std::size_t i = 0; i < floats_.size(); ++i)
      ASSERT_TRUE(inside[i] || std::isnan(floats_[i])) << "written outside the shape, at element " << i;
  }
  Index count() const {
    Index n = 1;
    for (Index e : shape_) n *= e;
    return n;
  }
  // Position in memory of element i in row-major order.
  Index place(Index i) const {
    Index p = 0;
    for (int a = Rank - 1; a >= 0; --a) p += i % shape_[a] * strides_[a], i /= shape_[a];
    return p;
  }

 private:
  std::array<Index, Rank> shape_, strides_{};
  Index size_ = 0;
  std::vector<float> floats_;
  std::vector<double> doubles_;
};

// |got - want| <= bound(i) for every element; NaN fails. `bound` comes from an error analysis: eps times a
// magnitude.
template <class Got, class Want, int Rank, class Bound>
void expect_close(const View<Got, Rank>& got, const View<Want, Rank>& want, Bound&& bound) {
  ASSERT_EQ(got.shape, want.shape);
  const Index n = want.size();
  for (Index i = 0; i < n; ++i) {
    Index g = 0, w = 0, rest = i;
    for (int a = Rank - 1; a >= 0; --a) {
      const Index at = rest % want.shape[a];
      rest /= want.shape[a];
      g += at * got.strides[a], w += at * want.strides[a];
    }
    const double difference = std::abs(static_cast<double>(got.data[g]) - static_cast<double>(want.data[w]));
    ASSERT_LE(difference, bound(i)) << "element " << i << ": got " << got.data[g] << ", want "
                                    << want.data[w];
    ASSERT_FALSE(std::isnan(difference))
        << "element " << i << ": got " << got.data[g] << ", want " << want.data[w];
  }
}

// The largest magnitude in a view: with eps, the usual unit of a bound.
template <class T, int Rank>
double largest(const View<T, Rank>& v) {
  double most = 0;
  for (Index i = 0; i < v.size(); ++i) {
    Index p = 0, rest = i;
    for (int a = Rank - 1; a >= 0; --a) p += rest % v.shape[a] * v.strides[a], rest /= v.shape[a];
    most = std::max(most, std::abs(static_cast<double>(v.data[p])));
  }
  return most;
}

// A host's own threads, which the thread sanitizer understands (it does not see into OpenMP's).
class StdThreads : public ThreadPool {
 public:
  int workers() const override { return 3; }
  void run(int workers, void (*job)(void*, int), void* context) override {
    std::vector<std::jthread> threads;
    for (int w = 1; w < workers; ++w) threads.emplace_back(job, context, w);
    job(context, 0);
  }
};

// Contexts to run a property under: each instruction set of this machine with one worker, and the best with
// three, of OpenMP's and of the host's.
inline std::vector<CpuExec> contexts() {
  static StdThreads pool;
  std::vector<CpuExec> all;
  for (Isa isa : {Isa::scalar, Isa::sse4, Isa::avx2, Isa::avx512, Isa::neon})
    if (supported(isa)) all.emplace_back(CpuOptions{1, nullptr, &isa});
  all.emplace_back(CpuOptions{3, nullptr, nullptr});
  all.emplace_back(CpuOptions{3, &pool, nullptr});
  return all;
}

// The sentence of the Error that f throws; fails the test when it throws none.
template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return "";
}

}  // namespace ashlar::test
