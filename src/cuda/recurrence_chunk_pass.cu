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
constexpr int kMostStages = 2;

// Chunks on their way to shared memory: by the copy engine from compute capability 9.0 on.
struct Copies {
  std::uint64_t* full;  // a barrier for each stage

  __device__ __forceinline__ void start(int stages) const {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) {
      for (int i = 0; i < stages; ++i)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(full + i)) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();
#endif
  }
  __device__ __forceinline__ void fetch(int stage, bf16* to, const bf16* one, int ones, const bf16* other,
                                        int others) const {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) {
      const unsigned bytes = static_cast<unsigned>(sizeof(bf16)) * static_cast<unsigned>(ones + others);
      asm volatile(
          "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(full + stage)),
          "r"(bytes)
          : "memory");
      copy(stage, to, one, ones);
      copy(stage, to + ones, other, others);
    }
#else
    copy(to, one, ones), copy(to + ones, other, others);
    commit_copies();
#endif
  }
  // Until what was fetched last has come, for the `turn`-th time in this stage; all threads.
  __device__ __forceinline__ void wait(int stage, int turn) const {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{.reg .pred done;\n"
        "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;}\n" ::"r"(shared_address(full + stage)),
        "r"(turn % 2)
        : "memory");
#else
    wait_for_copies<0>();
#endif
    __syncthreads();
  }

 private:
#if __CUDA_ARCH__ >= 900
  __device__ __forceinline__ void copy(int stage, bf16* to, const bf16* from, int elements) const {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(to)),
        "l"(from), "r"(elements * static_cast<int>(sizeof(bf16))), "r"(shared_address(full + stage))
        : "memory");
  }
#else
  __device__ __forceinline__ void copy(bf16* to, const bf16* from, int elements) const {
    for (int i = 8 * static_cast<int>(threadIdx.x); i < elements; i += 8 * kThreads)
      copy_async(to + i, from + i, true);
  }
#endif
};

// c [16, kPanel] += the 16 rows of a at `a` [.., k] times b [k, kPanel].
template <int kPanel>
__device__ __forceinline__ void multiply_rows(float (&c)[kPanel / 8][4], const bf16* a, int row,
                                              const bf16* b, int k) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll 4
  for (int i = 0; i < k; i += kTile) {
    unsigned x[4];
    load_matrices(x, a + lane % 16 * row + i + lane / 16 * 8);
#pragma unroll
    for (int n = 0; n < kPanel / kTile; ++n) {
      unsigned y[4];
      load_matrices_transposed(y, b + (i + lane % 16) * (kPanel + kGap) + kTile * n + lane / 16 * 8);
      multiply<bf16>(c[2 * n], x, y[0], y[1]);
      multiply<bf16>(c[2 * n + 1], x, y[2], y[3]);
    }
  }
}

// A block a sequence, head and panel of columns of the state, whose part S [keys, kPanel] lies in registers:
// the warps have kTiles tiles of 16 key channels each. Warps 0 to 3 make U, warps 4 to 7 the output of 16
// rows.
template <int kTiles, int kPanel, bool kDelta>
__global__ void __launch_bounds__(kThreads) chunk_pass(const ChunkCall p, const int stages) {
  constexpr int kRow = kPanel + kGap, kPanelElements = kChunk * kRow, kOctets = kPanel / 8;
  let_next_start();
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ __align__(8) std::uint64_t full[kMostStages];
  const RecurrenceCall& call = p.call;
  const int h = blockIdx.y, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int key_row = p.key_row, square = p.square_elements(kDelta);
  bf16* const s_rounded = reinterpret_cast<bf16*>(shared);  // [keys, kRow]
  bf16* const u_made = s_rounded + p.keys * kRow;           // [64, kRow]
  bf16* const stages_at = u_made + (kDelta ? kPanelElements : 0);
  const Copies copies{full};
  copies.start(stages);
  wait_for_previous();
  const ChunkSequence sequence = p.sequences[blockIdx.z];
  const Index first = sequence.first_chunk > p.first ? sequence.first_chunk : p.first;
  const Index end_chunk = sequence.first_chunk + sequence.chunks();
  const int count = static_cast<int>((end_chunk < p.last ? end_chunk : p.last) - first);
  if (count <= 0) return;

  const bf16* squares = p.squares + ((first - p.first) * call.heads + h) * square;
  const bf16* values =
      p.values + (((first - p.first) * call.heads + h) * p.panels + blockIdx.x) * kPanelElements;
  const float* decays = p.decay + (first - p.first) * call.heads + h;
  auto fetch = [&](int stage) {  // the next chunk
    copies.fetch(stage, stages_at + stage * (square + kPanelElements), squares, square, values,
                 kPanelElements);
    squares += static_cast<Index>(call.heads) * square;
    values += static_cast<Index>(call.heads) * p.panels * kPanelElements;
  };
  if (stages > 1) fetch(0);

  // S: lane l has rows l / 4 and 8 more of a tile, columns 2 (l % 4) and the next of every 8.
  const int left = static_cast<int>(blockIdx.x) * kPanel;
  float s[kTiles][kOctets][4];
  auto each_state = [&](auto&& f) {
#pragma unroll
    for (int m = 0; m < kTiles; ++m)
      if (kTile * (warp + kWarps * m) < p.keys) {
#pragma unroll
        for (int n = 0; n < kOctets; ++n)
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
        for (int n = 0; n < kOctets; ++n) {
          bf16* const to = s_rounded + key * kRow + 8 * n + lane % 4 * 2;
          *reinterpret_cast<unsigned*>(to) = pack<bf16>(s[m][n][0], s[m][n][1]);
          *reinterpret_cast<unsigned*>(to + 8 * kRow) = pack<bf16>(s[m][n][2], s[m][n][3]);
        }
      }
    }
  };
  round_state();

  const int tile = warp % kRowWarps;
  Index row = sequence.begin + (first - sequence.first_chunk) * kChunk + kTile * tile + lane / 4;
  for (int chunk = 0, stage = 0, turn = 0; chunk < count; ++chunk, row += kChunk) {
    const float decay = decays[static_cast<Index>(chunk) * call.heads];
    if (stages == 1) {
      __syncthreads();
      fetch(0);
    }
    copies.wait(stage, turn);
    if (stages > 1 && chunk + 1 < count) fetch(1 - stage);
    const bf16* const w = stages_at + stage * (square + kPanelElements);
    const bf16* const q = w + (kDelta ? kChunk * key_row : 0);
    const bf16* const k = q + kChunk * key_row;
    const bf16* const a = k + kChunk * key_row;
    const bf16* const v = w + square;
    const bf16* const u = kDelta ? u_made : v;
    if (stages > 1) stage = 1 - stage;
    if (stage == 0) ++turn;

    float c[kOctets][4] = {};
    if (warp >= kRowWarps) {
      multiply_rows<kPanel>(c, q + kTile * tile * key_row, key_row, s_rounded, p.keys);
    } else if (kDelta) {
      multiply_rows<kPanel>(c, w + kTile * tile * key_row, key_row, s_rounded, p.keys);
#pragma unroll
      for (int n = 0; n < kOctets; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = (kTile * tile + lane / 4 + 8 * half) * kRow + 8 * n + lane % 4 * 2;
          const unsigned pair = *reinterpret_cast<const unsigned*>(v + at);
          *reinterpret_cast<unsigned*>(u_made + at) =
              pack<bf16>(__uint_as_float(pair << 16) - c[n][2 * half],
                         __uint_as_float(pair & 0xffff0000u) - c[n][2 * half + 1]);
        }
    }
    __syncthreads();

#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const int key = kTile * (warp + kWarps * m);
      if (key < p.keys) {
#pragma unroll
        for (int n = 0; n < kOctets; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) s[m][n][i] *= decay;
#pragma unroll
        for (int i = 0; i < kChunk; i += kTile) {
          unsigned x[4];
          load_matrices_transposed(x, k + (i + lane / 16 * 8 + lane % 8) * key_row + key + lane / 8 % 2 * 8);
#pragma unroll
          for (int n = 0; n < kPanel / kTile; ++n) {
            unsigned y[4];
            load_matrices_transposed(y, u + (i + lane % 16) * kRow + kTile * n + lane / 16 * 8);
            multiply<bf16>(s[m][2 * n], x, y[0], y[1]);
            multiply<bf16>(s[m][2 * n + 1], x, y[2], y[3]);
          }
        }
      }
    }
    round_state();
    if (warp >= kRowWarps) {
      multiply_rows<kPanel>(c, a + kTile * tile * kSquareRow, kSquareRow, u, kTile * (tile + 1));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Index at = row + 8 * half;
        Index token = at;
        bool last = true;
        if (call.substeps > 1) token = at / call.substeps, last = (at + 1) % call.substeps == 0;
        if (at < sequence.end && last) {
          float* const out = call.out + token * call.out_row + h * call.out_head + left + lane % 4 * 2;
          const int columns = call.value_dim - left - lane % 4 * 2;
#pragma unroll
          for (int n = 0; n < kOctets; ++n) {
            if (8 * n < columns) out[8 * n] = c[n][2 * half];
            if (8 * n + 1 < columns) out[8 * n + 1] = c[n][2 * half + 1];
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

template <int kPanel>
void launch_chunk_pass(const ChunkCall& p, const LaunchShape& shape, int stages, CudaExec& exec) {
  const bool delta = p.call.beta.data != nullptr;
  auto kernel = p.keys <= kTile * kWarps
                    ? (delta ? chunk_pass<1, kPanel, true> : chunk_pass<1, kPanel, false>)
                    : (delta ? chunk_pass<2, kPanel, true> : chunk_pass<2, kPanel, false>);
  launch(exec, "linear_recurrence", kernel, shape, p, stages);
}

// Columns of a panel: what it costs grows more slowly than it does, but there are as many passes as blocks do
// not fit side by side. What comes out is the same.
int panel_for(const RecurrenceCall& call, Index sequences, int processors) {
  int best = 32;
  double least = 0;
  for (int panel : {32, 48, 64}) {
    const Index blocks = (call.value_dim + panel - 1) / panel * sequences * call.heads;
    const double cost = static_cast<double>((blocks + processors - 1) / processors) * (1 + panel / 54.0);
    if (panel == 32 || cost < least) best = panel, least = cost;
  }
  return best;
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
  p.panel = panel_for(call, p.count, exec.multiprocessors());
  p.panels = (call.value_dim + p.panel - 1) / p.panel;
  auto fours_of = [](const RecurrenceInput& x) {
    return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.row % 4 == 0 && x.head % 4 == 0;
  };
  p.by_four = call.key_dim % 4 == 0 && call.value_dim % 4 == 0 && fours_of(call.q) && fours_of(call.k) &&
              fours_of(call.v);
  const Index head_bytes =
      static_cast<Index>(sizeof(bf16)) * (p.square_elements(delta) + p.panels * p.panel_elements());
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
  p.values = scratch.get<bf16>(items, p.panels * p.panel_elements()).data;
  p.decay = scratch.floats(items).data;

  int device = 0, room = 0;
  check_cuda(cudaGetDevice(&device), op);
  check_cuda(cudaDeviceGetAttribute(&room, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), op);
  const Index fixed = p.keys * (p.panel + kGap) + (delta ? p.panel_elements() : 0);
  const Index one = p.square_elements(delta) + p.panel_elements();
  constexpr Index kBeside = 1 << 10;
  const int stages = static_cast<Index>(sizeof(bf16)) * (fixed + 2 * one) + kBeside <= room ? 2 : 1;
  const LaunchShape shape{
      {static_cast<unsigned>(p.panels), static_cast<unsigned>(call.heads), static_cast<unsigned>(p.count)},
      kThreads,
      sizeof(bf16) * static_cast<std::size_t>(fixed + stages * one)};
  for (p.first = 0; p.first < chunks; p.first = p.last) {
    p.last = std::min(chunks, p.first + most);
    launch_chunk_local(p, exec);
    p.panel == 32   ? launch_chunk_pass<32>(p, shape, stages, exec)
    : p.panel == 48 ? launch_chunk_pass<48>(p, shape, stages, exec)
                    : launch_chunk_pass<64>(p, shape, stages, exec);
  }
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
