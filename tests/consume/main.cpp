// SPDX-License-Identifier: Apache-2.0
// What somebody who has just got ashlar writes first. 3 and 4 have the root mean square sqrt(12.5).
#include <ashlar/ashlar.hpp>
#ifdef CONSUME_IO
#include <ashlar/io/safetensors.hpp>
#endif
#include <cmath>
#include <cstdio>

int main() {
  const float x[] = {3, 4};
  float y[2];
  ashlar::CpuExec exec;
  ashlar::rms_norm({.x = {x, {1, 1, 2}}, .weight = {}, .out = {y, {1, 1, 2}}, .eps = 0}, exec);
  std::printf("%.4f %.4f\n", y[0], y[1]);
  return std::abs(y[0] - 0.8485281f) < 1e-6f && std::abs(y[1] - 1.1313708f) < 1e-6f ? 0 : 1;
}
