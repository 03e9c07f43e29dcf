// SPDX-License-Identifier: Apache-2.0
// Reformer and Sinkhorn.
#include "ashlar/nn/mixers/reformer_attention.hpp"
#include "ashlar/nn/mixers/sinkhorn_attention.hpp"
#include "tests/golden_check/efficient_attention.hpp"

namespace ashlar::golden {
namespace {

// q and v [N, L, D], or [L, D] of one sequence, of one head each.
void run_shared(Zoo& zoo, const std::string& name, const EfficientAttention<CpuExec>& attention,
                const ZooTensor& q, const ZooTensor& v) {
  const Index length = q.shape[q.shape.size() - 2], dim = q.shape.back();
  const Index tokens = q.values.size() / dim;
  const std::vector<Index> starts = Zoo::offsets(tokens / length, length);
  Tensor<float, 3> out({tokens, 1, dim});
  HeadBatch heads;
  heads.q = {q.values.data(), {tokens, 1, dim}}, heads.v = {v.values.data(), {tokens, 1, dim}};
  heads.out = out.view(), heads.offsets = starts;
  attention(heads, zoo.exec);
  zoo.compare(name, out.data(), out.size());
}

void check_reformer(Zoo& zoo) {
  if (!zoo.file().contains("input.reformer_rot")) return;
  const ZooTensor q = zoo.tensor("input.reformer_qk"), v = zoo.tensor("input.reformer_v"),
                  rotations = zoo.tensor("input.reformer_rot");
  const View<const float, 4> r{
      rotations.values.data(),
      {rotations.extent(0), rotations.extent(1), rotations.extent(2), rotations.extent(3)}};
  for (const bool causal : {false, true})
    for (const bool duplicates : {false, true}) {
      const std::string name =
          concat("reformer_", causal ? "causal" : "bidir", duplicates ? "_dup" : "_nodup");
      if (!zoo.has(name)) continue;
      ReformerConfig c{.causal = causal, .allow_duplicates = duplicates};
      c.bucket_size = zoo.config().get_integer("rb", 0);
      run_shared(zoo, name, ReformerAttention<CpuExec>(c, r, zoo.exec), q, v);
    }
}

void check_released_reformer(Zoo& zoo) {
  if (!zoo.has("reformer_lra")) return;
  const ZooTensor rotations = zoo.tensor("input.reformer_lra_rot");
  const View<const float, 4> r{rotations.values.data(),
                               {1, rotations.extent(0), rotations.extent(1), rotations.extent(2)}};
  run_shared(zoo, "reformer_lra", ReformerAttention<CpuExec>({.form = ReformerConfig::released}, r, zoo.exec),
             zoo.tensor("input.reformer_lra_q"), zoo.tensor("input.reformer_lra_v"));
}

void check_sinkhorn(Zoo& zoo) {
  if (zoo.has("sinkhorn_operator8")) {
    const ZooTensor logits = zoo.tensor("input.sinkhorn_logits");
    Tensor<float, 3> out({logits.extent(0), logits.extent(1), logits.extent(2)});
    sinkhorn(Sinkhorn{{logits.values.data(), out.shape()}, out.view(), 8}, zoo.exec);
    zoo.compare("sinkhorn_operator8", out.data(), out.size());
  }
  if (!zoo.file().contains("input.sinkhorn_sort_w")) return;
  const ZooTensor q = zoo.tensor("input.sinkhorn_q"), k = zoo.tensor("input.sinkhorn_k"),
                  v = zoo.tensor("input.sinkhorn_v"), w = zoo.tensor("input.sinkhorn_sort_w"),
                  b = zoo.tensor("input.sinkhorn_sort_b");
  SinkhornAttentionConfig c{.head_dim = q.extent(3)};
  // The golden holds as many blocks as its permutation has rows.
  c.block = q.extent(1) / zoo.tensor("mid.sinkhorn_lra_perm_softmax").extent(1);
  for (const bool softmax : {true, false}) {
    const std::string name = softmax ? "sinkhorn_lra_softmax" : "sinkhorn_lra_sinkhorn";
    if (!zoo.has(name)) continue;
    c.form = softmax ? SinkhornAttentionConfig::released_softmax : SinkhornAttentionConfig::released_sinkhorn;
    zoo.run(name, SinkhornAttention<CpuExec>(c, w.matrix(), b.values.view(), zoo.exec), q, k, v);
  }
}

const ZooRegistration kReformer(check_reformer), kReleasedReformer(check_released_reformer),
    kSinkhorn(check_sinkhorn);

}  // namespace
}  // namespace ashlar::golden
