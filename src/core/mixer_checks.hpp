// SPDX-License-Identifier: Apache-2.0
// What the ops around recurrences refuse, wherever they run; what lies in arrays is not looked at.
#pragma once
#include "ashlar/ops/feature_map.hpp"
#include "ashlar/ops/gated_scan.hpp"
#include "ashlar/ops/rwkv7_gates.hpp"
#include "ashlar/ops/scale_heads.hpp"
#include "ashlar/ops/token_shift.hpp"

namespace ashlar {
inline namespace v0 {

inline void check(const ScaleHeads& a) {
  const auto [tokens, heads, dim] = a.out.shape;
  const Index x_heads = a.x.shape[1];
  expect_shape("scale_heads", "out", a.out, a.out.shape);
  if (x_heads == 0 ? heads != 0 : heads % x_heads != 0)
    refuse("scale_heads", "x has ", x_heads, " heads, expected a divisor of out's ", heads);
  expect_shape("scale_heads", "x", a.x, {tokens, x_heads, dim});
  expect_shape("scale_heads", "scale", a.scale, {tokens, heads, a.scale.shape[2] == 1 ? 1 : dim});
  if (a.add) expect_shape("scale_heads", "add", a.add, a.out.shape);
}

inline void check(const Dpfp& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  if (a.nu < 1) refuse("dpfp", "nu is ", a.nu, ", expected 1 or more");
  expect_shape("dpfp", "x", a.x, a.x.shape);
  expect_shape("dpfp", "out", a.out, {tokens, heads, 2 * dim * a.nu});
}

inline void check(const Hedgehog& a) {
  const auto [tokens, heads, dim] = a.x.shape;
  expect_shape("hedgehog", "x", a.x, a.x.shape);
  expect_shape("hedgehog", "out", a.out, {tokens, heads, 2 * dim});
}

inline void check(const Rwkv7Values& a) {
  expect_shape("rwkv7_values", "v", a.v, a.v.shape);
  expect_shape("rwkv7_values", "first", a.first, a.v.shape);
  expect_shape("rwkv7_values", "gate", a.gate, a.v.shape);
  expect_shape("rwkv7_values", "out", a.out, a.v.shape);
}

inline void check(const Rwkv7Keys& a) {
  const auto [tokens, heads, dim] = a.k.shape;
  expect_shape("rwkv7_keys", "k", a.k, a.k.shape);
  expect_shape("rwkv7_keys", "gate", a.gate, a.k.shape);
  expect_shape("rwkv7_keys", "k_k", a.k_k, {heads, dim});
  expect_shape("rwkv7_keys", "k_a", a.k_a, {heads, dim});
  expect_shape("rwkv7_keys", "key", a.key, a.k.shape);
  expect_shape("rwkv7_keys", "a", a.a, a.k.shape);
  expect_shape("rwkv7_keys", "b", a.b, a.k.shape);
}

inline void check(const Rwkv7Output& a) {
  const auto [tokens, heads, dv] = a.x.shape;
  const Index dim = a.r.shape[2];
  expect_shape("rwkv7_output", "x", a.x, a.x.shape);
  expect_shape("rwkv7_output", "r", a.r, {tokens, heads, dim});
  expect_shape("rwkv7_output", "k", a.k, {tokens, heads, dim});
  expect_shape("rwkv7_output", "r_k", a.r_k, {heads, dim});
  expect_shape("rwkv7_output", "v", a.v, a.x.shape);
  expect_shape("rwkv7_output", "gate", a.gate, a.x.shape);
  expect_shape("rwkv7_output", "out", a.out, a.x.shape);
}

inline void check(const TokenShift& a) {
  const auto [ways, tokens, channels] = a.out.shape;
  expect_shape("token_shift", "x", a.x, {tokens, channels});
  expect_shape("token_shift", "mu", a.mu, a.out.shape);
  expect_shape("token_shift", "out", a.out, a.out.shape);
  a.offsets.check("token_shift", tokens);
  const Index sequences = a.offsets.count();
  if (!a.states.empty() && static_cast<Index>(a.states.size()) != sequences)
    refuse("token_shift", a.states.size(), " states were given, expected one for each of ", sequences,
           " sequences");
  for (std::size_t n = 0; n < a.states.size(); ++n)
    if (a.states[n] == nullptr && channels > 0) refuse("token_shift", "states[", n, "] is null");
}

template <class State>
void check(const GatedScanArgs<float, State>& a) {
  constexpr std::string_view op = "hgrn";
  const auto [tokens, dim] = a.x.shape;
  expect_shape(op, "x", a.x, a.x.shape);
  expect_shape(op, "g", a.g, a.x.shape);
  expect_shape(op, "out", a.out, a.x.shape);
  a.offsets.check(op, tokens);
  if (!a.states.empty() && static_cast<Index>(a.states.size()) != a.offsets.count())
    refuse(op, a.states.size(), " states were given, expected one for each of ", a.offsets.count(),
           " sequences");
  for (std::size_t n = 0; n < a.states.size(); ++n) {
    const State* s = a.states[n];
    if (s == nullptr) refuse(op, "states[", n, "] is null");
    const std::array<Index, 3> shape{s->heads(), s->key_dim(), s->value_dim()}, want{1, 1, dim};
    if (shape != want)
      refuse(op, "states[", n, "] has shape ", to_string(shape), ", expected ", to_string(want));
    if (s->dtype() != DType::f32) refuse(op, "states[", n, "] is ", name(s->dtype()), ", expected f32");
  }
}

}  // namespace v0
}  // namespace ashlar
