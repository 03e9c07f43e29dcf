// SPDX-License-Identifier: Apache-2.0
// Linear Transformer and Performer.
#include "ashlar/nn/mixers/linear_transformer_attention.hpp"
#include "ashlar/nn/mixers/performer_attention.hpp"
#include "tests/golden_check/efficient_attention.hpp"

namespace ashlar::golden {
namespace {

void check_linear(Zoo& zoo) {
  if (!zoo.file().contains("input.q")) return;
  const ZooTensor q = zoo.tensor("input.q"), k = zoo.tensor("input.k"), v = zoo.tensor("input.v");
  if (zoo.has("linear")) zoo.run("linear", LinearTransformerAttention<CpuExec>(), q, k, v);
  if (zoo.has("linear_causal"))
    zoo.run("linear_causal", LinearTransformerAttention<CpuExec>({.causal = true}), q, k, v);
  if (!zoo.has("linear_keymask")) return;
  const auto lengths = integers(zoo.file(), "input.key_lengths");
  const std::vector<Index> keys(lengths.begin(), lengths.end()),
      starts = Zoo::offsets(v.extent(0), v.extent(1));
  HeadBatch heads;
  heads.q = q.tokens_heads(), heads.k = k.tokens_heads(), heads.v = v.tokens_heads(), heads.offsets = starts;
  Tensor<float, 3> out(heads.v.shape);
  heads.out = out.view();
  LinearTransformerAttention<CpuExec>()(heads, keys, zoo.exec);
  zoo.compare("linear_keymask", out.data(), out.size());
}

void check_performer(Zoo& zoo) {
  if (!zoo.file().contains("input.performer_proj")) return;
  const ZooTensor q = zoo.tensor("input.q"), k = zoo.tensor("input.k"), v = zoo.tensor("input.v"),
                  projection = zoo.tensor("input.performer_proj");
  PerformerConfig c{.head_dim = q.extent(3)};
  auto run = [&](const std::string& name, const PerformerConfig& config, View<const float, 2> w) {
    if (zoo.has(name)) zoo.run(name, PerformerAttention<CpuExec>(config, w, zoo.exec), q, k, v);
  };
  // performer_softmax_eps<number> and performer_softmax_causal_eps<number>
  const std::string prefix = "output.performer_softmax_";
  for (const std::string& name : zoo.file().names()) {
    const std::size_t at = name.find("eps");
    if (!name.starts_with(prefix) || at == std::string::npos) continue;
    c.eps = std::stof(name.substr(at + 3)), c.causal = name.starts_with(prefix + "causal");
    run(name.substr(7), c, projection.matrix());
  }
  const PerformerConfig relu{.head_dim = c.head_dim, .kernel = PerformerConfig::relu};
  run("performer_relu_proj", relu, projection.matrix());
  run("performer_relu_lra", relu, {});
}

const ZooRegistration kLinear(check_linear), kPerformer(check_performer);

}  // namespace
}  // namespace ashlar::golden
