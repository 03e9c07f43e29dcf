// SPDX-License-Identifier: Apache-2.0
// The layers of linear attention, with and without decay, with every option, against their equations in
// double.
#include "ashlar/nn/mixers/gla.hpp"
#include "ashlar/nn/mixers/hgrn.hpp"
#include "ashlar/nn/mixers/hgrn2.hpp"
#include "ashlar/nn/mixers/linear_attn.hpp"
#include "ashlar/nn/mixers/retention.hpp"
#include "ashlar/nn/mixers/simple_gla.hpp"
#include "ashlar/ref/feature_map.hpp"
#include "ashlar/ref/gated_scan.hpp"
#include "ashlar/ref/rope.hpp"
#include "tests/nn/fla_reference.hpp"

namespace ashlar {
namespace {

using namespace test;

constexpr Index kTokens = 19;

// `decay`(q, k, args) gives the member's part of the arguments.
template <class Decay>
Matrix expected_decayed(Layer& l, const DecayedAttentionConfig& c, Decay&& decay) {
  const bool convolved = c.conv.width != 0;
  const Activation f = convolved ? Activation::silu : Activation::identity;
  Rows q = Layer::map(c.feature_map, l.convolved("q", c.queries(), c.conv, f)),
       k = Layer::map(c.feature_map, l.convolved("k", c.keys(), c.conv, f)),
       v = l.convolved("v", c.kv_heads * c.value_dim, c.conv, f), o(kTokens, c.values());
  LinearRecurrenceArgs<double> args{q.heads(c.key_dim), k.heads(c.key_dim), v.heads(c.value_dim)};
  decay(q, k, args);
  Layer::recur(args, o, c.value_dim);
  Rows gate = l.linear("g_proj", l.x(), c.values());
  return l.output(o, c.value_dim, c.norm_weight ? "g_norm_swish_gate.weight" : nullptr, c.norm_eps,
                  c.output_gate ? &gate : nullptr, c.gate_activation);
}

std::vector<DecayedAttentionConfig> decayed_configs() {
  std::vector<DecayedAttentionConfig> configs(3);
  configs[0] = {16, 2, 2, 4, 8, {}};
  configs[1] = {15, 6, 2, 6, 5, {3, true}, Activation::relu, true, false, Activation::sigmoid, 1e-6f};
  configs[2] = {12, 3, 1, 2, 7, {}, Activation::relu2, false};
  return configs;
}

template <class M, class Config, class Expected>
void check_decayed(unsigned seed, Config base, Expected&& expected) {
  std::mt19937 rng(seed);
  const Weights w(seed);
  for (const DecayedAttentionConfig& common : decayed_configs()) {
    Config c = base;
    static_cast<DecayedAttentionConfig&>(c) = common;
    Array<2> x({kTokens, c.hidden});
    x.normal(rng);
    Layer l(w, rows_of(x.cview()));
    check_mixer(w, x, expected(l, c), [&](const auto& r) { return std::make_unique<M>(r, c); });
  }
}

TEST(GatedLinearAttention, MatchesTheEquations) {
  GatedLinearAttentionConfig base;
  base.decay_rank = 3, base.temperature = 4, base.floor = -0.4f;
  check_decayed<GatedLinearAttention<CpuExec>>(31, base, [](Layer& l, const GatedLinearAttentionConfig& c) {
    Rows decay = l.linear("gk_proj.1", l.linear("gk_proj.0", l.x(), c.decay_rank), c.keys(), true);
    return expected_decayed(l, c, [&](Rows&, Rows&, auto& args) {
      DecayGateArgs<double> formula{decay.view(), {}, {}, decay.view(), DecayFormula::log_sigmoid};
      formula.temperature = c.temperature, formula.floor = c.floor;
      ref::decay_gate(formula);
      args.gk = decay.heads(c.key_dim);
    });
  });
}

TEST(SimpleGatedLinearAttention, MatchesTheEquations) {
  SimpleGatedLinearAttentionConfig base;
  base.temperature = 3;
  check_decayed<SimpleGatedLinearAttention<CpuExec>>(
      32, base, [](Layer& l, const SimpleGatedLinearAttentionConfig& c) {
        Rows decay = l.linear("gk_proj", l.x(), c.heads, true);
        return expected_decayed(l, c, [&](Rows&, Rows&, auto& args) {
          DecayGateArgs<double> formula{decay.view(), {}, {}, decay.view(), DecayFormula::log_sigmoid};
          formula.temperature = c.temperature;
          ref::decay_gate(formula);
          args.g = decay.view();
        });
      });
}

TEST(Retention, MatchesTheEquations) {
  RetentionConfig base;
  base.rope_theta = 50;
  check_decayed<Retention<CpuExec>>(33, base, [](Layer& l, const RetentionConfig& c) {
    Vector decay, frequencies;
    for (Index h = 0; h < c.heads; ++h) decay.push_back(std::log(1 - std::exp2(-5 - double(h))));
    for (Index i = 0; i < c.key_dim / 2; ++i)
      frequencies.push_back(std::pow(c.rope_theta, -2 * double(i) / double(c.key_dim)));
    std::vector<Index> positions(kTokens);
    std::iota(positions.begin(), positions.end(), 0);
    return expected_decayed(l, c, [&](Rows& q, Rows& k, auto& args) {
      for (Rows* y : {&q, &k})
        ref::rope(RopeArgs<double>{y->heads(c.key_dim),
                                   {positions.data(), {kTokens}},
                                   {frequencies.data(), {c.key_dim / 2}},
                                   y->heads(c.key_dim)});
      args.g = constant_decay(View<const double, 1>(decay.data(), {c.heads}), kTokens);
    });
  });
}

Rows features(const Layer& l, Rows y, const std::string& name, FeatureMapKind kind, Index dim) {
  const Index rows = y.shape[0] * y.shape[1] / dim;
  Rows flat(rows, dim);
  flat.values = y.values;
  Rows wide(rows, kind == FeatureMapKind::dpfp ? 8 * dim : 2 * dim);
  switch (kind) {
    case FeatureMapKind::identity: return flat;
    case FeatureMapKind::elu1: return Layer::map(Activation::elu1, flat);
    case FeatureMapKind::relu: return Layer::map(Activation::relu, flat);
    case FeatureMapKind::t2r: return Layer::map(Activation::relu, l.linear(name + ".layer", flat, dim));
    case FeatureMapKind::elementwise_product: {
      Rows a = l.linear(name + ".layer1", flat, dim, true), b = l.linear(name + ".layer2", flat, dim, true);
      for (std::size_t i = 0; i < a.values.size(); ++i) a.values[i] *= b.values[i];
      return a;
    }
    case FeatureMapKind::hedgehog: {
      Rows z = l.linear(name + ".layer", flat, dim, true);
      ref::hedgehog(HedgehogArgs<double>{z.heads(dim), wide.heads(2 * dim)});
      return wide;
    }
    case FeatureMapKind::dpfp: ref::dpfp(DpfpArgs<double>{flat.heads(dim), wide.heads(8 * dim)}); return wide;
  }
  return flat;
}

TEST(LinearAttention, MatchesTheEquationsWithEachFeatureMap) {
  std::mt19937 rng(34);
  const Weights w(34);
  for (FeatureMapKind kind : {FeatureMapKind::identity, FeatureMapKind::elu1, FeatureMapKind::relu,
                              FeatureMapKind::elementwise_product, FeatureMapKind::t2r,
                              FeatureMapKind::hedgehog, FeatureMapKind::dpfp}) {
    const bool positive = kind == FeatureMapKind::elu1 || kind == FeatureMapKind::hedgehog;
    LinearAttentionConfig c{14, 4, 2, 5, 3, kind};
    c.tied_feature_maps = kind == FeatureMapKind::t2r;
    c.norm_q = c.norm_k = c.normalize = positive;
    c.output_norm = kind != FeatureMapKind::relu, c.norm_weight = kind != FeatureMapKind::dpfp;
    Array<2> x({kTokens, c.hidden});
    x.normal(rng);
    Layer l(w, rows_of(x.cview()));
    auto mapped = [&](const char* name, const char* map, Index heads, bool sums) {
      Rows y = features(l, l.linear(name, l.x(), heads * c.key_dim), map, kind, c.key_dim);
      const Index dim = y.shape[1];
      y.shape = {kTokens, heads * dim};
      if (sums) ref::sum_norm(SumNormArgs<double>{y.heads(dim), y.heads(dim), 1e-4});
      return y;
    };
    Rows q = mapped("q_proj", "feature_map_q", c.heads, c.norm_q),
         k = mapped("k_proj", c.tied_feature_maps ? "feature_map_q" : "feature_map_k", c.kv_heads, c.norm_k),
         v = l.linear("v_proj", l.x(), c.kv_heads * c.value_dim), o(kTokens, c.heads * c.value_dim);
    const Index dim = q.shape[1] / c.heads;
    LinearRecurrenceArgs<double> args{q.heads(dim), k.heads(dim), v.heads(c.value_dim)};
    args.normalize = c.normalize;
    Layer::recur(args, o, c.value_dim);
    const Matrix want = c.output_norm
                            ? l.output(o, c.value_dim, c.norm_weight ? "norm.weight" : nullptr, c.norm_eps)
                            : l.linear("o_proj", o, c.hidden).matrix();
    SCOPED_TRACE(testing::Message() << "feature map " << static_cast<int>(kind));
    check_mixer(w, x, want, [&](const auto& r) { return std::make_unique<LinearAttention<CpuExec>>(r, c); });
  }
}

// Decay and tied input gate; `bound` empty: 0.
std::pair<Rows, Rows> tied(Rows decay, const Vector& bound) {
  Rows share = decay;
  const Vector zeros(std::size_t(decay.shape[1]));
  DecayGateArgs<double> formula{decay.view(), {}, {}, decay.view(), DecayFormula::lower_bounded};
  formula.lower_bound = {(bound.empty() ? zeros : bound).data(), {decay.shape[1]}};
  formula.complement = share.view();
  ref::decay_gate(formula);
  return {decay, share};
}
std::pair<Vector, Tensor<float, 1>> random_bound(Index n, std::mt19937& rng) {
  std::uniform_real_distribution<float> u(0, 1);
  Tensor<float, 1> bound({n});
  for (Index i = 0; i < n; ++i) bound.data()[i] = i == 0 ? 0 : u(rng);
  return {Vector(bound.data(), bound.data() + n), bound};
}

TEST(Hgrn2, MatchesTheEquations) {
  std::mt19937 rng(35);
  const Weights w(35);
  for (const Hgrn2Config& c : {Hgrn2Config{16, 2, 8, 8, {}}, Hgrn2Config{15, 3, 5, 5, {3, true}, false}})
    for (bool bounded : {false, true}) {
      Array<2> x({kTokens, c.hidden});
      x.normal(rng);
      const auto bound = random_bound(c.keys(), rng);
      Layer l(w, rows_of(x.cview()));
      Rows q = l.convolved("q", c.keys(), c.conv, Activation::silu),
           v = l.convolved("i", c.values(), c.conv, Activation::identity), o(kTokens, c.values());
      auto gates =
          tied(l.convolved("f", c.keys(), c.conv, Activation::identity), bounded ? bound.first : Vector());
      LinearRecurrenceArgs<double> args{q.heads(c.key_dim), gates.second.heads(c.key_dim),
                                        v.heads(c.value_dim)};
      args.gk = gates.first.heads(c.key_dim);
      Layer::recur(args, o, c.value_dim);
      check_mixer(
          w, x, l.output(o, c.values(), c.norm_weight ? "g_norm.weight" : nullptr, 1e-5), [&](const auto& r) {
            return std::make_unique<Hgrn2<CpuExec>>(r, c, bounded ? bound.second : Tensor<float, 1>());
          });
    }
}

TEST(Hgrn, MatchesTheEquations) {
  std::mt19937 rng(36);
  const Weights w(36);
  for (const HgrnConfig& c : {HgrnConfig{16, 16, {}}, HgrnConfig{13, 70, {4, true}, false, 1e-6f}})
    for (bool bounded : {false, true}) {
      Array<2> x({kTokens, c.hidden});
      x.normal(rng);
      const auto bound = random_bound(c.width, rng);
      Layer l(w, rows_of(x.cview()));
      auto gates =
          tied(l.convolved("f", c.width, c.conv, Activation::identity), bounded ? bound.first : Vector());
      Rows u = Layer::map(Activation::silu, l.convolved("i", c.width, c.conv, Activation::identity));
      for (std::size_t i = 0; i < u.values.size(); ++i) u.values[i] *= gates.second.values[i];
      Rows state(1, c.width), gate = l.linear("g_proj", l.x(), c.width);
      ref::hgrn(GatedScanArgs<double>{u.view(), gates.first.view(), u.view()}, state.view());
      check_mixer(w, x, l.output(u, c.width, c.norm_weight ? "g_norm.weight" : nullptr, c.norm_eps, &gate),
                  [&](const auto& r) {
                    return std::make_unique<Hgrn<CpuExec>>(r, c, bounded ? bound.second : Tensor<float, 1>());
                  });
    }
}

}  // namespace
}  // namespace ashlar
