// SPDX-License-Identifier: Apache-2.0
// Ops that take every element by itself: activate, residual_add, decay_gate.
#include "ashlar/cuda/ops.hpp"
#include "src/core/op_checks.hpp"
#include "src/cuda/rows.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// f(row, column) for each group of kVector columns of [rows, columns].
template <int kVector, class F>
__device__ __forceinline__ void each_element(Index rows, Index columns, F&& f) {
  const Index groups = columns / kVector, all = rows * groups;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<Index>(gridDim.x) * kThreads)
    f(i / groups, i % groups * kVector);
}

LaunchShape shape_for(const CudaExec& exec, Index rows, Index columns, int vector) {
  const unsigned most = static_cast<unsigned>(exec.multiprocessors()) * 8;
  return {std::min(most, blocks(rows * (columns / vector), kThreads)), kThreads};
}

template <int kVector>
__global__ void __launch_bounds__(kThreads) activate_elements(const Activate a) {
  let_next_start();
  wait_for_previous();
  each_element<kVector>(a.x.shape[0], a.x.shape[1], [&](Index t, Index c) {
    auto v = load<kVector>(a.x.data + t * a.x.strides[0] + c);
    for (int j = 0; j < kVector; ++j) {
      const float x = v.x[j] > a.limit ? a.limit : v.x[j];  // a NaN stays
      v.x[j] = a.scale * activation_of(a.activation, a.slope * x, a.negative_slope);
    }
    if (a.up.data != nullptr) {
      const auto up = load<kVector>(a.up.data + t * a.up.strides[0] + c);
      for (int j = 0; j < kVector; ++j) {
        const float u = up.x[j] > a.limit ? a.limit : up.x[j] < -a.limit ? -a.limit : up.x[j];
        v.x[j] *= u + a.up_offset;
      }
    }
    store<kVector>(a.out.data + t * a.out.strides[0] + c, v);
  });
}

template <int kVector>
__global__ void __launch_bounds__(kThreads) add_elements(const ResidualAdd a) {
  let_next_start();
  wait_for_previous();
  each_element<kVector>(a.x.shape[0], a.x.shape[1], [&](Index t, Index c) {
    const auto x = load<kVector>(a.x.data + t * a.x.strides[0] + c);
    float* const at = a.h.data + t * a.h.strides[0] + c;
    auto h = load<kVector>(at);
    for (int j = 0; j < kVector; ++j) h.x[j] = a.keep * h.x[j] + a.scale * x.x[j];
    store<kVector>(at, h);
  });
}

__global__ void __launch_bounds__(kThreads) decay_elements(const DecayGate a) {
  let_next_start();
  wait_for_previous();
  const Index channels = a.x.shape[1];
  each_element<1>(a.x.shape[0], channels, [&](Index t, Index c) {
    const float rate = a.a_log.data != nullptr ? expf(a.a_log.data[c / (channels / a.a_log.shape[0])]) : 1.0f;
    const float x = a.x.data[t * a.x.strides[0] + c] + (a.dt_bias.data != nullptr ? a.dt_bias.data[c] : 0.0f);
    float g = 0;
    switch (a.formula) {
      case DecayFormula::softplus: {
        float step = softplus(x);
        step = step < a.min_step ? a.min_step : step > a.max_step ? a.max_step : step;
        if (a.step.data != nullptr) a.step.data[t * a.step.strides[0] + c] = step;
        g = -rate * step;
        break;
      }
      case DecayFormula::bounded: g = a.bound * sigmoid(rate * x); break;
      case DecayFormula::log_sigmoid: {
        g = -softplus(-x) / a.temperature;
        g = g < a.floor ? a.floor : g;
        break;
      }
      case DecayFormula::exponential: g = -expf(x); break;
      case DecayFormula::lower_bounded: {
        const float low = a.lower_bound.data[c];
        // Near 1 the logarithm of what is missing, else of what is there.
        g = low == 0    ? -softplus(-x)
            : x > -0.5f ? log1pf(-(1 - low) * sigmoid(-x))
                        : logf(low + (1 - low) * sigmoid(x));
        break;
      }
    }
    a.out.data[t * a.out.strides[0] + c] = g;
    if (a.complement.data != nullptr) a.complement.data[t * a.complement.strides[0] + c] = -expm1f(g);
  });
  if (a.beta.data != nullptr)
    each_element<1>(a.beta.shape[0], a.beta.shape[1], [&](Index t, Index h) {
      a.beta.data[t * a.beta.strides[0] + h] =
          a.beta_scale * sigmoid(a.beta_logits.data[t * a.beta_logits.strides[0] + h]);
    });
}

}  // namespace
}  // namespace cuda

void activate(const Activate& a, CudaExec& exec) {
  check(a);
  if (a.x.size() == 0) return;
  const auto [rows, columns] = a.x.shape;
  const bool fours = cuda::by_four(a.x) && cuda::by_four(a.up) && cuda::by_four(a.out);
  cuda::trace(exec, "activate", fours ? "by four" : "one by one", to_string(a.x.shape));
  fours ? launch(exec, "activate", cuda::activate_elements<4>, cuda::shape_for(exec, rows, columns, 4), a)
        : launch(exec, "activate", cuda::activate_elements<1>, cuda::shape_for(exec, rows, columns, 1), a);
}

void residual_add(const ResidualAdd& a, CudaExec& exec) {
  check(a);
  if (a.x.size() == 0) return;
  const auto [rows, columns] = a.x.shape;
  const bool fours = cuda::by_four(a.x) && cuda::by_four(a.h);
  cuda::trace(exec, "residual_add", fours ? "by four" : "one by one", to_string(a.x.shape));
  fours ? launch(exec, "residual_add", cuda::add_elements<4>, cuda::shape_for(exec, rows, columns, 4), a)
        : launch(exec, "residual_add", cuda::add_elements<1>, cuda::shape_for(exec, rows, columns, 1), a);
}

void decay_gate(const DecayGate& a, CudaExec& exec) {
  check(a);
  if (a.x.size() == 0) return;
  cuda::trace(exec, "decay_gate", name(a.formula), to_string(a.x.shape));
  launch(exec, "decay_gate", cuda::decay_elements, cuda::shape_for(exec, a.x.shape[0], a.x.shape[1], 1), a);
}

}  // namespace v0
}  // namespace ashlar
