// SPDX-License-Identifier: Apache-2.0
// flash-linear-attention's names for the settings of its layers: of a model's configuration, or of a layer
// alone, which has other defaults.
#pragma once
#include "ashlar/models/fla_config.hpp"
#include "ashlar/nn/mixers/delta_net.hpp"
#include "ashlar/nn/mixers/gated_delta_net.hpp"
#include "ashlar/nn/mixers/gated_delta_product.hpp"
#include "ashlar/nn/mixers/gla.hpp"
#include "ashlar/nn/mixers/hgrn.hpp"
#include "ashlar/nn/mixers/hgrn2.hpp"
#include "ashlar/nn/mixers/kda.hpp"
#include "ashlar/nn/mixers/linear_attn.hpp"
#include "ashlar/nn/mixers/retention.hpp"
#include "ashlar/nn/mixers/simple_gla.hpp"

namespace ashlar {
inline namespace v0 {

enum class FlaScope : std::uint8_t { layer, model };

// All throw Error("InvalidConfig") for sizes that do not fit each other.
DeltaNetConfig delta_net_layer(const Value& config, FlaScope scope);
GatedDeltaNetConfig gated_delta_net_layer(const Value& config, FlaScope scope);
GatedDeltaProductConfig gated_delta_product_layer(const Value& config, FlaScope scope);
KimiDeltaAttentionConfig kda_layer(const Value& config, FlaScope scope);
GatedLinearAttentionConfig gla_layer(const Value& config, FlaScope scope);
SimpleGatedLinearAttentionConfig simple_gla_layer(const Value& config, FlaScope scope);
RetentionConfig retention_layer(const Value& config, FlaScope scope);
LinearAttentionConfig linear_attn_layer(const Value& config, FlaScope scope);
HgrnConfig hgrn_layer(const Value& config, FlaScope scope);
Hgrn2Config hgrn2_layer(const Value& config, FlaScope scope);

}  // namespace v0
}  // namespace ashlar
