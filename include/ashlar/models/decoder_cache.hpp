// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "ashlar/nn/sequence_batch.hpp"

namespace ashlar {
inline namespace v0 {

// What a decoder language model remembers of one sequence: a value. A copy continues bit for bit as the
// original does, and so does a cache of the same model that is restored from saved bytes. Made by
// DecoderLm::new_cache.
template <class Exec>
class DecoderCache {
 public:
  DecoderCache() = default;
  DecoderCache(std::vector<LayerState<Exec>> layers, Index capacity);

  Index position() const { return position_; }  // tokens seen
  Index capacity() const { return capacity_; }  // tokens that fit
  Index bytes() const;                          // of memory
  DType kv_type() const;                        // how keys and values are kept

  // Speculative decoding: from here on up to `tokens` of the last tokens can be taken back. What it costs is
  // said at RecurrentState; 0: no longer.
  void keep_updates(Index tokens);
  Index kept_tokens() const { return kept_; }  // how many can be taken back now
  // Takes the last `tokens` back: exactly the cache of before they came, whether they were decoded or, up to
  // the number that is kept, prefilled. Refused: more than kept_tokens().
  void rollback(Index tokens);

  // Little-endian: magic, version, the shapes' fingerprint, bits of a key's element, position, number of
  // floats that follow; then for each layer the keys and values of the positions that KvCache::save() names,
  // the convolution's inputs and the recurrent state [H, Dk, Dv].
  std::vector<std::byte> save() const;
  // Error("InvalidCache") for anything that save() of a cache of these shapes and this type did not write, or
  // that does not fit the capacity; refused where a pool has not the pages. The cache is unchanged then.
  // Nothing that came before can be taken back from a restored cache; it keeps updates if it did before.
  void restore(std::span<const std::byte> saved);

  // Of the layers' shapes, the capacity aside: caches of one model have one fingerprint.
  std::uint64_t fingerprint() const { return fingerprint_; }
  LayerState<Exec>& layer(Index i) { return layers_[static_cast<std::size_t>(i)]; }
  // For the model: room for `tokens` more in all layers, which only a pool of pages can refuse, before
  // anything changes; it is given back when they do not come.
  void reserve(Index tokens);
  void release_reserved();
  // For the model, after a pass through all layers.
  void advance(Index tokens) { position_ += tokens, kept_ = std::min(keep_, kept_ + tokens); }

 private:
  Index words(Index position) const;  // floats of a saved one

  std::vector<LayerState<Exec>> layers_;
  Index capacity_ = 0, position_ = 0, keep_ = 0, kept_ = 0;
  std::uint64_t fingerprint_ = 0;
};

extern template class DecoderCache<CpuExec>;

}  // namespace v0
}  // namespace ashlar
