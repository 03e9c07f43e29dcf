// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/matvlm.hpp"

#include "ashlar/io/huggingface.hpp"
#include "tests/nn/reference.hpp"

namespace ashlar {
namespace {

using namespace test;

Parameter parameter(const Vector& values, std::vector<Index> shape) {
  auto owner = std::make_shared<Tensor<float, 1>>(std::array<Index, 1>{static_cast<Index>(values.size())});
  std::copy(values.begin(), values.end(), owner->data());
  return {owner->data(), DType::f32, std::move(shape), owner};
}

// 6 heads of 4, values and keys in 2, biases everywhere.
constexpr const char* kConfig = R"({"d_model": 20, "d_inner": 24, "d_xb": 8, "intermediate_size": 28,
  "hidden_act": "gelu_new", "n_layer": 1, "is_bias": true, "bidirectional": false, "resid_pdrop": 0.1,
  "layer_norm_eps": 1e-5, "ssm_cfg": {"ngroups": 6, "d_state": 4, "d_conv": 3, "dt_limit": [0.0, Infinity]}})";

MatvlmConfig config(std::string_view text = kConfig) {
  return MatvlmConfig::from(parse_config(text, "config"));
}

TEST(Matvlm, ReadsItsConfig) {
  const MatvlmConfig c = config();
  EXPECT_EQ(c.activation, Activation::gelu_tanh);
  const Mamba2Config& m = c.mixer;
  EXPECT_EQ(m.heads, 6);
  EXPECT_EQ(m.head_dim, 4);
  EXPECT_EQ(m.state_dim, 4);
  EXPECT_EQ(m.x_heads, 2);
  EXPECT_EQ(m.b_groups, 2);
  EXPECT_EQ(m.c_groups, 6);
  EXPECT_EQ(m.norm_groups, 6);
  EXPECT_EQ(m.projected(), 24 + 8 + 8 + 24 + 6);
  EXPECT_EQ(m.conv_channels(), 40);
  EXPECT_EQ(m.conv_width, 3);
  EXPECT_TRUE(m.biased && m.conv_bias && m.normalised);
  EXPECT_FALSE(m.repeat_before_conv || m.norm_before_gate || m.skip_per_channel);
  EXPECT_EQ(m.max_step, std::numeric_limits<float>::infinity());
}

TEST(Matvlm, RefusesConfigsThatItCannotRun) {
  auto with = [](const std::string& from, const std::string& to) {
    std::string text = kConfig;
    text.replace(text.find(from), from.size(), to);
    return refusal([&] { config(text); });
  };
  EXPECT_EQ(with("\"d_inner\": 24", "\"d_inner\": 25"),
            "config: \"d_inner\" is 25, expected \"ngroups\" times \"d_state\", 24");
  EXPECT_EQ(with("\"d_xb\": 8", "\"d_xb\": 16"),
            "config: \"d_xb\" is 16, expected a multiple of \"d_state\", 4, that divides \"d_inner\", 24");
  EXPECT_EQ(with("\"bidirectional\": false", "\"bidirectional\": true"),
            "config: \"bidirectional\" is \"true\", which is not supported; supported: false");
  EXPECT_EQ(with("[0.0, Infinity]", "[0.0]"), "config: \"dt_limit\" is not a list of two numbers");
  EXPECT_NE(with("[0.0, Infinity]", "[NaN, 1]").find("expected 0 <= low <= high"), std::string::npos);
}

TEST(ParameterMap, StandsInFrontOfAnother) {
  auto behind = std::make_shared<ParameterMap>();
  behind->set("a", parameter({1}, {1})), behind->set("b", parameter({2}, {1}));
  ParameterMap front(behind);
  front.set("b", parameter({3, 4}, {2})), front.set("c", parameter({5}, {1}));
  auto names = front.names();
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(front.at("b").size(), 2);
  EXPECT_EQ(front.at("a").size(), 1);
  EXPECT_FALSE(front.contains("d"));
}

// Without decay, steps of 1, no skip, a convolution that passes its input on: what the mixer reads is linear
// attention with the queries, keys and values of the attention that it was made from.
TEST(Matvlm, StartsFromAnAttentionAsLinearAttention) {
  const Weights w(21);
  Mamba2Config c = config().mixer;
  c.activation = Activation::identity, c.normalised = false, c.conv_bias = false, c.min_step = c.max_step = 1;
  const Index d = c.hidden, H = c.heads, P = c.head_dim, inner = c.inner(), few = c.x_width();
  ParameterMap weights;
  auto random = [&](const char* name, std::vector<Index> shape) {
    weights.set(name, parameter(w.flat(name, shape), shape));
  };
  random("self_attn.q_proj.weight", {inner, d}), random("self_attn.k_proj.weight", {few, d});
  random("self_attn.v_proj.weight", {few, d}), random("self_attn.dense.weight", {d, inner});
  random("self_attn.q_proj.bias", {inner}), random("self_attn.k_proj.bias", {few});
  random("self_attn.v_proj.bias", {few}), random("self_attn.dense.bias", {d});
  random("mamba.in_proj.weight", {c.projected(), d}), random("mamba.in_proj.bias", {c.projected()});
  random("mamba.dt_bias", {H});
  Vector tap(static_cast<std::size_t>(c.conv_channels() * c.conv_width));
  for (std::size_t i = 2; i < tap.size(); i += 3) tap[i] = 1;
  weights.set("mamba.conv1d.weight", parameter(tap, {c.conv_channels(), 1, c.conv_width}));
  weights.set("mamba.A_log",
              parameter(Vector(std::size_t(H), -std::numeric_limits<double>::infinity()), {H}));
  weights.set("mamba.D", parameter(Vector(std::size_t(H)), {H}));
  const ParameterLookup all(weights);
  ParameterMap made;
  init_ssm_from_attention(all.scope("self_attn"), all.scope("mamba"), c, made);
  for (const char* name :
       {"mamba.in_proj.weight", "mamba.in_proj.bias", "mamba.out_proj.weight", "mamba.out_proj.bias"})
    weights.set(name, made.at(name));
  EXPECT_EQ(made.names().size(), 4u);

  Array<2> x({17, d}), out({17, d});
  std::mt19937 rng(8);
  x.normal(rng);
  auto project = [&](const char* weight, const char* bias, Index rows, const Vector& token) {
    Vector y = times(w.matrix(weight, rows, d), token);
    const Vector b = w.flat(bias, {rows});
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += b[i];
    return y;
  };
  const Matrix dense = w.matrix("self_attn.dense.weight", d, inner);
  const Vector dense_bias = w.flat("self_attn.dense.bias", {d});
  std::vector<Matrix> state = zero_states(H, P, P);
  Matrix want;
  for (const Vector& token : rows_of(x.cview())) {
    const Vector q = project("self_attn.q_proj.weight", "self_attn.q_proj.bias", inner, token),
                 k = project("self_attn.k_proj.weight", "self_attn.k_proj.bias", few, token),
                 v = project("self_attn.v_proj.weight", "self_attn.v_proj.bias", few, token),
                 z = project("mamba.in_proj.weight", "mamba.in_proj.bias", c.projected(), token);
    Vector y(static_cast<std::size_t>(inner));
    for (Index h = 0; h < H; ++h)
      for (Index i = 0; i < P; ++i)
        for (Index j = 0; j < P; ++j) {
          const Index group = h / 3 * P;
          double& s = state[std::size_t(h)][std::size_t(i)][std::size_t(j)];
          s += k[std::size_t(group + i)] * v[std::size_t(group + j)];
          y[std::size_t(h * P + j)] += q[std::size_t(h * P + i)] * s;
        }
    for (std::size_t i = 0; i < y.size(); ++i) y[i] *= silu(z[i]);
    want.push_back(times(dense, y));
    for (std::size_t i = 0; i < dense_bias.size(); ++i) want.back()[i] += dense_bias[i];
  }
  CpuExec exec;
  const Mamba2<CpuExec> mixer(ParameterReader<CpuExec>(weights, exec).scope("mamba"), c);
  mixer(x.cview(), out.view(), SequenceBatch<CpuExec>(), exec);
  for (Index t = 0; t < 17; ++t)
    for (Index i = 0; i < d; ++i)
      ASSERT_NEAR(out.view()(t, i), want[std::size_t(t)][std::size_t(i)], 200 * kEps * largest(want));
}

TEST(Matvlm, RefusesAnAttentionOfOtherWidths) {
  const Mamba2Config c = config().mixer;
  const Weights w(22);
  ParameterMap weights, made;
  auto random = [&](const char* name, std::vector<Index> shape) {
    weights.set(name, parameter(w.flat(name, shape), shape));
  };
  random("mamba.in_proj.weight", {c.projected(), c.hidden});
  random("self_attn.v_proj.weight", {c.inner(), c.hidden});
  const ParameterLookup all(weights);
  EXPECT_EQ(refusal([&] { init_ssm_from_attention(all.scope("self_attn"), all.scope("mamba"), c, made); }),
            "checkpoint: tensor \"self_attn.v_proj.weight\" has shape [24, 20], expected [8, 20]");
  EXPECT_TRUE(made.names().empty());
}

}  // namespace
}  // namespace ashlar
