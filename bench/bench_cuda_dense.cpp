// SPDX-License-Identifier: Apache-2.0
// Dense layers and norms on the device, timed by its events.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ashlar/cuda/device_tensor.hpp"
#include "ashlar/cuda/ops.hpp"
#include "bench/cuda_events.hpp"
#include "bench/cuda_peak.hpp"
#include "bench/peak.hpp"

namespace ashlar {
namespace {

// Uniform in (-scale, scale); a long array repeats what it begins with.
template <class T, int Rank>
DeviceTensor<T, Rank> random(std::array<Index, Rank> shape, float scale, unsigned seed) {
  const Tensor<float, 1> some = bench::random<1>({1000003}, scale, seed);
  Tensor<T, Rank> t(shape);
  for (Index i = 0, j = 0; i < t.size(); ++i, j = j + 1 < some.size() ? j + 1 : 0)
    t.data()[i] = T(some.data()[j]);
  return DeviceTensor<T, Rank>(std::as_const(t).view());
}

// Some rows' products in double.
bool right(const DeviceTensor<float, 2>& x, const DeviceTensor<bf16, 2>& w,
           const DeviceTensor<float, 2>& out) {
  const auto hx = x.to_host(), ho = out.to_host();
  const auto hw = w.to_host();
  double difference = 0, norm = 0;
  for (Index m = 0; m < x.shape()[0]; m += 1 + x.shape()[0] / 3)
    for (Index n = 0; n < w.shape()[0]; n += 1 + w.shape()[0] / 50) {
      double sum = 0;
      for (Index k = 0; k < w.shape()[1]; ++k)
        sum +=
            static_cast<double>(hx.view()(m, k)) * static_cast<double>(static_cast<float>(hw.view()(n, k)));
      const double d = static_cast<double>(ho.view()(m, n)) - sum;
      difference += d * d, norm += sum * sum;
    }
  return std::sqrt(difference / norm) < 1e-2;
}

// Several weights in turns, together larger than the last cache.
void dense_layer(benchmark::State& state, Index rows, Index features, Index inputs, Phase phase) {
  CudaExec exec;
  const Index copies = std::max<Index>(1, (Index{300} << 20) / (features * inputs * 2));
  std::vector<DeviceTensor<bf16, 2>> weights;
  std::vector<DeviceWeight> layers;
  for (Index i = 0; i < (phase == Phase::decode ? copies : 1); ++i)
    weights.push_back(i == 0 ? random<bf16, 2>({features, inputs}, 1, 2) : weights[0]);
  for (const auto& w : weights) layers.emplace_back(AnyView<2>(w.view()));
  const auto x = random<float, 2>({rows, inputs}, 1, 1);
  DeviceTensor<float, 2> out({rows, features});
  const int runs = phase == Phase::decode ? static_cast<int>(layers.size()) : 1;
  bench::CudaEvents events(exec);
  auto pass = [&] {
    for (const DeviceWeight& w : layers) dense(DeviceDense{x.view(), w, {}, out.view(), phase}, exec);
  };
  pass();
  exec.synchronize();
  if (!right(x, weights.back(), out)) return state.SkipWithError("wrong results");
  for (auto _ : state) state.SetIterationTime(events.seconds(pass) / runs);
  const double m = static_cast<double>(rows), n = static_cast<double>(features),
               k = static_cast<double>(inputs);
  phase == Phase::decode ? bench::report_cuda(state, 0, 2 * n * k + 4 * m * (n + k))
                         : bench::report_cuda(state, 2 * m * n * k, 0);
}

void norm(benchmark::State& state, Index rows, Index dim) {
  CudaExec exec;
  const auto x = random<float, 2>({rows, dim}, 1, 1);
  const auto weight = random<float, 1>({dim}, 1, 2);
  DeviceTensor<float, 2> out({rows, dim});
  bench::CudaEvents events(exec);
  auto pass = [&] {
    rms_norm(RmsNorm{x.view().split(1, dim), weight.view(), out.view().split(1, dim)}, exec);
  };
  pass();
  for (auto _ : state) state.SetIterationTime(events.seconds(pass));
  bench::report_cuda(state, 0, 8 * static_cast<double>(rows * dim));
}

}  // namespace
}  // namespace ashlar

int main(int argc, char** argv) {
  using namespace ashlar;
  return bench::run_on_device(argc, argv, benchmark::kMicrosecond, [](auto add) {
    for (const auto& [features, inputs] : {std::pair<Index, Index>{22016, 3840},
                                           {17340, 3840},
                                           {3840, 11008},
                                           {3840, 5760},
                                           {100352, 3840},
                                           {4096, 4096}})
      for (Index rows : {1, 8, 16})
        add(concat("decode/dense/M:", rows, "/N:", features, "/K:", inputs),
            [=](benchmark::State& s) { dense_layer(s, rows, features, inputs, Phase::decode); });
    for (Index rows : {512, 4096})
      add(concat("prefill/dense/M:", rows, "/N:11008/K:3840"),
          [=](benchmark::State& s) { dense_layer(s, rows, 11008, 3840, Phase::prefill); });
    add("prefill/rms_norm/T:16384/D:4096", [](benchmark::State& s) { norm(s, 16384, 4096); });
  });
}
