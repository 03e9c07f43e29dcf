// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// What is subtracted from the exponents of softmax features, so that they do not overflow; it cancels in
// attention, but for eps.
enum class FavorStabilizer : std::uint8_t {
  none,     // nothing: a token's features depend on it alone
  row,      // the largest w_i x of the token and head: for queries
  sequence  // the largest of the sequence and head: for keys
};

// Random features of kernelised attention, FAVOR+ (Choromanski et al., 2021), with the rows w_i of a
// projection and x' = scale x:
//   softmax: out_i = M^-1/2 (exp(w_i x' - |x'|^2 / 2 - c) + eps), c the stabilizer's w_i x'
//   relu:    out_i = max(w_i x', 0) + eps
// The products w_i x are the caller's (a dense layer); with relu they may be x itself. Refused: shapes that
// differ, no x for softmax features. `out` may be `projected`. Backward needs x and out.
template <class T>
struct FavorFeaturesArgs {
  enum Kind : std::uint8_t { softmax, relu };
  View<const T, 3> x;          // [T, H, D]; may be empty for relu
  View<const T, 3> projected;  // [T, H, M], w_i x
  View<T, 3> out;              // [T, H, M]
  Offsets offsets;             // of the sequences in the tokens
  Kind kind = softmax;
  FavorStabilizer stabilizer = FavorStabilizer::row;
  T scale = 1;  // D^-1/4, so that features of queries and keys stand for exp(q k / D^1/2)
  T eps = T(1e-4);
};
using FavorFeatures = FavorFeaturesArgs<float>;

void favor_features(const FavorFeatures& args, CpuExec& exec);

// Lengths of the rows of a projection.
enum class FavorScaling : std::uint8_t {
  gaussian,  // of independent normal vectors
  regular    // D^1/2
};

// A projection [features, dim] of rows that are orthogonal within each block of `dim` rows, and uniform in
// direction: normal matrices made orthonormal. The same for the same seed. Refused: no features or channels.
Tensor<float, 2> favor_projection(Index features, Index dim, std::uint64_t seed,
                                  FavorScaling scaling = FavorScaling::gaussian);

}  // namespace v0
}  // namespace ashlar
