// SPDX-License-Identifier: Apache-2.0
// What ops refuse, wherever they run; what lies in arrays is not looked at.
#pragma once
#include <cmath>

#include "ashlar/ops/activation.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/embedding.hpp"
#include "ashlar/ops/moe.hpp"
#include "ashlar/ops/norm.hpp"
#include "ashlar/ops/residual_add.hpp"
#include "ashlar/ops/rope.hpp"
#include "ashlar/ops/short_conv.hpp"

namespace ashlar {
inline namespace v0 {

inline void check(const RmsNorm& a) {
  const Index heads = a.x.shape[1], dim = a.x.shape[2];
  expect_shape("rms_norm", "x", a.x, a.x.shape);
  expect_shape("rms_norm", "out", a.out, a.x.shape);
  if (a.gate) expect_shape("rms_norm", "gate", a.gate, a.x.shape);
  if (a.weight && a.weight.shape[0] != heads * dim) expect_shape("rms_norm", "weight", a.weight, {dim});
}

inline void check(const LayerNorm& a) {
  const Index heads = a.x.shape[1], dim = a.x.shape[2];
  expect_shape("layer_norm", "x", a.x, a.x.shape);
  expect_shape("layer_norm", "out", a.out, a.x.shape);
  if (a.gate) expect_shape("layer_norm", "gate", a.gate, a.x.shape);
  if (a.weight && a.weight.shape[0] != heads * dim) expect_shape("layer_norm", "weight", a.weight, {dim});
  if (a.bias && a.bias.shape[0] != heads * dim) expect_shape("layer_norm", "bias", a.bias, {dim});
}

inline void check(const L2Norm& a) {
  expect_shape("l2_norm", "x", a.x, a.x.shape);
  expect_shape("l2_norm", "out", a.out, a.x.shape);
}

inline void check(const SumNorm& a) {
  expect_shape("sum_norm", "x", a.x, a.x.shape);
  expect_shape("sum_norm", "out", a.out, a.x.shape);
}

inline void check(const Rope& a) {
  const Index tokens = a.x.shape[0], dim = a.x.shape[2], pairs = a.inverse_frequencies.shape[0];
  expect_shape("rope", "x", a.x, a.x.shape);
  expect_shape("rope", "out", a.out, a.x.shape);
  expect_shape("rope", "positions", a.positions, {tokens});
  expect_shape("rope", "inverse_frequencies", a.inverse_frequencies, {pairs});
  if (2 * pairs > dim)
    refuse("rope", pairs, " inverse frequencies turn ", 2 * pairs, " elements of a head of ", dim);
}

inline void check(const Activate& a) {
  expect_shape("activate", "x", a.x, a.x.shape);
  if (a.up) expect_shape("activate", "up", a.up, a.x.shape);
  expect_shape("activate", "out", a.out, a.x.shape);
  if (!(a.limit > 0)) refuse("activate", "limit is ", a.limit, ", expected a positive number");
}

inline void check(const Embedding& a) {
  const Index tokens = static_cast<Index>(a.ids.size()), vocabulary = a.table.shape[0],
              dim = a.table.shape[1];
  const DType type = a.table.dtype;
  if (type != DType::f32 && type != DType::bf16 && type != DType::f16)
    refuse("embedding", "the table holds ", name(type), ", expected f32, bf16 or f16");
  expect_shape("embedding", "table", a.table.as<char>(), {vocabulary, dim});
  expect_shape("embedding", "out", a.out, {tokens, dim});
  for (Index t = 0; t < tokens; ++t) {
    const Index id = a.ids[static_cast<std::size_t>(t)];
    if (id < 0 || id >= vocabulary)
      refuse("embedding", "ids[", t, "] is ", id, ", expected 0 to ", vocabulary - 1, " (a table of ",
             vocabulary, " rows)");
  }
}

inline void check(const ShortConv& a) {
  const Index channels = a.x.shape[1], width = a.weight.shape[1];
  expect_shape("short_conv", "x", a.x, a.x.shape);
  expect_shape("short_conv", "out", a.out, a.x.shape);
  if (width < 1)
    refuse("short_conv", "weight has shape ", to_string(a.weight.shape), ", expected [C, W] with W >= 1");
  expect_shape("short_conv", "weight", a.weight, {channels, width});
  if (a.bias) expect_shape("short_conv", "bias", a.bias, {channels});
  a.offsets.check("short_conv", a.x.shape[0]);
  if (a.states.empty()) return;
  if (a.state_stride != 0 && a.state_stride < channels)
    refuse("short_conv", "state_stride is ", a.state_stride, ", expected 0 or at least the ", channels,
           " channels");
  const Index sequences = a.offsets.count();
  if (static_cast<Index>(a.states.size()) != sequences)
    refuse("short_conv", a.states.size(), " states were given, expected one for each of ", sequences,
           " sequences");
  for (std::size_t n = 0; n < a.states.size(); ++n)
    if (a.states[n] == nullptr && width > 1 && channels > 0) refuse("short_conv", "states[", n, "] is null");
}

inline void check(const MoeRoute& a) {
  constexpr std::string_view op = "moe_route";
  const auto [tokens, experts] = a.logits.shape;
  const Index chosen = a.experts.shape[1], count = experts;
  expect_shape(op, "logits", a.logits, a.logits.shape);
  if (chosen < 1 || chosen > count)
    refuse(op, "experts has shape ", to_string(a.experts.shape), ", expected 1 to ", count,
           " experts a token");
  expect_shape(op, "experts", a.experts, {tokens, chosen});
  expect_shape(op, "weights", a.weights, {tokens, chosen});
  if (a.selection_bias) expect_shape(op, "selection_bias", a.selection_bias, {count});
  if (a.groups < 1 || count % a.groups != 0)
    refuse(op, "groups is ", a.groups, ", expected a number that divides ", count, " experts");
  if (a.chosen_groups < 1 || a.chosen_groups > a.groups)
    refuse(op, "chosen_groups is ", a.chosen_groups, ", expected 1 to ", a.groups);
}

inline void check(const MoeGroup& a) {
  constexpr std::string_view op = "moe_group";
  const auto [tokens, chosen] = a.experts.shape;
  expect_shape(op, "experts", a.experts, a.experts.shape);
  if (a.offsets.shape[0] < 1) refuse(op, "offsets is empty, expected one more than there are experts");
  expect_shape(op, "offsets", a.offsets, a.offsets.shape);
  expect_shape(op, "tokens", a.tokens, {tokens * chosen});
  expect_shape(op, "rows", a.rows, {tokens, chosen});
  const Index experts = a.offsets.shape[0] - 1;
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 0; j < chosen; ++j)
      if (const Index e = a.experts(t, j); e < 0 || e >= experts)
        refuse(op, "experts[", t, ", ", j, "] is ", e, ", expected 0 to ", experts - 1);
}

inline void check(const MoeGather& a) {
  constexpr std::string_view op = "moe_gather";
  const auto [tokens, dim] = a.x.shape;
  const Index rows = a.tokens.shape[0], width = dim;
  expect_shape(op, "x", a.x, a.x.shape);
  expect_shape(op, "tokens", a.tokens, a.tokens.shape);
  expect_shape(op, "out", a.out, {rows, width});
  for (Index i = 0; i < rows; ++i)
    if (a.tokens(i) < 0 || a.tokens(i) >= tokens)
      refuse(op, "tokens[", i, "] is ", a.tokens(i), ", expected 0 to ", tokens - 1);
}

inline void check(const MoeCombine& a) {
  constexpr std::string_view op = "moe_combine";
  const Index tokens = a.rows.shape[0], chosen = a.rows.shape[1], rows = a.y.shape[0], dim = a.y.shape[1];
  expect_shape(op, "y", a.y, a.y.shape);
  expect_shape(op, "rows", a.rows, a.rows.shape);
  expect_shape(op, "weights", a.weights, {tokens, chosen});
  expect_shape(op, "out", a.out, {tokens, dim});
  if (a.shared) expect_shape(op, "shared", a.shared, {tokens, dim});
  if (a.shared_gate && !a.shared) refuse(op, "shared_gate was given without shared");
  if (a.shared_gate) expect_shape(op, "shared_gate", a.shared_gate, {tokens, 1});
  for (Index t = 0; t < tokens; ++t)
    for (Index j = 0; j < chosen; ++j)
      if (a.rows(t, j) < 0 || a.rows(t, j) >= rows)
        refuse(op, "rows[", t, ", ", j, "] is ", a.rows(t, j), ", expected 0 to ", rows - 1);
}

inline std::string_view name(DecayFormula f) {
  switch (f) {
    case DecayFormula::softplus: return "softplus";
    case DecayFormula::bounded: return "bounded";
    case DecayFormula::log_sigmoid: return "log_sigmoid";
    case DecayFormula::exponential: return "exponential";
    case DecayFormula::lower_bounded: return "lower_bounded";
  }
  refuse("decay_gate", "formula is ", static_cast<Index>(f), ", expected a DecayFormula");
}

inline void check(const DecayGate& a) {
  constexpr std::string_view op = "decay_gate";
  const Index channels = a.x.shape[1];
  const auto formula = name(a.formula);
  auto reads = [&](std::string_view what, bool given, bool read) {
    if (given && !read) refuse(op, what, " was given, expected none with the formula ", formula);
  };
  const bool stepped = a.formula == DecayFormula::softplus;
  reads("a_log", static_cast<bool>(a.a_log), stepped || a.formula == DecayFormula::bounded);
  reads("lower_bound", static_cast<bool>(a.lower_bound), a.formula == DecayFormula::lower_bounded);
  reads("step", static_cast<bool>(a.step), stepped);
  expect_shape(op, "x", a.x, a.x.shape);
  if (a.a_log) {
    const Index heads = a.a_log.shape[0];
    if (heads == 0 ? channels != 0 : channels % heads != 0)
      refuse(op, "a_log has shape ", to_string(a.a_log.shape), ", expected heads that divide ", channels,
             " channels");
    expect_shape(op, "a_log", a.a_log, {heads});
  }
  if (a.dt_bias) expect_shape(op, "dt_bias", a.dt_bias, {channels});
  expect_shape(op, "out", a.out, a.x.shape);
  if (a.step) expect_shape(op, "step", a.step, a.x.shape);
  if (a.complement) expect_shape(op, "complement", a.complement, a.x.shape);
  if (static_cast<bool>(a.beta) != static_cast<bool>(a.beta_logits))
    refuse(op, "beta and beta_logits were not both given, expected both or none");
  if (a.beta) {
    expect_shape(op, "beta_logits", a.beta_logits, {a.x.shape[0], a.beta_logits.shape[1]});
    expect_shape(op, "beta", a.beta, a.beta_logits.shape);
  }
  if (stepped && !(a.min_step >= 0 && a.min_step <= a.max_step))
    refuse(op, "steps are ", a.min_step, " to ", a.max_step, ", expected 0 <= min_step <= max_step");
  if (a.formula == DecayFormula::bounded && !(a.bound <= 0 && std::isfinite(a.bound)))
    refuse(op, "bound is ", a.bound, ", expected a finite number up to 0");
  if (a.formula == DecayFormula::log_sigmoid) {
    if (!(a.temperature > 0)) refuse(op, "temperature is ", a.temperature, ", expected more than 0");
    if (!(a.floor <= 0)) refuse(op, "floor is ", a.floor, ", expected up to 0");
  }
  if (a.formula == DecayFormula::lower_bounded) expect_shape(op, "lower_bound", a.lower_bound, {channels});
}

inline void check(const ResidualAdd& a) {
  expect_shape("residual_add", "x", a.x, a.x.shape);
  expect_shape("residual_add", "h", a.h, a.x.shape);
}

}  // namespace v0
}  // namespace ashlar
