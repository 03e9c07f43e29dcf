// SPDX-License-Identifier: Apache-2.0
// Attention through caches, a part of the tokens at a time.
#pragma once
#include "ashlar/nn/batch_key_values.hpp"
#include "tests/support.hpp"

namespace ashlar::test {

using Floats = std::vector<float>;
using Cache = KvCache<CpuExec>;
using Pool = KvPagePool<CpuExec>;

constexpr KvShape kShape{2, 5, 3};

// Random queries, keys and values of one sequence.
struct Tokens {
  explicit Tokens(Index tokens, unsigned seed = 1) : q({tokens, 4, 5}), k({tokens, 2, 5}), v({tokens, 2, 3}) {
    std::mt19937 rng(seed);
    q.normal(rng), k.normal(rng), v.normal(rng);
  }
  // Keys and values that bf16 can hold.
  Tokens& round() {
    for (Array<3>* a : {&k, &v}) a->each([](float& x) { x = static_cast<float>(bf16(x)); });
    return *this;
  }
  Index size() { return q.cview().shape[0]; }
  Array<3> q, k, v;
};

inline LayerState<CpuExec> state_of(Cache cache) {
  LayerState<CpuExec> state;
  state.kv = std::move(cache);
  return state;
}
inline Cache window_cache(Index window, Index capacity, DType type = DType::f32) {
  return Cache(kShape.heads, kShape.key_dim, capacity, {kShape.value_dim, window, type});
}

// The output [n, 4, 3] of the tokens [begin, begin + n), which the cache gets to know; without one, of all
// that came before them.
inline Floats attend(Tokens& x, Index begin, Index n, Index window, LayerState<CpuExec>* state,
                     CpuExec& exec) {
  Floats out(static_cast<std::size_t>(n * 12), NAN);
  const View<float, 3> to(out.data(), {n, 4, 3});
  LayerState<CpuExec>* const states[] = {state};
  SequenceBatch<CpuExec> batch;
  batch.states = states;
  const auto part = [&](Array<3>& a) { return a.cview().slice(0, begin, begin + n); };
  with_kv_type(kv_type(batch), [&](auto zero) {
    using T = decltype(zero);
    const BatchKeyValues<CpuExec, T> kv(batch, part(x.k), part(x.v), window, exec);
    softmax_attention(
        SoftmaxAttentionArgs<float, T>{part(x.q), {}, kv, to, AttentionPattern::causal_window(window)}, exec);
  });
  return out;
}
// Of all tokens at once, without a cache.
inline Floats attend(Tokens& x, Index window, CpuExec& exec) {
  Floats out(static_cast<std::size_t>(x.size() * 12), NAN);
  const KeyValue kv{x.k.cview(), x.v.cview()};
  softmax_attention(
      SoftmaxAttention{
          x.q.cview(), {}, {&kv, 1}, {out.data(), {x.size(), 4, 3}}, AttentionPattern::causal_window(window)},
      exec);
  return out;
}
// Of all tokens, `parts` of them at a time, the last again and again.
inline Floats attend_in_parts(Tokens& x, const std::vector<Index>& parts, Index window,
                              LayerState<CpuExec>& state, CpuExec& exec) {
  Floats all;
  std::size_t i = 0;
  for (Index t = 0; t < x.size();) {
    const Index n = std::min(parts[std::min(i++, parts.size() - 1)], x.size() - t);
    const Floats some = attend(x, t, n, window, &state, exec);
    all.insert(all.end(), some.begin(), some.end());
    t += n;
  }
  return all;
}

inline double difference(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  }
  return worst;
}
// Weighted means of normal values: a few eps of scores, times values of up to 5.
inline constexpr double kSameAttention = 50 * kEps;

inline std::vector<std::byte> saved(const Cache& cache) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(cache.saved_bytes(cache.length())));
  cache.save(bytes.data());
  return bytes;
}
inline void append(Cache& cache, Tokens& x, Index begin, Index end, CpuExec& exec) {
  cache.append(x.k.cview().slice(0, begin, end), x.v.cview().slice(0, begin, end), exec);
}

}  // namespace ashlar::test
