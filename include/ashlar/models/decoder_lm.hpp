// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ashlar/models/decoder_cache.hpp"
#include "ashlar/models/hf_config.hpp"
#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/norm.hpp"

namespace ashlar {
inline namespace v0 {

// One layer of a decoder: what an architecture is made of.
template <class Exec>
struct DecoderBlock {
  virtual ~DecoderBlock() = default;
  // h [T, hidden], the residual stream, in place.
  virtual void forward(View<float, 2> h, const SequenceBatch<Exec>& batch, Exec& exec) const = 0;
  virtual LayerState<Exec> new_state(Index capacity) const = 0;
};

// Sizes of a loaded model.
struct DecoderSize {
  Index parameters = 0;
  Index matmul_parameters = 0;  // multiplied with each token: 2 flops each
  Index bytes_per_token = 0;    // of weights, read to decode one token
  Index bytes = 0;              // of weights, without second copies
};

// A decoder language model: logits = head(norm(blocks(embed(ids)))). Const after loading and shared between
// threads, each with its own execution context and caches.
//
// A batch is packed: the ids of all prompts one after another, and where each begins. Results do not depend
// on the number of threads or on the other sequences of a call. Steady-state decoding allocates nothing.
template <class Exec>
class DecoderLm {
 public:
  using Cache = DecoderCache<Exec>;
  using Ids = std::span<const std::int32_t>;

  struct Parts {
    DecoderConfig config;
    typename Backend<Exec>::Matrix embedding, head;  // [vocab, hidden]; no head: tied to the embedding
    std::vector<std::unique_ptr<DecoderBlock<Exec>>> blocks;
    Norm<Exec> norm;
    Index shared_width = 0;  // floats a token of SequenceBatch::shared
    DecoderSize size;
  };
  explicit DecoderLm(Parts parts);

  Index vocab_size() const { return parts_.config.vocab_size; }
  Index max_positions() const { return parts_.config.max_positions; }
  const DecoderSize& size() const { return parts_.size; }

  // A cache for one sequence of up to `capacity` tokens, at most max_positions(). Keys and values are kept as
  // f32 or, in half the memory and rounded, as bf16. Layers with a window keep what it needs.
  Cache new_cache(Index capacity, DType kv = DType::f32) const;

  // Pages for the keys and values of many sequences, `pages` of `page` positions in each layer that has some
  // (the others have no pool), and a cache that takes its pages from there as it grows: a copy of it shares
  // them. Caches of the same pages are used by one thread at a time.
  using Pages = std::vector<std::shared_ptr<KvPagePool<Exec>>>;
  Pages new_pages(Index pages, Index page = 64, DType kv = DType::f32) const;
  Cache new_cache(Index capacity, const Pages& pages) const;

  // Runs prompts through the model. Caches, one a sequence, are continued from where they stand; with none
  // each prompt starts afresh and nothing is kept. logits [N, V]: of each prompt's last token; [T, V]: of
  // every token. Refused, before any cache changes: an empty prompt, an id outside the vocabulary, a sequence
  // that gets longer than its cache or max_positions(), more pages than are free, the same cache twice, a
  // cache of another model, caches of two types, shapes and counts that differ.
  void prefill(Ids ids, Offsets offsets, std::span<Cache* const> caches, View<float, 2> logits,
               Exec& exec) const;

  // The next token of each sequence: one id a cache, logits [N, V]. Refused as above.
  void decode(Ids ids, std::span<Cache* const> caches, View<float, 2> logits, Exec& exec) const;

 private:
  void check_capacity(Index capacity) const;
  void check(std::string_view who, Ids ids, Offsets offsets, std::span<Cache* const> caches) const;
  void forward(Ids ids, Offsets offsets, std::span<Cache* const> caches, View<float, 2> logits, Phase phase,
               Exec& exec) const;

  Parts parts_;
  std::uint64_t fingerprint_ = 0;
};

extern template class DecoderLm<CpuExec>;

// Where a checkpoint has what all decoders have.
struct DecoderNames {
  Names embedding = "model.embed_tokens.weight", norm = "model.norm.weight", head = "lm_head.weight";
  std::string layers = "model.layers";
  // Tensors that no part asks for and that may be there all the same.
  bool (*ignored)(std::string_view name) = [](std::string_view) { return false; };
};

// Reads what all decoders have and each layer through block(layer, reader of "<layers>.<layer>."). A final
// norm other than the root-mean-square norm is `norm`'s to read, norm(reader). Error("UnusedTensor") for
// tensors that no part asked for.
template <class Exec, class MakeBlock, class MakeNorm>
std::unique_ptr<DecoderLm<Exec>> make_decoder_lm(const DecoderConfig& c, const Parameters& parameters,
                                                 Exec& exec, const DecoderNames& names, MakeBlock&& block,
                                                 MakeNorm&& norm, Index shared_width = 0) {
  const ParameterReader<Exec> r(parameters, exec);
  typename DecoderLm<Exec>::Parts parts{c};
  parts.shared_width = shared_width;
  const bool tied = c.tied || !r.contains(names.head);
  const Parameter table = r.tensor(names.embedding, {c.vocab_size, c.hidden_size});
  parts.config.embedding_scale = rounded_to(table.dtype, c.embedding_scale);
  parts.embedding = r.matrix(table, c.vocab_size, c.hidden_size, tied);
  const ParameterCount embedding = r.count();
  if (!tied) parts.head = r.matrix(names.head, c.vocab_size, c.hidden_size);
  parts.norm = norm(r);
  for (Index i = 0; i < c.layers; ++i)
    parts.blocks.push_back(block(i, r.scope(concat(names.layers, ".", i))));
  // Prediction heads for training, a buffer of older files, and the copy of a tied embedding.
  r.expect_all_read([&](std::string_view name) {
    return name.starts_with("mtp.") || name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight" ||
           names.ignored(name);
  });
  const ParameterCount all = r.count();
  parts.size = {all.elements, all.matrix_elements - all.idle_elements, all.bytes - all.idle_bytes, all.bytes};
  if (!tied) {  // one row of it a token
    parts.size.matmul_parameters -= embedding.matrix_elements;
    parts.size.bytes_per_token -= embedding.bytes - embedding.bytes / c.vocab_size;
  }
  return std::make_unique<DecoderLm<Exec>>(std::move(parts));
}

template <class Exec, class MakeBlock>
std::unique_ptr<DecoderLm<Exec>> make_decoder_lm(const DecoderConfig& c, const Parameters& parameters,
                                                 Exec& exec, MakeBlock&& block,
                                                 const DecoderNames& names = {}) {
  return make_decoder_lm(c, parameters, exec, names, block, [&](const ParameterReader<Exec>& r) {
    return Norm<Exec>(r, names.norm, c.hidden_size, c.norm_eps);
  });
}

}  // namespace v0
}  // namespace ashlar
