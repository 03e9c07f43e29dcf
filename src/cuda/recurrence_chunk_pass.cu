// SPDX-License-Identifier: Apache-2.0
// The state's way through the chunks, see recurrence_chunks.cuh.
#include <algorithm>

#include "src/cuda/recurrence_chunks.cuh"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kTile = 16;
constexpr int kRowWarps = kChunk / kTile;  // warps over the rows of a chunk, twice
constexpr int kPairs = kPanel / kTile;     // of column tiles of 8

__device__ __forceinline__ void copy_tile(bf16* to, const bf16* from, int elements) {
  for (int i = 8 * static_cast<int>(threadIdx.x); i < elements; i += 8 * kThreads)
    copy_async(to + i, from + i, true);
}

// c [16, kPanel] += the 16 rows of a at `a` [.., k] times b [k, kPanel].
__device__ __forceinline__ void multiply_rows(float (&c)[2 * kPairs][4], const bf16* a, int row,
                                              const bf16* b, int k) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll 4
  for (int i = 0; i < k; i += kTile) {
    unsigned x[4];
    load_matrices(x, a + lane % 16 * row + i + lane / 16 * 8);
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      unsigned y[4];
      load_matrices_transposed(y, b + (i + lane % 16) * kPanelRow + kTile * n + lane / 16 * 8);
      multiply<bf16>(c[2 * n], x, y[0], y[1]);
      multiply<bf16>(c[2 * n + 1], x, y[2], y[3]);
    }
  }
}

// A block a sequence, head and panel of columns of the state, whose part S [keys, kPanel] lies in registers:
// the warps have kTiles tiles of 16 key channels each. Warps 0 to 3 make U, warps 4 to 7 the output of 16
// rows.
template <int kTiles, bool kDelta>
__global__ void __launch_bounds__(kThreads) chunk_pass(const ChunkCall p, const int stages) {
  let_next_start();
  extern __shared__ __align__(16) unsigned char shared[];
  const RecurrenceCall& call = p.call;
  const int h = blockIdx.y, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int key_row = p.key_row, square = static_cast<int>(p.square_elements(kDelta));
  constexpr int kPanelElements = static_cast<int>(ChunkCall::kPanelElements);
  bf16* const s_rounded = reinterpret_cast<bf16*>(shared);  // [keys, kPanelRow]
  bf16* const u_made = s_rounded + p.keys * kPanelRow;      // [64, kPanelRow]
  bf16* const stage = u_made + (kDelta ? kPanelElements : 0);
  wait_for_previous();
  const ChunkSequence sequence = p.sequences[blockIdx.z];
  const Index first = sequence.first_chunk > p.first ? sequence.first_chunk : p.first;
  const Index end_chunk = sequence.first_chunk + sequence.chunks();
  const Index end = end_chunk < p.last ? end_chunk : p.last;
  if (first >= end) return;

  auto fetch = [&](Index chunk) {
    if (chunk < end) {
      const Index item = (chunk - p.first) * call.heads + h;
      bf16* const to = stage + (chunk - first) % stages * (square + kPanelElements);
      copy_tile(to, p.squares + item * square, square);
      copy_tile(to + square, p.values + (item * p.panels + blockIdx.x) * kPanelElements, kPanelElements);
    }
    commit_copies();
  };
  if (stages > 1) fetch(first);

  // S: lane l has rows l / 4 and 8 more of a tile, columns 2 (l % 4) and the next of every 8.
  const int left = static_cast<int>(blockIdx.x) * kPanel;
  float s[kTiles][2 * kPairs][4];
  auto each_state = [&](auto&& f) {
#pragma unroll
    for (int m = 0; m < kTiles; ++m)
      if (kTile * (warp + kWarps * m) < p.keys) {
#pragma unroll
        for (int n = 0; n < 2 * kPairs; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            f(kTile * (warp + kWarps * m) + lane / 4 + i / 2 * 8, left + 8 * n + lane % 4 * 2 + i % 2,
              s[m][n][i]);
      }
  };
  float* const state = sequence.state == nullptr
                           ? nullptr
                           : sequence.state + static_cast<Index>(h) * call.columns * call.key_dim;
  const bool has_state = state != nullptr && !(sequence.starts && first == sequence.first_chunk);
  each_state([&](int key, int column, float& x) {
    x = has_state && key < call.key_dim && column < call.value_dim
            ? state[static_cast<Index>(column) * call.key_dim + key]
            : 0.0f;
  });
  auto round_state = [&] {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const int key = kTile * (warp + kWarps * m) + lane / 4;
      if (key < p.keys) {
#pragma unroll
        for (int n = 0; n < 2 * kPairs; ++n) {
          bf16* const to = s_rounded + key * kPanelRow + 8 * n + lane % 4 * 2;
          *reinterpret_cast<unsigned*>(to) = pack<bf16>(s[m][n][0], s[m][n][1]);
          *reinterpret_cast<unsigned*>(to + 8 * kPanelRow) = pack<bf16>(s[m][n][2], s[m][n][3]);
        }
      }
    }
  };
  round_state();

  const int tile = warp % kRowWarps;
  for (Index chunk = first; chunk < end; ++chunk) {
    const Index item = (chunk - p.first) * call.heads + h;
    const float decay = p.decay[item];
    if (stages == 1) {
      __syncthreads();
      fetch(chunk);
    }
    wait_for_copies<0>();
    __syncthreads();
    if (stages > 1) fetch(chunk + 1);
    const bf16* const w = stage + (chunk - first) % stages * (square + kPanelElements);
    const bf16* const q = w + (kDelta ? kChunk * key_row : 0);
    const bf16* const k = q + kChunk * key_row;
    const bf16* const a = k + kChunk * key_row;
    const bf16* const v = w + square;
    const bf16* const u = kDelta ? u_made : v;

    float c[2 * kPairs][4] = {};
    if (warp >= kRowWarps) {
      multiply_rows(c, q + kTile * tile * key_row, key_row, s_rounded, p.keys);
    } else if (kDelta) {
      multiply_rows(c, w + kTile * tile * key_row, key_row, s_rounded, p.keys);
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = (kTile * tile + lane / 4 + 8 * half) * kPanelRow + 8 * n + lane % 4 * 2;
          const auto from = load<1>(v + at), next = load<1>(v + at + 1);
          *reinterpret_cast<unsigned*>(u_made + at) =
              pack<bf16>(from.x[0] - c[n][2 * half], next.x[0] - c[n][2 * half + 1]);
        }
    }
    __syncthreads();

#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const int key = kTile * (warp + kWarps * m);
      if (key < p.keys) {
#pragma unroll
        for (int n = 0; n < 2 * kPairs; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) s[m][n][i] *= decay;
#pragma unroll
        for (int i = 0; i < kChunk; i += kTile) {
          unsigned x[4];
          load_matrices_transposed(x, k + (i + lane / 16 * 8 + lane % 8) * key_row + key + lane / 8 % 2 * 8);
#pragma unroll
          for (int n = 0; n < kPairs; ++n) {
            unsigned y[4];
            load_matrices_transposed(y, u + (i + lane % 16) * kPanelRow + kTile * n + lane / 16 * 8);
            multiply<bf16>(s[m][2 * n], x, y[0], y[1]);
            multiply<bf16>(s[m][2 * n + 1], x, y[2], y[3]);
          }
        }
      }
    }
    round_state();
    if (warp >= kRowWarps) {
      multiply_rows(c, a + kTile * tile * kSquareRow, kSquareRow, u, kTile * (tile + 1));
      const Index row = sequence.begin + (chunk - sequence.first_chunk) * kChunk + kTile * tile + lane / 4;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Index at = row + 8 * half;
        if (at < sequence.end && at % call.substeps == call.substeps - 1) {
          float* const out = call.out + at / call.substeps * call.out_row + h * call.out_head;
#pragma unroll
          for (int n = 0; n < 2 * kPairs; ++n) {
            const int column = left + 8 * n + lane % 4 * 2;
            if (column < call.value_dim) out[column] = c[n][2 * half];
            if (column + 1 < call.value_dim) out[column + 1] = c[n][2 * half + 1];
          }
        }
      }
    }
  }
  if (state != nullptr)
    each_state([&](int key, int column, float& x) {
      if (key < call.key_dim && column < call.value_dim)
        state[static_cast<Index>(column) * call.key_dim + key] = x;
    });
}

}  // namespace

bool recurrence_chunks_take(const RecurrenceCall& c) {
  constexpr int kMostKeys = 256;
  return c.key_dim <= kMostKeys && c.value_dim == c.columns && c.gk.data == nullptr && c.a.data == nullptr &&
         c.bonus.data == nullptr;
}

void recurrence_in_chunks(const RecurrenceCall& call, std::span<const RecurrenceSequence> all,
                          CudaExec& exec) {
  constexpr const char* op = "linear_recurrence";
  constexpr Index kScratch = Index{256} << 20;  // bytes of chunks that are worked on at once
  trace(exec, op, "in chunks of 64",
        to_string(std::array<Index, 3>{call.tokens, call.heads, call.value_dim}));
  CudaScratch scratch(exec);
  const bool delta = call.beta.data != nullptr;
  ChunkCall p;
  p.call = call, p.count = static_cast<int>(all.size());
  p.keys = (call.key_dim + kTile - 1) / kTile * kTile, p.key_row = p.keys + kGap;
  p.panels = (call.value_dim + kPanel - 1) / kPanel;
  auto fours_of = [](const RecurrenceInput& x) {
    return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.row % 4 == 0 && x.head % 4 == 0;
  };
  p.by_four = call.key_dim % 4 == 0 && call.value_dim % 4 == 0 && fours_of(call.q) && fours_of(call.k) &&
              fours_of(call.v);
  const Index head_bytes =
      static_cast<Index>(sizeof(bf16)) * (p.square_elements(delta) + p.panels * ChunkCall::kPanelElements);
  Index chunks = 0;
  for (const RecurrenceSequence& s : all) chunks += ((s.end - s.begin) * call.substeps + kChunk - 1) / kChunk;
  const Index most = std::min(chunks, std::max<Index>(1, kScratch / (head_bytes * call.heads)));
  // A state that goes from one stretch of chunks to the next is kept, whether the caller wants it or not.
  const Index state_size = static_cast<Index>(call.heads) * call.columns * call.key_dim;
  const bool keep = chunks > most;
  float* kept = nullptr;
  if (keep) {
    Index lost = 0;
    for (const RecurrenceSequence& s : all) lost += s.state == nullptr;
    kept = scratch.floats(lost, state_size).data;
  }
  Index first = 0, lost = 0;
  p.sequences = argument_list<kFewRecurrences, ChunkSequence>(exec, op, p.count, scratch, [&](Index n) {
    const RecurrenceSequence& from = all[static_cast<std::size_t>(n)];
    ChunkSequence s{from.begin * call.substeps, from.end * call.substeps, from.state, first, false};
    if (keep && s.state == nullptr) s.state = kept + state_size * lost++, s.starts = true;
    first += s.chunks();
    return s;
  });
  const Index items = most * call.heads;
  p.squares = scratch.get<bf16>(items, p.square_elements(delta)).data;
  p.values = scratch.get<bf16>(items, p.panels * ChunkCall::kPanelElements).data;
  p.decay = scratch.floats(items).data;

  int device = 0, room = 0;
  check_cuda(cudaGetDevice(&device), op);
  check_cuda(cudaDeviceGetAttribute(&room, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), op);
  const Index fixed = p.keys * kPanelRow + (delta ? ChunkCall::kPanelElements : 0);
  const Index one = p.square_elements(delta) + ChunkCall::kPanelElements;
  const int stages = static_cast<Index>(sizeof(bf16)) * (fixed + 2 * one) <= room ? 2 : 1;
  const LaunchShape shape{
      {static_cast<unsigned>(p.panels), static_cast<unsigned>(call.heads), static_cast<unsigned>(p.count)},
      kThreads,
      sizeof(bf16) * static_cast<std::size_t>(fixed + stages * one)};
  auto kernel = p.keys <= kTile * kWarps ? (delta ? chunk_pass<1, true> : chunk_pass<1, false>)
                                         : (delta ? chunk_pass<2, true> : chunk_pass<2, false>);
  for (p.first = 0; p.first < chunks; p.first = p.last) {
    p.last = std::min(chunks, p.first + most);
    launch_chunk_local(p, exec);
    launch(exec, op, kernel, shape, p, stages);
  }
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
