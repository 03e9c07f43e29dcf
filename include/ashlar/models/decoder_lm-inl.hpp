// SPDX-License-Identifier: Apache-2.0
// The members of DecoderLm, for the file that instantiates them for an execution context.
#pragma once
#include "ashlar/models/decoder_cache-inl.hpp"
#include "ashlar/models/decoder_lm.hpp"
#include "ashlar/ops/embedding.hpp"

namespace ashlar {
inline namespace v0 {

template <class Exec>
DecoderLm<Exec>::DecoderLm(Parts parts)
    : parts_(std::move(parts)), fingerprint_(new_cache(1).fingerprint()) {}

template <class Exec>
void DecoderLm<Exec>::check_capacity(Index capacity) const {
  if (capacity < 1 || capacity > max_positions())
    refuse("new_cache", "capacity is ", capacity, ", expected 1 to ", max_positions(), " tokens");
}

template <class Exec>
DecoderCache<Exec> DecoderLm<Exec>::new_cache(Index capacity, DType kv) const {
  check_capacity(capacity);
  check_kv_type("new_cache", kv);
  std::vector<LayerState<Exec>> layers;
  for (const auto& block : parts_.blocks) {
    layers.push_back(block->new_state(kv == DType::f32 ? capacity : 0));
    if (KvCache<Exec>& mine = layers.back().kv; mine && kv != DType::f32) mine = mine.like(capacity, kv);
  }
  return Cache(std::move(layers), capacity);
}

template <class Exec>
auto DecoderLm<Exec>::new_pages(Index pages, Index page, DType kv) const -> Pages {
  Pages all;
  for (const auto& block : parts_.blocks) {
    const LayerState<Exec> state = block->new_state(0);
    all.push_back(state.kv ? std::make_shared<KvPagePool<Exec>>(state.kv.shape(), pages, page, kv) : nullptr);
  }
  return all;
}

template <class Exec>
DecoderCache<Exec> DecoderLm<Exec>::new_cache(Index capacity, const Pages& pages) const {
  check_capacity(capacity);
  if (pages.size() != parts_.blocks.size())
    refuse("new_cache", "there are pages for ", pages.size(), " layers, expected ", parts_.blocks.size());
  std::vector<LayerState<Exec>> layers;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    layers.push_back(parts_.blocks[i]->new_state(0));
    KvCache<Exec>& mine = layers.back().kv;
    if (static_cast<bool>(mine) != (pages[i] != nullptr) ||
        (mine && mine.shape() != pages[i]->rows().shape()))
      refuse("new_cache", "the pages of layer ", i, " are not of its keys and values");
    if (mine) mine = mine.like(capacity, pages[i]);
  }
  return Cache(std::move(layers), capacity);
}

template <class Exec>
void DecoderLm<Exec>::check(std::string_view who, Ids ids, Offsets offsets,
                            std::span<Cache* const> caches) const {
  const Index tokens = static_cast<Index>(ids.size()), sequences = offsets.count();
  offsets.check(who, tokens);
  if (!caches.empty() && static_cast<Index>(caches.size()) != sequences)
    refuse(who, caches.size(), " caches were given, expected one for each of ", sequences, " sequences");
  for (Index n = 0; n < sequences; ++n) {
    const Index length = offsets.end(n, tokens) - offsets.begin(n);
    if (length == 0) refuse(who, "the prompt of sequence ", n, " is empty, expected at least one token");
    Index before = 0, room = max_positions();
    if (!caches.empty()) {
      const Cache* cache = caches[static_cast<std::size_t>(n)];
      if (cache == nullptr || cache->fingerprint() != fingerprint_)
        refuse(who, "cache ", n, " was not made by this model");
      if (const DType type = cache->kv_type(), first = caches[0]->kv_type(); type != first)
        refuse(who, "caches 0 and ", n, " keep keys and values as ", name(first), " and as ", name(type),
               ", expected one type");
      for (Index other = 0; other < n; ++other)
        if (caches[static_cast<std::size_t>(other)] == cache)
          refuse(who, "caches ", other, " and ", n, " are the same, expected one a sequence");
      before = cache->position(), room = cache->capacity();
    }
    if (length > room - before)
      refuse(who, "sequence ", n, " would have ", before + length, " tokens, expected at most ", room,
             caches.empty() ? ", the model's positions" : ", its cache's capacity");
  }
  for (Index t = 0; t < tokens; ++t)
    if (const std::int32_t id = ids[static_cast<std::size_t>(t)]; id < 0 || id >= vocab_size())
      refuse(who, "ids[", t, "] is ", id, ", expected 0 to ", vocab_size() - 1);
  std::size_t n = 0;
  try {  // last: what can be refused no more
    for (; n < caches.size(); ++n) {
      const Index i = static_cast<Index>(n);
      caches[n]->reserve(offsets.end(i, tokens) - offsets.begin(i));
    }
  } catch (const Error&) {
    while (n-- > 0) caches[n]->release_reserved();
    throw;
  }
}

template <class Exec>
void DecoderLm<Exec>::prefill(Ids ids, Offsets offsets, std::span<Cache* const> caches, View<float, 2> logits,
                              Exec& exec) const {
  check("prefill", ids, offsets, caches);
  const Index tokens = static_cast<Index>(ids.size()), sequences = offsets.count();
  if (logits.shape[0] != tokens && logits.shape[0] != sequences)
    refuse("prefill", "logits has ", logits.shape[0], " rows, expected ", sequences,
           " for the last tokens or ", tokens, " for all");
  expect_shape("prefill", "logits", logits, {logits.shape[0], vocab_size()});
  forward(ids, offsets, caches, logits, Phase::prefill, exec);
}

template <class Exec>
void DecoderLm<Exec>::decode(Ids ids, std::span<Cache* const> caches, View<float, 2> logits,
                             Exec& exec) const {
  if (caches.empty() || ids.size() != caches.size())
    refuse("decode", ids.size(), " ids and ", caches.size(),
           " caches were given, expected one id for each cache");
  const Index sequences = static_cast<Index>(caches.size());
  expect_shape("decode", "logits", logits, {sequences, vocab_size()});
  typename Backend<Exec>::HostScratch lists(exec);
  const auto starts = lists.template get<Index>(sequences + 1);
  for (Index n = 0; n <= sequences; ++n) starts(n) = n;
  const Offsets offsets(std::span<const Index>(starts.data, static_cast<std::size_t>(sequences + 1)));
  check("decode", ids, offsets, caches);
  forward(ids, offsets, caches, logits, Phase::decode, exec);
}

template <class Exec>
void DecoderLm<Exec>::forward(Ids ids, Offsets offsets, std::span<Cache* const> caches, View<float, 2> logits,
                              Phase phase, Exec& exec) const {
  const DecoderConfig& c = parts_.config;
  const Index tokens = static_cast<Index>(ids.size()), sequences = offsets.count();
  typename Backend<Exec>::HostScratch lists(exec);
  const auto positions = lists.template get<Index>(tokens);
  const auto states = lists.template get<LayerState<Exec>*>(static_cast<Index>(caches.size()));
  for (Index n = 0; n < sequences; ++n) {
    Index position = caches.empty() ? 0 : caches[static_cast<std::size_t>(n)]->position();
    for (Index t = offsets.begin(n); t < offsets.end(n, tokens); ++t) positions(t) = position++;
  }

  typename Exec::Scratch scratch(exec);
  const auto h = scratch.floats(tokens, c.hidden_size);
  const auto shared =
      parts_.shared_width != 0 ? scratch.floats(tokens, parts_.shared_width) : View<float, 2>();
  embedding(Embedding{ids, parts_.embedding.values(), h, c.embedding_scale}, exec);
  for (std::size_t layer = 0; layer < parts_.blocks.size(); ++layer) {
    for (std::size_t n = 0; n < caches.size(); ++n) states(n) = &caches[n]->layer(static_cast<Index>(layer));
    parts_.blocks[layer]->forward(h, {offsets, positions, {states.data, caches.size()}, phase, shared}, exec);
  }

  View<float, 2> wanted = h;
  if (logits.shape[0] != tokens) {
    wanted = scratch.floats(sequences, c.hidden_size);
    for (Index n = 0; n < sequences; ++n) {
      const Index end = offsets.end(n, tokens);
      Backend<Exec>::copy(h.slice(0, end - 1, end).split(1, c.hidden_size),
                          wanted.slice(0, n, n + 1).split(1, c.hidden_size), exec);
    }
  }
  parts_.norm(wanted, wanted, exec);
  const auto& head = parts_.head ? parts_.head : parts_.embedding;
  dense(typename Backend<Exec>::Dense{wanted, head, {}, logits, phase}, exec);
  if (const float cap = c.logit_soft_cap; cap != 0)
    activate(Activate{logits, {}, logits, Activation::tanh, cap, 1 / cap}, exec);
  for (std::size_t n = 0; n < caches.size(); ++n)
    caches[n]->advance(offsets.end(static_cast<Index>(n), tokens) - offsets.begin(static_cast<Index>(n)));
}

}  // namespace v0
}  // namespace ashlar
