// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// The state S [H, Dk, Dv] of a linear recurrence: a value, f32. Kept inside as panels of 64 value columns,
// [H][ceil(Dv / 64)][Dk][64], zeros behind Dv.
class RecurrentState {
 public:
  static constexpr Index kPanel = 64;

  RecurrentState() = default;
  RecurrentState(Index heads, Index key_dim, Index value_dim);

  Index heads() const { return heads_; }
  Index key_dim() const { return key_dim_; }
  Index value_dim() const { return value_dim_; }
  Index panels() const { return (value_dim_ + kPanel - 1) / kPanel; }
  float* panel(Index head, Index p) { return data_.data() + (head * panels() + p) * key_dim_ * kPanel; }
  const float* panel(Index head, Index p) const {
    return data_.data() + (head * panels() + p) * key_dim_ * kPanel;
  }
  std::span<float> raw() { return {data_.data(), static_cast<std::size_t>(data_.size())}; }
  std::span<const float> raw() const { return {data_.data(), static_cast<std::size_t>(data_.size())}; }

  void import_from(View<const float, 3> s);  // [H, Dk, Dv]
  void export_to(View<float, 3> s) const;    // [H, Dk, Dv]

 private:
  Index heads_ = 0, key_dim_ = 0, value_dim_ = 0;
  Tensor<float, 1> data_;
};

// Linear recurrence over each sequence, for each value head h with its key head h / (Hv / Hk):
//   S'_t = exp(g_t) S_{t-1}                                decay; no g: 1
//   S_t  = S'_t + k_t [beta_t (v_t - S'_t^T k_t)]^T        delta rule (beta given)
//   S_t  = S'_t + k_t v_t^T                                no transition (no beta)
//   o_t  = scale S_t^T q_t
// Gated delta rule: Yang, Kautz and Hatamizadeh, 2024; delta rule: Schlag et al., 2021; simple GLA,
// retention: without beta. 3 Dk Dv multiply-adds a token and head (2 without transition). Sums are f32, log
// decays are summed in f64. Refused: shapes that differ, Hv not a multiple of Hk, g > 0 or NaN, bad offsets,
// states of another shape or number.
template <class T>
struct LinearRecurrenceArgs {
  View<const T, 3> q, k;  // [T, Hk, Dk]
  View<const T, 3> v;     // [T, Hv, Dv]
  View<const T, 2> g;     // [T, Hv], log decay <= 0, -inf allowed; empty: none
  View<const T, 2> beta;  // [T, Hv]; empty: no transition
  View<T, 3> out;         // [T, Hv, Dv]
  T scale = 0;            // 0: Dk^-1/2
  Offsets offsets;
  std::span<RecurrentState* const>
      states;  // one a sequence, read and updated; empty: start from zero, keep nothing
};
using LinearRecurrence = LinearRecurrenceArgs<float>;

void linear_recurrence(const LinearRecurrence& args, CpuExec& exec);

// The names under which the literature knows them.
inline void gated_delta_rule(const LinearRecurrence& args, CpuExec& exec) {
  if (!args.g || !args.beta) refuse("gated_delta_rule", "g and beta are required");
  linear_recurrence(args, exec);
}
inline void delta_rule(const LinearRecurrence& args, CpuExec& exec) {
  if (args.g || !args.beta) refuse("delta_rule", "beta is required, and g must be empty");
  linear_recurrence(args, exec);
}

}  // namespace v0
}  // namespace ashlar
