// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/softmax_attention.hpp"

#include <cmath>

#include "ashlar/cuda/ops.hpp"
#include "src/core/attention_check.hpp"
#include "src/cuda/attention.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr const char* kOp = "softmax_attention";
constexpr Index kMostDim = 256;

int narrow(Index n) { return static_cast<int>(std::clamp<Index>(n, -1, (Index{1} << 30) - 1)); }

template <class Kv, class Q, class Out>
void check_for_device(const SoftmaxAttentionArgs<float, Kv, Q, Out>& a) {
  const AttentionPattern& p = a.pattern;
  const char* what = nullptr;
  if (a.top_k != 0) what = "top_k was given";
  if (a.entropy) what = "the entropy is asked for";
  if (a.normalizer > AttentionNormalizer::softmax_plus_one) what = "the normaliser is not a softmax";
  if (p.blocks || !p.global_keys.empty() || !p.global_queries.empty())
    what = "the pattern has lists of blocks or of global positions";
  if (what != nullptr) refuse(kOp, what, ", which the CUDA op does not do");
}

cuda::AttentionMask mask_of(const AttentionPattern& p) {
  cuda::AttentionMask m;
  m.causal = p.causal ? 1 : 0, m.causal_block = narrow(p.causal_block), m.prefix = narrow(p.prefix);
  m.left = narrow(p.left), m.right = narrow(p.right), m.chunk = narrow(p.chunk);
  m.dilation = narrow(p.dilation), m.strided = narrow(p.strided);
  return m;
}

template <class T>
Index stride(const View<const T, 4>& v, int axis) {
  return v.shape[axis] == 1 ? 0 : v.strides[axis];
}

// Pages of all sequences in one list on the device.
template <class Kv>
const Index* upload_pages(std::span<const KeyValueArgs<Kv>> sequences, CudaScratch& scratch, CudaExec& exec) {
  Index all = 0;
  for (const auto& kv : sequences) all += static_cast<Index>(kv.pages.size());
  if (all == 0) return nullptr;
  CudaHostScratch lists(exec);
  // Rounded up, so that addresses stay as they are while sequences grow.
  constexpr Index kRound = 256;
  const Index room = (all + kRound - 1) / kRound * kRound;
  const auto host = lists.get<Index>(room);
  Index* to = host.data;
  for (const auto& kv : sequences) to = std::copy(kv.pages.begin(), kv.pages.end(), to);
  std::fill(to, host.data + room, Index{0});
  const auto device = scratch.get<Index>(room);
  upload(exec, kOp, host.data, sizeof(Index) * static_cast<std::size_t>(room), device.data);
  return device.data;
}

template <class Kv, class Q, class Out>
class Call {
 public:
  Call(const SoftmaxAttentionArgs<float, Kv, Q, Out>& a, CudaExec& exec)
      : a_(a), exec_(exec), scratch_(exec), lists_(exec) {}

  void run() {
    describe();
    if (call_.tokens == 0 || call_.value_dim == 0) return;
    const bool fast = exec_.precision() == Precision::fast;
    // Sixteen bits or full precision; decode reads queries and keys as they are.
    if ((fast || call_.q_type != DType::f32) && attention_decode_takes(call_)) {
      trace("parts of the keys");
      return attention_decode(call_, exec_);
    }
    const bool narrow_enough = call_.key_dim <= kMostDim && call_.value_dim <= kMostDim && call_.key_dim > 0;
    if ((!fast && (call_.q_type == DType::f32 || call_.kv_type == DType::f32)) || !narrow_enough) {
      trace("f32");
      return attention_exact(call_, exec_);
    }
    round_inputs();
    if (attention_decode_takes(call_)) {
      trace("parts of the keys, rounded");
      return attention_decode(call_, exec_);
    }
    if (attention_sm90_takes(call_, exec_)) {
      trace("wgmma");
      return attention_sm90(call_, exec_);
    }
    if (attention_tiled_takes(call_)) {
      trace("mma");
      return attention_tiled(call_, exec_);
    }
    trace("f32");
    attention_exact(call_, exec_);
  }

 private:
  void trace(const char* kernel) { cuda::trace(exec_, kOp, kernel, to_string(a_.q.shape)); }

  void describe() {
    const auto [tokens, heads, dim] = a_.q.shape;
    cuda::AttentionCall& c = call_;
    c.q_type = dtype_of<Q>, c.kv_type = dtype_of<Kv>, c.out_type = dtype_of<Out>;
    c.q = a_.q.data, c.q_row = a_.q.strides[0], c.q_head = a_.q.strides[1];
    c.out = a_.out.data, c.out_row = a_.out.strides[0], c.out_head = a_.out.strides[1];
    c.lse = a_.lse.data, c.lse_row = a_.lse.strides[0], c.lse_head = a_.lse.strides[1];
    c.tokens = narrow(tokens), c.heads = narrow(heads), c.key_dim = narrow(dim);
    c.count = narrow(a_.offsets.count()), c.mask = mask_of(a_.pattern);
    if (c.count > 0) {
      c.kv_heads = narrow(a_.sequences[0].k.shape[1]);
      c.value_dim = narrow(a_.sequences[0].v.shape[2]);
    }
    const AttentionScore& s = a_.score;
    c.scale = s.scale != 0 ? s.scale : dim == 0 ? 1 : 1 / std::sqrt(static_cast<float>(dim));
    c.soft_cap = s.soft_cap, c.sinks = s.sinks.data, c.alibi = s.alibi.data;
    c.plus_one = a_.normalizer == AttentionNormalizer::softmax_plus_one;
    if (s.relative) {
      c.relative = s.relative.data, c.reach = narrow(s.relative.shape[1] / 2);
      c.relative_head = s.relative.shape[0] == 1 ? 0 : s.relative.strides[0];
    }
    if (s.bias) {
      c.bias = s.bias.data, c.bias_sequence = stride(s.bias, 0), c.bias_head = stride(s.bias, 1);
      c.bias_query = stride(s.bias, 2), c.bias_key = stride(s.bias, 3);
    }
    const Index* pages = upload_pages(a_.sequences, scratch_, exec_);
    const auto all = lists_.get<cuda::AttentionSequence>(c.count);
    for (int n = 0; n < c.count; ++n) {
      const auto& kv = a_.sequences[static_cast<std::size_t>(n)];
      cuda::AttentionSequence q;
      q.k = kv.k.data, q.v = kv.v.data;
      q.k_row = kv.k.strides[0], q.k_head = kv.k.strides[1];
      q.v_row = kv.v.strides[0], q.v_head = kv.v.strides[1];
      q.pages = pages, q.first_query = narrow(a_.offsets.begin(n));
      q.queries = narrow(a_.offsets.end(n, tokens)) - q.first_query;
      q.start = narrow(kv.start), q.end = narrow(kv.end());
      q.ring = kv.ring ? narrow(kv.k.shape[0]) : 0, q.page = narrow(kv.page);
      if (pages != nullptr) pages += kv.pages.size();
      c.most_queries = std::max(c.most_queries, q.queries);
      c.most_keys = std::max(c.most_keys, q.end - q.start);
      all(n) = q;
    }
    set_sequences(all.data);
  }

  void set_sequences(const cuda::AttentionSequence* all) {
    call_.host_sequences = all;
    call_.sequences = argument_list<cuda::kFewSequences, cuda::AttentionSequence>(
        exec_, kOp, call_.count, scratch_, [&](Index n) { return all[n]; });
  }

  // f32 becomes bf16, packed; keys and values in the order of their positions.
  void round_inputs() {
    cuda::AttentionCall& c = call_;
    if (c.q_type == DType::f32) {
      const auto q = scratch_.get<bf16>(c.tokens, c.heads, c.key_dim);
      cuda::round_rows(static_cast<const float*>(c.q), c.q_row, c.q_head, c.tokens, c.heads, c.key_dim,
                       q.data, exec_);
      c.q = q.data, c.q_type = DType::bf16, c.q_row = q.strides[0], c.q_head = q.strides[1];
    }
    if (c.kv_type != DType::f32) return;
    const auto all = lists_.get<cuda::AttentionSequence>(c.count);
    for (int n = 0; n < c.count; ++n) {
      cuda::AttentionSequence s = c.host_sequences[n];
      // The rows that there are: a ring and pages stay what they are.
      const auto& kv = a_.sequences[static_cast<std::size_t>(n)];
      const Index rows = kv.page != 0 || kv.ring ? kv.k.shape[0] : kv.end() - kv.start;
      const auto k = scratch_.get<bf16>(rows, c.kv_heads, c.key_dim),
                 v = scratch_.get<bf16>(rows, c.kv_heads, c.value_dim);
      cuda::round_rows(static_cast<const float*>(s.k), s.k_row, s.k_head, rows, c.kv_heads, c.key_dim, k.data,
                       exec_);
      cuda::round_rows(static_cast<const float*>(s.v), s.v_row, s.v_head, rows, c.kv_heads, c.value_dim,
                       v.data, exec_);
      s.k = k.data, s.v = v.data, s.k_row = k.strides[0], s.k_head = k.strides[1];
      s.v_row = v.strides[0], s.v_head = v.strides[1];
      all(n) = s;
    }
    c.kv_type = DType::bf16;
    set_sequences(all.data);
  }

  const SoftmaxAttentionArgs<float, Kv, Q, Out>& a_;
  CudaExec& exec_;
  CudaScratch scratch_;
  CudaHostScratch lists_;
  cuda::AttentionCall call_;
};

template <class Kv, class Q, class Out>
void run(const SoftmaxAttentionArgs<float, Kv, Q, Out>& a, CudaExec& exec) {
  detail::check_attention(a);
  check_for_device(a);
  Call<Kv, Q, Out>(a, exec).run();
}

}  // namespace

void softmax_attention(const SoftmaxAttention& a, CudaExec& exec) { run(a, exec); }
void softmax_attention(const SoftmaxAttentionArgs<float, bf16>& a, CudaExec& exec) { run(a, exec); }
void softmax_attention(const SoftmaxAttentionArgs<float, bf16, bf16>& a, CudaExec& exec) { run(a, exec); }
void softmax_attention(const SoftmaxAttentionArgs<float, bf16, bf16, bf16>& a, CudaExec& exec) {
  run(a, exec);
}
void softmax_attention(const SoftmaxAttentionArgs<float, f16, f16, f16>& a, CudaExec& exec) { run(a, exec); }

}  // namespace v0
}  // namespace ashlar
