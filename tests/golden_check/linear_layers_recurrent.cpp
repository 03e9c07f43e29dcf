// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/mamba2.hpp"
#include "ashlar/models/rwkv6.hpp"
#include "ashlar/models/rwkv7.hpp"
#include "tests/golden_check/linear_layers.hpp"

namespace ashlar::golden {
namespace {

using Reader = ParameterReader<CpuExec>;
using Made = std::unique_ptr<Mixer<CpuExec>>;

const LayerRegistration kMamba2({"Mamba2",
                                 [](const Value& config, const Reader& r) -> Made {
                                   return std::make_unique<Mamba2<CpuExec>>(
                                       r, mamba2_layer(config, Mamba2Writer::fla));
                                 },
                                 true});
const LayerRegistration kRwkv6({"RWKV6Attention", [](const Value& config, const Reader& r) -> Made {
                                  return std::make_unique<Rwkv6<CpuExec>>(r, rwkv6_layer(config));
                                }});
const LayerRegistration kRwkv7({"RWKV7Attention",
                                [](const Value& config, const Reader& r) -> Made {
                                  return std::make_unique<Rwkv7<CpuExec>>(r, rwkv7_layer(config));
                                },
                                false, [](const Value& config) { return rwkv7_layer(config).values(); }});

}  // namespace
}  // namespace ashlar::golden
