// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "ashlar/core/cpu_exec.hpp"

namespace ashlar {
inline namespace v0 {

// What makes weights of the scores of channels.
enum class ChannelWeights : std::uint8_t {
  softmax,  // over the channels of k: MDTA (Restormer: Zamir et al., 2022)
  relu,     // SparseGSA (DLGSANet: Li et al., 2023), not normalised
  gelu,     // x Phi(x)
  sigmoid
};

// Transposed attention: between the channels of a head, over all pixels of an image, which costs as much for
// each pixel whatever the image's size. With u~ = u / max(|u|_2, 1e-12), a channel's values over the pixels:
//   A[c, c'] = weights(temperature_h q~_c . k~_c'),  out_c = sum over c' of A[c, c'] v_c'
// With a tile, each of the overlapping tiles that cover the image has its own A, and a pixel gets the mean of
// what its tiles give it (the test-time local converter: Chu et al., 2022; tile_starts() of core/tiles.hpp
// says where they are). Views may be strided, so that q, k, v can be thirds of one projection. Refused:
// shapes that differ, heads that do not divide the channels, a negative tile. `out` may be `v`, and must not
// overlap q or k otherwise. Backward needs q, k, v and A.
template <class T>
struct ChannelAttentionArgs {
  View<const T, 4> q, k, v;      // [N, H, W, heads * D]
  View<T, 4> out;                // [N, H, W, heads * D]
  View<const T, 1> temperature;  // [heads]; empty: ones
  Index heads = 1;
  ChannelWeights weights = ChannelWeights::softmax;
  std::array<Index, 2> tile{0, 0};  // rows, columns; 0: the whole side
};
using ChannelAttention = ChannelAttentionArgs<float>;

void channel_attention(const ChannelAttention& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
