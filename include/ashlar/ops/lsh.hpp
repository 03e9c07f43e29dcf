// SPDX-License-Identifier: Apache-2.0
// Locality-sensitive hashing as attention uses it (Reformer; Kitaev, Kaiser and Levskaya, 2020): tokens are
// hashed in several rounds, sorted by bucket, and cut into chunks that look one chunk back.
#pragma once
#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/offsets.hpp"

namespace ashlar {
inline namespace v0 {

// Angular hash and sort of each sequence, head and round: with a token's rotated vector r, of which the first
// nb / 2 elements count,
//   bucket = argmax [r, -r], the first of equals, 0 <= bucket < nb
// Tokens in order of bucket, then of position. A sequence of L tokens has nb = L / bucket_size buckets;
// bucket_size 0: 2 R. Refused: shapes that differ, sequences whose nb is not whole, even and at most 2 R.
template <class T>
struct LshSortArgs {
  View<const T, 4> rotated;     // [T, H, rounds, R]
  Offsets offsets;              // of the sequences in the tokens
  Index bucket_size = 0;        // 0: 2 R buckets
  View<Index, 3> order;         // [rounds, T, H], the token at each place of its sequence's rows
  View<Index, 3> place;         // [rounds, T, H], the inverse: the place of each token
  View<Index, 3> buckets = {};  // [rounds, T, H], on request
};
using LshSort = LshSortArgs<float>;

void lsh_sort(const LshSort& args, CpuExec& exec);

// What is added to the scores of one round's chunks of `chunk` queries, in sorted order. The keys of chunk c
// of a sequence are those of chunk c - 1, then of c itself; chunk 0 looks back to the last chunk of the round
// before, and the first round's to that of the last round. For a query token i and a key token j:
//   -inf where causal and j > i;  self where i = j;
//   - ln(count + 1e-9) with `correct_duplicates`, count being the number of rounds in which j is in i's chunk
//   or, by the numbering of all rounds' chunks, which is cyclic, in the one before
// count is 0 across the border of two rounds, as released. Refused: shapes that differ, sequences that are
// not whole chunks, a round that there is not.
template <class T>
struct LshBiasArgs {
  View<const Index, 3> order, place;  // [rounds, T, H], of lsh_sort
  Offsets offsets;                    // of the sequences in the tokens
  Index round = 0, chunk = 0;
  View<T, 4> out;  // [T / chunk, H, chunk, 2 chunk]
  bool causal = false, correct_duplicates = false;
  T self = 0;
};
using LshBias = LshBiasArgs<float>;

void lsh_bias(const LshBias& args, CpuExec& exec);

}  // namespace v0
}  // namespace ashlar
