// SPDX-License-Identifier: Apache-2.0
// Local, Sparse Transformer, Longformer, BigBird, Synthesizer, Linformer.
#include "ashlar/nn/mixers/bigbird_attention.hpp"
#include "ashlar/nn/mixers/linformer_attention.hpp"
#include "ashlar/nn/mixers/local_attention.hpp"
#include "ashlar/nn/mixers/longformer_attention.hpp"
#include "ashlar/nn/mixers/sparse_attention.hpp"
#include "ashlar/nn/mixers/synthesizer_attention.hpp"
#include "tests/golden_check/efficient_attention.hpp"

namespace ashlar::golden {
namespace {

Parameter parameter(Tensor<float, 1> values, std::vector<Index> shape) {
  auto owner = std::make_shared<const Tensor<float, 1>>(std::move(values));
  return {owner->data(), DType::f32, std::move(shape), owner};
}

void check_local(Zoo& zoo) {
  const ZooTensor q = zoo.tensor("input.q"), k = zoo.tensor("input.k"), v = zoo.tensor("input.v");
  const Index block = zoo.config().get_integer("bs");
  for (const auto& [name, form] : {std::pair{"local_contiguous", LocalAttentionConfig::contiguous},
                                   std::pair{"local_lra", LocalAttentionConfig::released}})
    if (zoo.has(name)) zoo.run(name, LocalAttention<CpuExec>({.block = block, .form = form}), q, k, v);
}

void check_sparse(Zoo& zoo) {
  const ZooTensor q = zoo.tensor("input.q"), k = zoo.tensor("input.k"), v = zoo.tensor("input.v");
  const Index b = zoo.config().get_integer("sb"), c = zoo.config().get_integer("sc");
  const std::pair<const char*, SparseAttentionConfig> cases[] = {
      {"sparse_local", {{{SparseFactor::local, b}}}},
      {"sparse_strided", {{{SparseFactor::strided, b}}}},
      {"sparse_fixed1", {{{SparseFactor::fixed_block, b}}}},
      {"sparse_fixed2", {{{SparseFactor::fixed_columns, b, c, true}}}},
      {"sparse_fixed_merged", SparseAttentionConfig::released(b, c, false)}};
  for (const auto& [name, config] : cases)
    if (zoo.has(name)) zoo.run(name, SparseAttention<CpuExec>(config), q, k, v);
}

// Padded sequences as shorter ones; rows of padding are zero.
struct Packed {
  std::vector<Index> starts{0}, rows;  // rows of the padded batch
  // `lengths` of sequences that are padded to `length`.
  Packed(const std::vector<Index>& lengths, Index length) {
    for (std::size_t n = 0; n < lengths.size(); ++n) {
      for (Index t = 0; t < lengths[n]; ++t) rows.push_back(static_cast<Index>(n) * length + t);
      starts.push_back(static_cast<Index>(rows.size()));
    }
  }
  Index tokens() const { return static_cast<Index>(rows.size()); }
  Tensor<float, 2> take(View<const float, 2> padded) const {
    Tensor<float, 2> packed({tokens(), padded.shape[1]});
    for (Index t = 0; t < tokens(); ++t)
      std::copy_n(padded.at(rows[static_cast<std::size_t>(t)]), padded.shape[1], packed.view().at(t));
    return packed;
  }
  void put(View<const float, 2> packed, View<float, 2> padded) const {
    for (Index t = 0; t < tokens(); ++t)
      std::copy_n(packed.at(t), packed.shape[1], padded.at(rows[static_cast<std::size_t>(t)]));
  }
};

// How many tokens of each row of a mask [B, L] are not padding, which must be at the end.
std::vector<Index> lengths(const ZooTensor& mask, float padding) {
  std::vector<Index> all;
  for (Index n = 0; n < mask.extent(0); ++n) {
    const float *row = mask.matrix().at(n), *end = row + mask.extent(1), *last = std::find(row, end, padding);
    if (std::any_of(last, end, [&](float m) { return m != padding; }))
      throw Error("InvalidConfig", "golden: a mask has padding before tokens, expected it at the end");
    all.push_back(last - row);
  }
  return all;
}

void check_longformer(Zoo& zoo) {
  if (!zoo.has("longformer") && !zoo.has("longformer_windowonly")) return;
  const ZooTensor x = zoo.tensor("input.longformer_x"), mask = zoo.tensor("input.longformer_mask");
  const Index batch = x.extent(0), length = x.extent(1), hidden = x.extent(2),
              heads = zoo.config().get_integer("H"), window = zoo.config().get_integer("lw");
  const auto parameters = embedded_parameters(zoo.shared_file());
  const auto r = ParameterReader<CpuExec>(*parameters, zoo.exec).scope("longformer");
  const LongformerAttentionConfig c = LongformerAttentionConfig::window(hidden, heads, window);
  const ProjectedAttention<CpuExec> layer(r, {hidden, heads, hidden / heads, "query", "key", "value", ""},
                                          std::make_unique<LongformerAttention<CpuExec>>(r, c));
  auto run = [&](const char* name, const std::vector<Index>& sequences, bool with_globals) {
    const Packed packed(sequences, length);
    std::vector<Index> globals;
    for (Index t = 0; with_globals && t < packed.tokens(); ++t)
      if (mask.values.data()[packed.rows[static_cast<std::size_t>(t)]] > 0) globals.push_back(t);
    Tensor<float, 2> mine = packed.take(x.tokens()), out({batch * length, hidden});
    SequenceBatch<CpuExec> sequence_batch;
    sequence_batch.offsets = packed.starts;
    layer(mine.view(), mine.view(), sequence_batch, globals, zoo.exec);
    packed.put(mine.view(), out.view());
    zoo.compare(name, out.data(), out.size());
  };
  if (zoo.has("longformer")) run("longformer", lengths(mask, -1), true);
  if (zoo.has("longformer_windowonly"))
    run("longformer_windowonly", std::vector<Index>(static_cast<std::size_t>(batch), length), false);
}

void check_bigbird(Zoo& zoo) {
  if (!zoo.has("bigbird") && !zoo.has("bigbird_pad")) return;
  const ZooTensor q = zoo.tensor("input.bigbird_q"), k = zoo.tensor("input.bigbird_k"),
                  v = zoo.tensor("input.bigbird_v");  // [B, H, L, D]
  const Index batch = q.extent(0), heads = q.extent(1), length = q.extent(2), dim = q.extent(3);
  const Parameter drawn = zoo.file().at("input.bigbird_rand");
  Tensor<Index, 3> table({drawn.shape.at(0), drawn.shape.at(1), drawn.shape.at(2)});
  const std::vector<std::int32_t> entries = integers(zoo.file(), "input.bigbird_rand");
  std::copy(entries.begin(), entries.end(), table.data());
  BigBirdAttentionConfig c;
  c.block = zoo.config().get_integer("bbw"), c.random = zoo.config().get_integer("bbr"), c.length = length;
  const BigBirdAttention<CpuExec> attention(c, table);

  auto run = [&](const char* name, const std::vector<Index>& sequences) {
    const Packed packed(sequences, length);
    auto tokens_first = [&](const ZooTensor& t) {
      Tensor<float, 2> padded({batch * length, heads * dim});
      for (Index i = 0; i < padded.size(); ++i) {
        const Index h = i / dim % heads, row = i / (heads * dim);
        padded.data()[i] =
            t.values.data()[((row / length * heads + h) * length + row % length) * dim + i % dim];
      }
      return packed.take(padded.view());
    };
    const Tensor<float, 2> mine_q = tokens_first(q), mine_k = tokens_first(k), mine_v = tokens_first(v);
    Tensor<float, 2> mine({packed.tokens(), heads * dim}), padded({batch * length, heads * dim});
    HeadBatch all;
    all.q = mine_q.view().split(1, dim), all.k = mine_k.view().split(1, dim);
    all.v = mine_v.view().split(1, dim), all.out = mine.view().split(1, dim), all.offsets = packed.starts;
    attention(all, zoo.exec);
    packed.put(mine.view(), padded.view());
    Tensor<float, 1> heads_first({padded.size()});
    for (Index i = 0; i < padded.size(); ++i) {
      const Index h = i / dim % heads, row = i / (heads * dim);
      heads_first.data()[((row / length * heads + h) * length + row % length) * dim + i % dim] =
          padded.data()[i];
    }
    zoo.compare(name, heads_first.data(), heads_first.size());
  };
  if (zoo.has("bigbird")) run("bigbird", std::vector<Index>(static_cast<std::size_t>(batch), length));
  if (zoo.has("bigbird_pad")) run("bigbird_pad", lengths(zoo.tensor("input.bigbird_padmask"), 0));
}

// [K, N] as [N, K].
Parameter transposed(const Zoo& zoo, const std::string& name) { return transpose(zoo.file().at(name)); }

void check_synthesizer(Zoo& zoo) {
  const ZooTensor q = zoo.tensor("input.q"), k = zoo.tensor("input.k"), v = zoo.tensor("input.v"),
                  x = zoo.tensor("input.x");
  using Config = SynthesizerAttentionConfig;
  Config base;
  base.hidden = x.extent(2), base.heads = v.extent(2), base.head_dim = v.extent(3);
  auto run = [&](const char* name, const ParameterMap& parameters, const Config& c) {
    if (!zoo.has(name)) return;
    const SynthesizerAttention<CpuExec> attention(ParameterReader<CpuExec>(parameters, zoo.exec), c);
    zoo.run(name, attention, q, k, v, x);
  };
  if (zoo.has("synth_random") || zoo.has("synth_random_plus_dot")) {
    // The golden's table may have more columns than rows, or fewer.
    const ZooTensor all = zoo.tensor("input.synth_random");
    Config c = base;
    c.random = Config::full, c.max_length = std::min(all.extent(1), all.extent(2));
    Tensor<float, 1> square({c.heads * c.max_length * c.max_length});
    for (Index i = 0; i < square.size(); ++i) {
      const Index h = i / (c.max_length * c.max_length), row = i / c.max_length % c.max_length;
      square.data()[i] = all.values.data()[(h * all.extent(1) + row) * all.extent(2) + i % c.max_length];
    }
    ParameterMap parameters;
    parameters.set("random", parameter(std::move(square), {c.heads, c.max_length, c.max_length}));
    run("synth_random", parameters, c);
    c.dot_product = true;
    run("synth_random_plus_dot", parameters, c);
  }
  if (zoo.has("synth_factorized")) {
    ParameterMap parameters;
    parameters.set("random1", zoo.file().at("input.synth_f1"));
    parameters.set("random2", zoo.file().at("input.synth_f2"));
    Config c = base;
    c.random = Config::factorized;
    c.max_length = zoo.tensor("input.synth_f1").extent(1), c.rank = zoo.tensor("input.synth_f1").extent(2);
    run("synth_factorized", parameters, c);
  }
  if (zoo.has("synth_dense") || zoo.has("synth_dense_lra")) {
    ParameterMap parameters;
    parameters.set("dense_syn.weight", transposed(zoo, "input.synth_dw1"));
    parameters.set("dense_syn.bias", zoo.file().at("input.synth_db1"));
    parameters.set("dense_syn_len.weight", transposed(zoo, "input.synth_dw2"));
    parameters.set("dense_syn_len.bias", zoo.file().at("input.synth_db2"));
    Config c = base;
    c.dense = true, c.max_length = zoo.tensor("input.synth_dw2").extent(1);
    run("synth_dense", parameters, c);
    c.released = true;
    run("synth_dense_lra", parameters, c);
  }
}

void check_linformer(Zoo& zoo) {
  if (zoo.has("linformer")) {
    const ZooTensor x = zoo.tensor("input.x"), projection = zoo.tensor("param.linformer.proj_k");
    const Index batch = x.extent(0), length = x.extent(1), hidden = x.extent(2),
                heads = zoo.config().get_integer("H");
    const auto parameters = embedded_parameters(zoo.shared_file());
    const auto r = ParameterReader<CpuExec>(*parameters, zoo.exec).scope("linformer");
    const LinformerAttentionConfig c{projection.extent(0), projection.extent(1)};
    const ProjectedAttention<CpuExec> layer(r, {hidden, heads, hidden / heads},
                                            std::make_unique<LinformerAttention<CpuExec>>(r, c));
    Tensor<float, 2> out({batch * length, hidden});
    const std::vector<Index> starts = Zoo::offsets(batch, length);
    SequenceBatch<CpuExec> sequences;
    sequences.offsets = starts;
    layer(x.tokens(), out.view(), sequences, zoo.exec);
    zoo.compare("linformer", out.data(), out.size());
  }
  if (zoo.has("linformer_lra")) {
    const ZooTensor kernel = zoo.tensor("input.linformer_lra_kernel");
    ParameterMap parameters;
    parameters.set("lr_kernel", zoo.file().at("input.linformer_lra_kernel"));
    const LinformerAttention<CpuExec> attention(
        ParameterReader<CpuExec>(parameters, zoo.exec),
        {kernel.extent(0), kernel.extent(1), "lr_kernel", "lr_kernel"});
    zoo.run("linformer_lra", attention, zoo.tensor("input.q"), zoo.tensor("input.k"), zoo.tensor("input.v"));
  }
}

const ZooRegistration kLocal(check_local), kSparse(check_sparse), kLongformer(check_longformer),
    kBigBird(check_bigbird), kSynthesizer(check_synthesizer), kLinformer(check_linformer);

}  // namespace
}  // namespace ashlar::golden
