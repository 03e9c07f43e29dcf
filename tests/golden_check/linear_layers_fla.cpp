// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/fla_layers.hpp"
#include "tests/golden_check/linear_layers.hpp"

namespace ashlar::golden {
namespace {

using Reader = ParameterReader<CpuExec>;

// A layer of its configuration alone.
template <template <class> class M, auto config_of>
std::unique_ptr<Mixer<CpuExec>> make(const Value& config, const Reader& r) {
  return std::make_unique<M<CpuExec>>(r, config_of(config, FlaScope::layer));
}

// The same with the lower bound that the runner gives beside the parameters; layer 0 has none.
template <template <class> class M, auto config_of>
std::unique_ptr<Mixer<CpuExec>> make_bounded(const Value& config, const Reader& r) {
  const auto layer = config_of(config, FlaScope::layer);
  Tensor<float, 1> bound;
  if (config.get_integer("layer_idx", 0) != 0 && r.contains("lower_bound"))
    bound = to_floats(r.tensor("lower_bound"));
  return std::make_unique<M<CpuExec>>(r, layer, std::move(bound));
}

constexpr bool kValueFirst = true;

const LayerRegistration kDeltaNet({"DeltaNet", make<DeltaNet, delta_net_layer>});
const LayerRegistration kGatedDeltaNet({"GatedDeltaNet", make<GatedDeltaNet, gated_delta_net_layer>,
                                        kValueFirst});
const LayerRegistration kGatedDeltaProduct({"GatedDeltaProduct",
                                            make<GatedDeltaProduct, gated_delta_product_layer>});
const LayerRegistration kKda({"KimiDeltaAttention", make<KimiDeltaAttention, kda_layer>, kValueFirst});
const LayerRegistration kGla({"GatedLinearAttention", make<GatedLinearAttention, gla_layer>, kValueFirst});
const LayerRegistration kSimpleGla({"SimpleGatedLinearAttention",
                                    make<SimpleGatedLinearAttention, simple_gla_layer>, kValueFirst});
const LayerRegistration kRetention({"MultiScaleRetention", make<Retention, retention_layer>});
const LayerRegistration kLinearAttention({"LinearAttention", make<LinearAttention, linear_attn_layer>});
const LayerRegistration kHgrn({"HGRNAttention", make_bounded<Hgrn, hgrn_layer>});
const LayerRegistration kHgrn2({"HGRN2Attention", make_bounded<Hgrn2, hgrn2_layer>, kValueFirst});

}  // namespace
}  // namespace ashlar::golden
