// SPDX-License-Identifier: Apache-2.0
// Which shape of the kernel takes a call, and what it is given.
#include <cstring>

#include "src/cuda/attention.hpp"
#include "src/cuda/sm90/attention_forward.cuh"
#include "src/cuda/sm90/tensor_map.hpp"

namespace ashlar {
inline namespace v0 {
namespace cuda {
namespace {

using sm90::ForwardCall;
using sm90::ForwardMaps;
using sm90::ForwardSequence;
using sm90::ForwardShape;

constexpr const char* kOp = "softmax_attention";
constexpr int kAlignment = 8;  // of 16-bit elements that the copy engine moves
// Keys and values of heads that run side by side stay in the second level's cache.
constexpr std::int64_t kCacheBytes = std::int64_t{24} << 20;

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }
// A stride that steps over n elements.
bool aligned(std::int64_t stride, std::int64_t n) {
  return n <= 1 || (stride > 0 && stride % kAlignment == 0);
}

__global__ void set_zero(int* p) {
  wait_for_previous();
  let_next_start();
  *p = 0;
}

int right_of(const AttentionCall& a) { return a.mask.causal != 0 ? 0 : a.mask.right; }

template <class S>
class Forward {
 public:
  Forward(const AttentionCall& a, CudaExec& exec) : a_(a), exec_(exec), scratch_(exec) {
    std::memset(&call_, 0, sizeof call_);  // compared byte by byte by a graph
  }

  void run() {
    encode(call_.q, a_.q, a_.tokens, a_.q_row, a_.heads, a_.q_head, a_.key_dim, 64);
    set_sequences();
    ForwardCall& c = call_;
    c.heads = a_.heads, c.group = a_.heads / a_.kv_heads;
    c.row_tiles = (a_.most_queries + S::kM - 1) / S::kM, c.units = a_.count * a_.heads;
    c.tiles = c.units * c.row_tiles;
    const std::int64_t bytes = std::int64_t{2} * a_.most_keys * (a_.key_dim + a_.value_dim) / c.group;
    c.unit_group = static_cast<int>(
        std::clamp<std::int64_t>(kCacheBytes / std::max<std::int64_t>(bytes, 1), 1, c.units));
    c.left = a_.mask.left, c.right = right_of(a_);
    c.value_dim = a_.value_dim, c.f32_out = a_.out_type == DType::f32 ? 1 : 0;
    constexpr float kLog2e = 1.4426950408889634f;
    c.scale_log2 = (a_.soft_cap != 0 ? a_.soft_cap : a_.scale) * kLog2e;
    c.cap_scale = a_.soft_cap != 0 ? a_.scale / a_.soft_cap : 0;
    c.out = a_.out, c.out_row = a_.out_row, c.out_head = a_.out_head;
    c.lse = a_.lse, c.lse_row = a_.lse_row, c.lse_head = a_.lse_head;
    c.sinks = a_.sinks;
    const int blocks = std::min(c.tiles, exec_.multiprocessors());
    if (c.tiles > blocks) {
      c.next_tile = scratch_.get<int>(1).data;
      launch(exec_, kOp, set_zero, {.grid = 1, .block = 1}, c.next_tile);
    }
    launch(exec_, kOp, sm90::attention_forward<S>,
           {.grid = static_cast<unsigned>(blocks), .block = S::kThreads, .shared = S::kBytes}, c);
  }

 private:
  static void encode(CUtensorMap& map, const void* data, int rows, std::int64_t row, int heads,
                     std::int64_t head, int columns, int box_rows) {
    if (!sm90::encode_tensor_map(map, S::kBf16, data, rows, row, heads, head, columns, box_rows))
      throw Error("CudaError", "softmax_attention: the driver took no tensor map");
  }

  ForwardMaps maps_of(const AttentionSequence& s) const {
    ForwardMaps m;
    std::memset(&m, 0, sizeof m);
    if (s.end == s.start) return m;
    encode(m.k, s.k, s.end - s.start, s.k_row, a_.kv_heads, s.k_head, a_.key_dim, S::kN);
    encode(m.v, s.v, s.end - s.start, s.v_row, a_.kv_heads, s.v_head, a_.value_dim, S::kN);
    return m;
  }

  void set_sequences() {
    const auto sequence = [&](int n) {
      const AttentionSequence& s = a_.host_sequences[n];
      return ForwardSequence{s.first_query, s.queries, s.end - s.start};
    };
    if (a_.count <= sm90::kFewMaps) {
      for (int n = 0; n < a_.count; ++n)
        call_.few[n] = maps_of(a_.host_sequences[n]), call_.few_sequences[n] = sequence(n);
      return;
    }
    CudaHostScratch lists(exec_);
    const auto maps = lists.get<ForwardMaps>(a_.count);
    const auto sequences = lists.get<ForwardSequence>(a_.count);
    for (int n = 0; n < a_.count; ++n)
      maps.data[n] = maps_of(a_.host_sequences[n]), sequences.data[n] = sequence(n);
    call_.maps = copy(maps), call_.sequences = copy(sequences);
  }
  template <class T>
  const T* copy(View<T, 1> list) {
    const auto to = scratch_.get<T>(list.shape[0]);
    upload(exec_, kOp, list.data, sizeof(T) * static_cast<std::size_t>(list.shape[0]), to.data);
    return to.data;
  }

  const AttentionCall& a_;
  CudaExec& exec_;
  CudaScratch scratch_;
  ForwardCall call_;
};

// Scores that the tiles of a shape have, for a sequence of the most queries and keys.
template <class S>
double covered(const AttentionCall& a) {
  const ForwardSequence s{0, a.most_queries, a.most_keys};
  double tiles = 0;
  for (int row = 0; row < s.queries; row += S::kM) {
    const auto [low, high] =
        sm90::key_tiles<S>(s, row, std::min(S::kM, s.queries - row), a.mask.left, right_of(a));
    tiles += high - low;
  }
  return tiles * S::kM * S::kN;
}

// f with the shape for the call's dimensions; false where there is none.
template <bool kBf16, class F>
bool with_shape(const AttentionCall& a, F&& f) {
  const int d = a.key_dim, dv = a.value_dim;
  if (d <= 64 && dv <= 64) {
    // Three warpgroups are the faster ones, but more of their tiles lies outside of short sequences.
    using Three = ForwardShape<64, 64, 128, 3, 4, 2, kBf16>;
    using Two = ForwardShape<64, 64, 128, 2, 4, 2, kBf16>;
    constexpr double kGain = 1.15;
    return covered<Three>(a) <= kGain * covered<Two>(a) ? f(Three()) : f(Two()), true;
  }
  if (d <= 96 && dv <= 96) return f(ForwardShape<96, 96, 128, 2, 2, 2, kBf16>()), true;
  if (d <= 128 && dv <= 128) return f(ForwardShape<128, 128, 128, 2, 2, 2, kBf16>()), true;
  if (d <= 192 && dv <= 128) return f(ForwardShape<192, 128, 128, 2, 2, 1, kBf16>()), true;
  if (d <= 256 && dv <= 256) return f(ForwardShape<256, 256, 80, 2, 2, 1, kBf16>()), true;
  return false;
}

}  // namespace

bool attention_sm90_takes(const AttentionCall& a, const CudaExec& exec) {
  const bool types = (a.q_type == DType::bf16 || a.q_type == DType::f16) && a.kv_type == a.q_type &&
                     (a.out_type == a.q_type || a.out_type == DType::f32);
  if (exec.capability() != 90 || !types || !a.mask.simple() || !a.plain_score() || !(a.scale > 0))
    return false;
  if (a.count == 0 || a.key_dim == 0 || a.key_dim % kAlignment != 0 || a.value_dim % kAlignment != 0)
    return false;
  if (std::max(a.key_dim, a.value_dim) > 256) return false;
  // Of the kernel's counters.
  if (std::int64_t{a.count} * a.heads * (a.most_queries / 128 + 1) >= std::int64_t{1} << 30) return false;
  if (!aligned(a.q) || !aligned(a.q_row, a.tokens) || !aligned(a.q_head, a.heads)) return false;
  if (!aligned(a.out) || a.out_row % kAlignment != 0 || a.out_head % kAlignment != 0) return false;
  for (int n = 0; n < a.count; ++n) {
    const AttentionSequence& s = a.host_sequences[n];
    if (s.ring != 0 || s.page != 0) return false;
    const int rows = s.end - s.start;
    if (!aligned(s.k) || !aligned(s.k_row, rows) || !aligned(s.k_head, a.kv_heads)) return false;
    if (!aligned(s.v) || !aligned(s.v_row, rows) || !aligned(s.v_head, a.kv_heads)) return false;
  }
  return true;
}

void attention_sm90(const AttentionCall& a, CudaExec& exec) {
  const auto run = [&](auto shape) { Forward<decltype(shape)>(a, exec).run(); };
  const bool there = a.q_type == DType::bf16 ? with_shape<true>(a, run) : with_shape<false>(a, run);
  if (!there) refuse(kOp, "no kernel for dimensions ", a.key_dim, " and ", a.value_dim);
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
