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

  // Little-endian: magic, version, the shapes' fingerprint, position, number of floats; then for each layer
  // the keys and values up to the position, the convolution's inputs and the recurrent state [H, Dk, Dv].
  std::vector<std::byte> save() const;
  // Error("InvalidCache") for anything that save() of a cache of these shapes did not write, or that does not
  // fit the capacity; the cache is unchanged then.
  void restore(std::span<const std::byte> saved);

  // Of the layers' shapes, the capacity aside: caches of one model have one fingerprint.
  std::uint64_t fingerprint() const { return fingerprint_; }
  LayerState<Exec>& layer(Index i) { return layers_[static_cast<std::size_t>(i)]; }
  // For the model, after a pass through all layers.
  void advance(Index tokens) { position_ += tokens; }

 private:
  Index floats(Index position) const;

  std::vector<LayerState<Exec>> layers_;
  Index capacity_ = 0, position_ = 0;
  std::uint64_t fingerprint_ = 0;
};

extern template class DecoderCache<CpuExec>;

}  // namespace v0
}  // namespace ashlar
