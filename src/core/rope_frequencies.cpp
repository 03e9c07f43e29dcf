// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numbers>

#include "ashlar/ops/rope.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

void expect_positive(std::string_view what, double x) {
  if (!(x > 0) || !std::isfinite(x))
    refuse("rope_frequencies", what, " is ", x, ", expected a positive number");
}

// f(i, theta^(-2 i / dim)) for each pair.
template <class F>
RopeFrequencies make(Index dim, double theta, F&& f) {
  if (dim <= 0 || dim % 2 != 0)
    refuse("rope_frequencies", "dim is ", dim, ", expected a positive even number");
  expect_positive("theta", theta);
  RopeFrequencies r{Tensor<float, 1>({dim / 2})};
  for (Index i = 0; i < dim / 2; ++i) {
    const double inverse = std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(dim));
    r.inverse.data()[i] = static_cast<float>(f(i, inverse));
  }
  return r;
}

}  // namespace

RopeFrequencies rope_frequencies(Index dim, double theta) {
  return make(dim, theta, [](Index, double inverse) { return inverse; });
}

RopeFrequencies rope_frequencies(Index dim, double theta, const Llama3Scaling& s) {
  const double original = static_cast<double>(s.original_positions);
  expect_positive("factor", s.factor);
  expect_positive("low_frequency_factor", s.low_frequency_factor);
  expect_positive("original_positions", original);
  if (!(s.high_frequency_factor > s.low_frequency_factor))
    refuse("rope_frequencies", "high_frequency_factor is ", s.high_frequency_factor, ", expected more than ",
           s.low_frequency_factor, ", the low one");
  return make(dim, theta, [&](Index, double inverse) {
    const double wavelength = 2 * std::numbers::pi / inverse;
    if (wavelength < original / s.high_frequency_factor) return inverse;
    if (wavelength > original / s.low_frequency_factor) return inverse / s.factor;
    const double t =
        (original / wavelength - s.low_frequency_factor) / (s.high_frequency_factor - s.low_frequency_factor);
    return (1 - t) * inverse / s.factor + t * inverse;
  });
}

RopeFrequencies rope_frequencies(Index dim, double theta, const YarnScaling& s) {
  const double original = static_cast<double>(s.original_positions), d = static_cast<double>(dim);
  expect_positive("factor", s.factor);
  expect_positive("original_positions", original);
  expect_positive("beta_fast", s.beta_fast);
  expect_positive("beta_slow", s.beta_slow);
  if (!(s.attention_factor >= 0))
    refuse("rope_frequencies", "attention_factor is ", s.attention_factor, ", expected 0 (default) or more");
  if (theta == 1) refuse("rope_frequencies", "theta is 1: all frequencies are equal, and yarn has no ramp");
  // The dimension that turns r times within the original context.
  auto dimension = [&](double r) {
    return d * std::log(original / (2 * std::numbers::pi * r)) / (2 * std::log(theta));
  };
  double low = dimension(s.beta_fast), high = dimension(s.beta_slow);
  if (s.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, d - 1);
  if (low == high) high += 0.001;  // a step
  RopeFrequencies r = make(dim, theta, [&](Index i, double inverse) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    return inverse * (1 - ramp) + inverse / s.factor * ramp;
  });
  if (s.attention_factor > 0)
    r.factor = static_cast<float>(s.attention_factor);
  else if (s.factor > 1)
    r.factor = static_cast<float>(0.1 * std::log(s.factor) + 1);
  return r;
}

}  // namespace v0
}  // namespace ashlar
