// SPDX-License-Identifier: Apache-2.0
// The members of DecoderCache, for the file that instantiates them for an execution context.
#pragma once
#include <bit>

#include "ashlar/models/decoder_cache.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

inline constexpr std::uint64_t kCacheMagic = 0x564b72616c687361;  // "ashlarKV"
inline constexpr std::uint64_t kCacheVersion = 3;

struct CacheHeader {
  std::uint64_t magic, version, fingerprint, kv_bits, position, words;
};
static_assert(std::endian::native == std::endian::little, "saved caches are little-endian");

}  // namespace detail

template <class Exec>
DecoderCache<Exec>::DecoderCache(std::vector<LayerState<Exec>> layers, Index capacity)
    : layers_(std::move(layers)), capacity_(capacity), fingerprint_(0xcbf29ce484222325) {
  auto mix = [&](Index x) { fingerprint_ = (fingerprint_ ^ static_cast<std::uint64_t>(x)) * 0x100000001b3; };
  mix(static_cast<Index>(layers_.size()));
  for (const LayerState<Exec>& l : layers_)
    for (Index extent : {l.kv.kv_heads(), l.kv.head_dim(), l.kv.value_dim(), l.kv.window(), l.inputs.rows(),
                         l.inputs.channels(), l.recurrent.heads(), l.recurrent.key_dim(),
                         l.recurrent.value_dim(), l.mlp_inputs.rows(), l.mlp_inputs.channels()})
      mix(extent);
}

template <class Exec>
Index DecoderCache<Exec>::bytes() const {
  Index n = 0;
  for (const LayerState<Exec>& l : layers_)
    n += l.kv.bytes() + l.inputs.bytes() + l.recurrent.bytes() + l.mlp_inputs.bytes();
  return n;
}

template <class Exec>
void DecoderCache<Exec>::keep_updates(Index tokens) {
  if (tokens < 0) refuse("keep_updates", "tokens is ", tokens, ", expected 0 or more");
  keep_ = kept_ = 0;
  const Index most = std::min(tokens, capacity_);
  for (LayerState<Exec>& l : layers_) l.keep_updates(most);
  keep_ = most;
}

template <class Exec>
void DecoderCache<Exec>::rollback(Index tokens) {
  if (tokens < 0 || tokens > kept_)
    refuse("rollback", tokens, " tokens were to be taken back, expected 0 to ", kept_);
  for (LayerState<Exec>& l : layers_) l.rollback(tokens);
  position_ -= tokens, kept_ -= tokens;
}

template <class Exec>
DType DecoderCache<Exec>::kv_type() const {
  for (const LayerState<Exec>& l : layers_)
    if (l.kv) return l.kv.type();
  return DType::f32;
}

template <class Exec>
void DecoderCache<Exec>::reserve(Index tokens) {
  std::size_t n = 0;
  try {
    for (; n < layers_.size(); ++n)
      if (KvCache<Exec>& kv = layers_[n].kv) kv.reserve(tokens);
  } catch (const Error&) {
    while (n-- > 0) layers_[n].kv.release_reserved();
    throw;
  }
}

template <class Exec>
void DecoderCache<Exec>::release_reserved() {
  for (LayerState<Exec>& l : layers_) l.kv.release_reserved();
}

namespace detail {
// Keys and values are padded to whole floats.
inline Index words(Index bytes) { return (bytes + 3) / 4; }
}  // namespace detail

template <class Exec>
Index DecoderCache<Exec>::words(Index position) const {
  Index n = 0;
  for (const LayerState<Exec>& l : layers_)
    n += detail::words(l.kv.saved_bytes(position)) + l.inputs.size() + l.mlp_inputs.size() +
         l.recurrent.heads() * l.recurrent.key_dim() * l.recurrent.value_dim();
  return n;
}

template <class Exec>
std::vector<std::byte> DecoderCache<Exec>::save() const {
  const Index count = words(position_);
  const detail::CacheHeader header{detail::kCacheMagic,
                                   detail::kCacheVersion,
                                   fingerprint_,
                                   static_cast<std::uint64_t>(bits(kv_type())),
                                   static_cast<std::uint64_t>(position_),
                                   static_cast<std::uint64_t>(count)};
  std::vector<std::byte> saved(sizeof header + static_cast<std::size_t>(count) * sizeof(float));
  std::memcpy(saved.data(), &header, sizeof header);
  float* to = reinterpret_cast<float*>(saved.data() + sizeof header);
  for (const LayerState<Exec>& l : layers_) {
    if (l.kv) l.kv.save(to), to += detail::words(l.kv.saved_bytes(position_));
    for (const auto* inputs : {&l.inputs, &l.mlp_inputs})
      if (*inputs) Backend<Exec>::read(inputs->view().split(1, inputs->channels()), to), to += inputs->size();
    if (const auto& r = l.recurrent; r.heads() != 0) {
      r.export_to({to, {r.heads(), r.key_dim(), r.value_dim()}});
      to += r.heads() * r.key_dim() * r.value_dim();
    }
  }
  return saved;
}

template <class Exec>
void DecoderCache<Exec>::restore(std::span<const std::byte> saved) {
  auto invalid = [](const auto&... parts) { throw Error("InvalidCache", concat("saved cache: ", parts...)); };
  detail::CacheHeader header;
  if (saved.size() < sizeof header)
    invalid(saved.size(), " bytes are too few, expected a header of ", sizeof header);
  std::memcpy(&header, saved.data(), sizeof header);
  if (header.magic != detail::kCacheMagic) invalid("it does not begin as a saved cache does");
  if (header.version != detail::kCacheVersion)
    invalid("its version is ", static_cast<std::size_t>(header.version), ", expected ",
            detail::kCacheVersion);
  if (header.fingerprint != fingerprint_) invalid("it is of a model with other shapes");
  if (header.kv_bits != static_cast<std::uint64_t>(bits(kv_type())))
    invalid("its keys and values have ", static_cast<std::size_t>(header.kv_bits),
            " bits, this cache keeps them as ", name(kv_type()));
  if (header.position > static_cast<std::uint64_t>(capacity_))
    invalid("it holds ", static_cast<std::size_t>(header.position), " tokens, this cache has room for ",
            capacity_);
  const Index position = static_cast<Index>(header.position), count = words(position);
  const std::size_t expected = sizeof header + static_cast<std::size_t>(count) * sizeof(float);
  if (header.words != static_cast<std::uint64_t>(count) || saved.size() != expected)
    invalid("it has ", saved.size(), " bytes, expected ", expected);
  for (const LayerState<Exec>& l : layers_)
    if (l.kv) l.kv.expect_room(position);

  std::vector<float> values(static_cast<std::size_t>(count));  // the bytes may lie at any address
  if (count != 0) std::memcpy(values.data(), saved.data() + sizeof header, values.size() * sizeof(float));
  const float* from = values.data();
  for (LayerState<Exec>& l : layers_) {
    if (l.kv) l.kv.restore(from, position), from += detail::words(l.kv.saved_bytes(position));
    for (auto* inputs : {&l.inputs, &l.mlp_inputs})
      if (*inputs) {
        Backend<Exec>::write(from, inputs->view().split(1, inputs->channels()));
        inputs->begin_history(), from += inputs->size();
      }
    if (auto& r = l.recurrent; r.heads() != 0) {
      r.import_from({from, {r.heads(), r.key_dim(), r.value_dim()}}, position);
      from += r.heads() * r.key_dim() * r.value_dim();
    }
  }
  position_ = position, kept_ = 0;
}

}  // namespace v0
}  // namespace ashlar
