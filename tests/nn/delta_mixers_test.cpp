// SPDX-License-Identifier: Apache-2.0
// The layers of the delta rule with every option, against their equations in double.
#include "ashlar/nn/mixers/delta_net.hpp"
#include "ashlar/nn/mixers/gated_delta_net.hpp"
#include "ashlar/nn/mixers/gated_delta_product.hpp"
#include "ashlar/nn/mixers/kda.hpp"
#include "tests/nn/fla_reference.hpp"

namespace ashlar {
namespace {

using namespace test;

constexpr Index kTokens = 19;

Rows strengths(Layer& l, Index heads, bool doubled) {
  return Layer::map(Activation::sigmoid, l.linear("b_proj", l.x(), heads), doubled ? 2 : 1);
}

Matrix expected(const Weights& w, const DeltaNetConfig& c, const Matrix& x) {
  Layer l(w, x);
  auto normed = [&](const char* name) {
    Rows y = l.convolved(name, c.heads * c.key_dim, c.conv, c.qk_activation);
    if (!c.sum_norm) return Layer::l2(y, c.key_dim);
    ref::sum_norm(SumNormArgs<double>{y.heads(c.key_dim), y.heads(c.key_dim)});
    return y;
  };
  Rows q = normed("q"), k = normed("k"),
       v = l.convolved("v", c.heads * c.value_dim, c.conv, Activation::silu),
       o(kTokens, c.heads * c.value_dim);
  Rows beta(kTokens, c.heads);
  std::fill(beta.values.begin(), beta.values.end(), c.negative_eigenvalues ? 2 : 1);
  if (c.beta) beta = strengths(l, c.heads, c.negative_eigenvalues);
  LinearRecurrenceArgs<double> args{
      q.heads(c.key_dim), k.heads(c.key_dim), v.heads(c.value_dim), {}, beta.view()};
  Layer::recur(args, o, c.value_dim);
  Rows gate = l.linear("g_proj", l.x(), c.heads * c.value_dim);
  return l.output(o, c.value_dim, "o_norm.weight", c.norm_eps, c.output_gate ? &gate : nullptr);
}

TEST(DeltaNet, MatchesTheEquations) {
  std::mt19937 rng(1);
  const Weights w(21);
  std::vector<DeltaNetConfig> configs(4);
  configs[0] = {16, 2, 8, 8, {4, false}};
  configs[1] = {15, 3, 5, 7, {3, true}, Activation::relu, false, true, true, true, 1e-6f};
  configs[2] = {12, 2, 6, 3, {}, Activation::elu1, true, false};
  configs[3] = {9, 1, 7, 66, {1, false}, Activation::identity, false, true, false, true};
  for (const DeltaNetConfig& c : configs) {
    Array<2> x({kTokens, c.hidden});
    x.normal(rng);
    check_mixer(w, x, expected(w, c, rows_of(x.cview())),
                [&](const auto& r) { return std::make_unique<DeltaNet<CpuExec>>(r, c); });
  }
}

// Gated DeltaNet is Gated DeltaProduct with one update.
Matrix expected(const Weights& w, const GatedDeltaProductConfig& c, const Matrix& x) {
  Layer l(w, x);
  const Index n = c.substeps, heads = c.value_heads, keys = c.key_heads * c.key_dim,
              values = heads * c.value_dim;
  const Activation silu = Activation::silu;
  Rows q = Layer::l2(l.convolved("q", keys, c.conv, silu), c.key_dim),
       k = Layer::l2(l.convolved("k", n * keys, c.conv, silu), c.key_dim),
       v = l.convolved("v", n * values, c.conv, silu), o(kTokens, values);
  Rows beta = strengths(l, n * heads, c.negative_eigenvalues), decay = l.linear("a_proj", l.x(), heads);
  const Vector a_log = l.vector("A_log", heads), dt_bias = l.vector("dt_bias", heads);
  ref::decay_gate(
      DecayGateArgs<double>{decay.view(), {a_log.data(), {heads}}, {dt_bias.data(), {heads}}, decay.view()});
  LinearRecurrenceArgs<double> args{q.heads(c.key_dim), k.steps(n, c.key_dim), v.steps(n, c.value_dim)};
  args.beta = View<double, 2>(beta.values.data(), {kTokens * n, heads}), args.substeps = n;
  if (c.forget_gate) args.g = decay.view();
  Layer::recur(args, o, c.value_dim);
  Rows gate = l.linear("g_proj", l.x(), values);
  return l.output(o, c.value_dim, "o_norm.weight", c.norm_eps, c.output_gate ? &gate : nullptr);
}

TEST(GatedDeltaProduct, MatchesTheEquations) {
  std::mt19937 rng(2);
  const Weights w(22);
  std::vector<GatedDeltaProductConfig> configs(3);
  configs[0] = {16, 2, 2, 8, 8, 2, {4, false}};
  configs[1] = {15, 2, 6, 5, 7, 3, {2, true}, true, false, false};
  configs[2] = {9, 1, 1, 6, 5, 1, {}, false, true, true, 1e-6f};
  for (const GatedDeltaProductConfig& c : configs) {
    Array<2> x({kTokens, c.hidden});
    x.normal(rng);
    check_mixer(w, x, expected(w, c, rows_of(x.cview())),
                [&](const auto& r) { return std::make_unique<GatedDeltaProduct<CpuExec>>(r, c); });
  }
}

TEST(GatedDeltaNet, MatchesTheEquationsWithTheOptionsOfItsAuthors) {
  std::mt19937 rng(3);
  const Weights w(23);
  std::vector<GatedDeltaNetConfig> configs(3);
  configs[0] = {16, 2, 4, 8, 12, 3, true, true, true, 1e-6f};
  configs[1] = {15, 3, 3, 5, 7, 0, false, false};
  configs[2] = {12, 1, 3, 6, 4, 4, false, false};
  for (const GatedDeltaNetConfig& c : configs) {
    Array<2> x({kTokens, c.hidden});
    x.normal(rng);
    const GatedDeltaProductConfig same{c.hidden,
                                       c.key_heads,
                                       c.value_heads,
                                       c.key_dim,
                                       c.value_dim,
                                       1,
                                       {c.conv_width, c.conv_biased},
                                       true,
                                       c.output_gate,
                                       c.negative_eigenvalues,
                                       c.norm_eps};
    check_mixer(w, x, expected(w, same, rows_of(x.cview())),
                [&](const auto& r) { return std::make_unique<GatedDeltaNet<CpuExec>>(r, c); });
  }
}

Matrix expected(const Weights& w, const KimiDeltaAttentionConfig& c, const Matrix& x) {
  Layer l(w, x);
  const Index heads = c.value_heads, channels = heads * c.key_dim;
  const Activation silu = Activation::silu;
  Rows q = Layer::l2(l.convolved("q", c.keys(), c.conv, silu), c.key_dim),
       k = Layer::l2(l.convolved("k", c.keys(), c.conv, silu), c.key_dim),
       v = l.convolved("v", c.values(), c.conv, silu), o(kTokens, c.values());
  Rows beta = strengths(l, heads, c.negative_eigenvalues);
  Rows decay = l.linear("f_proj.1", l.linear("f_proj.0", l.x(), c.decay_rank), channels);
  const Vector a_log = l.vector("A_log", heads), dt_bias = l.vector("dt_bias", channels);
  DecayGateArgs<double> formula{
      decay.view(), {a_log.data(), {heads}}, {dt_bias.data(), {channels}}, decay.view()};
  if (c.bound) formula.formula = DecayFormula::bounded, formula.bound = *c.bound;
  ref::decay_gate(formula);
  LinearRecurrenceArgs<double> args{
      q.heads(c.key_dim), k.heads(c.key_dim), v.heads(c.value_dim), {}, beta.view()};
  args.gk = decay.heads(c.key_dim);
  Layer::recur(args, o, c.value_dim);
  Rows gate = l.linear("g_proj.1", l.linear("g_proj.0", l.x(), c.gate_rank), c.values(), true);
  return l.output(o, c.value_dim, "o_norm.weight", c.norm_eps, &gate, Activation::sigmoid);
}

TEST(KimiDeltaAttention, MatchesTheEquations) {
  std::mt19937 rng(4);
  const Weights w(24);
  std::vector<KimiDeltaAttentionConfig> configs(3);
  configs[0] = {16, 2, 2, 8, 8, {4, false}, 8, 8};
  configs[1] = {15, 2, 4, 5, 7, {3, true}, 3, 7, true, -5.0f, 1e-6f};
  configs[2] = {12, 1, 3, 6, 4, {}, 4, 2};
  for (const KimiDeltaAttentionConfig& c : configs) {
    Array<2> x({kTokens, c.hidden});
    x.normal(rng);
    check_mixer(w, x, expected(w, c, rows_of(x.cview())),
                [&](const auto& r) { return std::make_unique<KimiDeltaAttention<CpuExec>>(r, c); });
  }
}

}  // namespace
}  // namespace ashlar
