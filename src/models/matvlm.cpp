// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/matvlm.hpp"

#include <algorithm>

#include "ashlar/models/mamba2.hpp"
#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

[[noreturn]] void invalid(std::string_view key, Index value, const std::string& expected) {
  throw Error("InvalidConfig", concat("config: \"", key, "\" is ", value, ", expected ", expected));
}

// The mixer's projections in memory of their own, to be overwritten in part.
struct Rows {
  std::shared_ptr<Tensor<float, 1>> values;
  std::vector<Index> shape;
  Index width() const { return shape.size() > 1 ? shape[1] : 1; }

  Rows(const ParameterLookup& r, const Names& names, std::vector<Index> extents)
      : values(std::make_shared<Tensor<float, 1>>(to_floats(r.tensor(names, extents)))),
        shape(std::move(extents)) {}
  void copy(const Rows& from, Index at) {
    std::copy_n(from.values->data(), from.values->size(), values->data() + at * width());
  }
  Parameter parameter() const { return {values->data(), DType::f32, shape, values}; }
};

}  // namespace

template class MatvlmBlock<CpuExec>;

MatvlmConfig MatvlmConfig::from(const Value& config) {
  static const Value none = Value::Object{};
  const Value* found = config.find("ssm_cfg");
  const Value& ssm = found != nullptr && !found->is_null() ? *found : none;
  if (config.get_boolean("bidirectional", false)) unsupported("bidirectional", "true", "false");
  MatvlmConfig c;
  c.hidden = positive(config, "d_model");
  c.intermediate = positive(config, "intermediate_size");
  c.activation = activation_of(config.get_string("hidden_act", "gelu_new"));
  c.norm_eps = static_cast<float>(config.get_number("layer_norm_eps", 1e-5));

  Mamba2Config& m = c.mixer;
  m.hidden = c.hidden;
  const Index inner = positive(config, "d_inner", positive(ssm, "expand", 2) * c.hidden);
  const Index grouped = positive(config, "d_xb");
  m.heads = m.c_groups = m.norm_groups = positive(ssm, "ngroups", 1);
  m.state_dim = m.head_dim = positive(ssm, "d_state", 128);
  if (m.heads * m.state_dim != inner)
    invalid("d_inner", inner, concat("\"ngroups\" times \"d_state\", ", m.heads * m.state_dim));
  if (grouped % m.state_dim != 0 || inner % grouped != 0)
    invalid("d_xb", grouped,
            concat("a multiple of \"d_state\", ", m.state_dim, ", that divides \"d_inner\", ", inner));
  m.x_heads = m.b_groups = grouped / m.state_dim;
  m.conv_width = positive(ssm, "d_conv", 4);
  m.biased = config.get_boolean("is_bias", false);
  m.conv_bias = ssm.get_boolean("conv_bias", true);
  m.repeat_before_conv = ssm.get_boolean("repeat_kv_before_conv", false);
  m.skip_per_channel = ssm.get_boolean("D_has_hdim", false);
  m.normalised = ssm.get_boolean("rmsnorm", true);
  m.norm_before_gate = ssm.get_boolean("norm_before_gate", false);
  const StepLimits limits = step_limits(ssm, "dt_limit");
  m.min_step = limits.low, m.max_step = limits.high;
  return c;
}

void init_ssm_from_attention(const ParameterLookup& attention, const ParameterLookup& ssm,
                             const Mamba2Config& c, ParameterMap& into) {
  const Index x = c.inner(), b = x + c.x_width(), q = b + c.b_width();
  const Names out = {"dense", "o_proj"};
  Rows in(ssm, "in_proj.weight", {c.projected(), c.hidden});
  in.copy(Rows(attention, "v_proj.weight", {c.x_width(), c.hidden}), x);
  in.copy(Rows(attention, "k_proj.weight", {c.b_width(), c.hidden}), b);
  in.copy(Rows(attention, "q_proj.weight", {c.c_width(), c.hidden}), q);
  into.set(ssm.full("in_proj.weight"), in.parameter());
  into.set(ssm.full("out_proj.weight"),
           Rows(attention, out.with(".weight"), {c.hidden, c.inner()}).parameter());
  if (!c.biased) return;
  Rows bias(ssm, "in_proj.bias", {c.projected()});
  bias.copy(Rows(attention, "v_proj.bias", {c.x_width()}), x);
  bias.copy(Rows(attention, "k_proj.bias", {c.b_width()}), b);
  bias.copy(Rows(attention, "q_proj.bias", {c.c_width()}), q);
  into.set(ssm.full("in_proj.bias"), bias.parameter());
  into.set(ssm.full("out_proj.bias"), Rows(attention, out.with(".bias"), {c.hidden}).parameter());
}

extern const Model model_matvlm;
const Model model_matvlm{"matvlm"};  // a layer: no language model of its own

}  // namespace v0
}  // namespace ashlar
