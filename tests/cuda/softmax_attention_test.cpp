// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/softmax_attention.hpp"
#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using namespace test;

class CudaAttention : public CudaTest {};

struct Heads {
  Index heads, kv_heads, key_dim, value_dim;
};
struct Lengths {
  Index queries, keys;
};
enum class Store { packed, ring, paged };
struct Options {
  AttentionPattern pattern{};
  bool soft_cap = false, sinks = false, bias = false, alibi = false, relative = false, plus_one = false;
  Store store = Store::packed;
  Precision precision = Precision::fast;
};

// Frobenius errors of the output and of the log-sum-exps.
template <class Kv, class Q, class Out>
std::pair<double, double> run(const Heads& h, const std::vector<Lengths>& lengths, const Options& o) {
  CudaExec exec({.precision = o.precision});
  Index tokens = 0, most_keys = 0, most_queries = 0;
  std::vector<Index> starts{0};
  for (const auto& [queries, keys] : lengths) {
    starts.push_back(tokens += queries);
    most_keys = std::max(most_keys, keys), most_queries = std::max(most_queries, queries);
  }
  const auto q = Both<Q, 3>::random({tokens, h.heads, h.key_dim}, 1, -2, 2);
  const auto wq = q.wide();
  Both<Out, 3> out({tokens, h.heads, h.value_dim}, 8);
  Both<float, 2> lse({tokens, h.heads});
  constexpr Index kPage = 16;
  std::vector<Both<Kv, 3>> ks, vs;
  std::vector<Tensor<double, 3>> wks, wvs;
  std::vector<std::vector<Index>> pages(lengths.size());
  std::vector<KeyValueArgs<Kv>> sequences;
  std::vector<KeyValueArgs<double>> wide_sequences;
  for (std::size_t n = 0; n < lengths.size(); ++n) {
    const Index keys = lengths[n].keys;
    const Index rows = o.store == Store::packed ? keys
                       : o.store == Store::ring ? keys + 5
                                                : (keys + 2 * kPage) / kPage * kPage;
    ks.push_back(Both<Kv, 3>::random({rows, h.kv_heads, h.key_dim}, static_cast<unsigned>(10 + n), -1, 1, 8));
    vs.push_back(Both<Kv, 3>::random({rows, h.kv_heads, h.value_dim}, static_cast<unsigned>(50 + n)));
    wks.push_back(ks.back().wide()), wvs.push_back(vs.back().wide());
    for (Index p = rows / kPage - 1; p >= 0 && o.store == Store::paged; --p) pages[n].push_back(p);
  }
  for (std::size_t n = 0; n < lengths.size(); ++n) {
    KeyValueArgs<Kv> kv{std::as_const(ks[n]).device(), std::as_const(vs[n]).device()};
    KeyValueArgs<double> wide{wks[n].view(), wvs[n].view()};
    auto place = [&](auto& one) {
      one.length = lengths[n].keys;
      if (o.store == Store::ring) one.ring = true, one.start = 3, one.length = lengths[n].keys + 3;
      if (o.store == Store::paged) one.pages = pages[n], one.page = kPage;
    };
    place(kv), place(wide);
    sequences.push_back(kv), wide_sequences.push_back(wide);
  }
  const Index positions = most_keys + 3;
  const auto sinks = Both<float, 1>::random({h.heads}, 90),
             alibi = Both<float, 1>::random({h.heads}, 91, 0, 0.2f);
  const auto relative = Both<float, 2>::random({h.heads, 41}, 92);
  const auto bias = Both<float, 4>::random({1, h.heads, most_queries, positions}, 93);
  const auto wsinks = sinks.wide(), walibi = alibi.wide();
  const auto wrelative = relative.wide();
  const auto wbias = bias.wide();
  SoftmaxAttentionArgs<float, Kv, Q, Out> args{q.device(), starts, sequences, out.device(), o.pattern};
  Tensor<double, 3> want({tokens, h.heads, h.value_dim});
  Tensor<double, 2> want_lse({tokens, h.heads});
  SoftmaxAttentionArgs<double> r{wq.view(), starts, wide_sequences, want.view(), o.pattern};
  args.lse = lse.device(), r.lse = want_lse.view();
  if (o.soft_cap) args.score.soft_cap = 3, r.score.soft_cap = 3;
  if (o.sinks) args.score.sinks = sinks.device(), r.score.sinks = wsinks.view();
  if (o.alibi) args.score.alibi = alibi.device(), r.score.alibi = walibi.view();
  if (o.relative) args.score.relative = relative.device(), r.score.relative = wrelative.view();
  if (o.bias) args.score.bias = bias.device(), r.score.bias = wbias.view();
  if (o.plus_one) args.normalizer = r.normalizer = AttentionNormalizer::softmax_plus_one;
  softmax_attention(args, exec);
  ref::softmax_attention(r);
  exec.synchronize();
  const double error = error_of(out, want);
  lse.download();
  double difference = 0, norm = 0;
  for (Index i = 0; i < want_lse.size(); ++i) {
    const double w = want_lse.data()[i], g = static_cast<double>(lse.host().data[i]);
    if (std::isinf(w) && w == g) continue;  // a query that sees nothing
    difference += (g - w) * (g - w), norm += w * w;
  }
  return {error, std::sqrt(difference / std::max(norm, 1e-30))};
}

template <class Kv, class Q, class Out>
void expect_close(const Heads& h, const std::vector<Lengths>& lengths, const Options& o,
                  const std::string& what) {
  const double bound = o.precision == Precision::full ? kFull : kRounded;
  const auto [out, lse] = run<Kv, Q, Out>(h, lengths, o);
  EXPECT_LE(out, bound) << what << " H " << h.heads << "/" << h.kv_heads << " D " << h.key_dim << "/"
                        << h.value_dim;
  EXPECT_LE(lse, bound) << what << " (lse) H " << h.heads << "/" << h.kv_heads << " D " << h.key_dim << "/"
                        << h.value_dim;
}

const std::vector<Lengths> kPrefill = {{1, 1}, {67, 67}, {0, 5}, {130, 200}, {257, 257}};
const std::vector<Lengths> kDecode = {{1, 1}, {1, 63}, {1, 700}, {2, 5}, {1, 2000}};

std::vector<std::pair<std::string, Options>> variants() {
  std::vector<std::pair<std::string, Options>> all;
  auto add = [&](const char* name, auto&& set) {
    Options o;
    o.pattern = AttentionPattern::causal_window();
    set(o);
    all.emplace_back(name, o);
  };
  add("causal", [](Options&) {});
  add("full", [](Options& o) { o.pattern = {}; });
  add("window", [](Options& o) { o.pattern = AttentionPattern::causal_window(50); });
  add("both sides", [](Options& o) { o.pattern = {.left = 20, .right = 33}; });
  add("soft cap and sinks", [](Options& o) { o.soft_cap = o.sinks = true; });
  add("ring", [](Options& o) { o.store = Store::ring; });
  add("paged window",
      [](Options& o) { o.store = Store::paged, o.pattern = AttentionPattern::causal_window(40); });
  return all;
}

TEST_F(CudaAttention, Sixteen) {
  for (const Heads& h : {Heads{4, 2, 64, 64}, Heads{3, 3, 80, 80}, Heads{8, 2, 96, 96}, Heads{4, 1, 128, 128},
                         Heads{2, 2, 192, 128}, Heads{4, 2, 256, 256}, Heads{2, 1, 40, 24}})
    for (const auto& [name, o] : variants()) {
      expect_close<bf16, bf16, bf16>(h, kPrefill, o, name + ", bf16");
      expect_close<bf16, bf16, bf16>(h, kDecode, o, name + ", bf16, decode");
      if (o.store == Store::packed) expect_close<f16, f16, f16>(h, kPrefill, o, name + ", f16");
      if (o.store != Store::ring) expect_close<f16, f16, f16>(h, kDecode, o, name + ", f16, decode");
    }
}

TEST_F(CudaAttention, OtherScoresAndPatterns) {
  const Heads h{4, 2, 64, 64};
  for (Precision precision : {Precision::fast, Precision::full}) {
    Options o;
    o.precision = precision, o.pattern = AttentionPattern::causal_window();
    Options bias = o, alibi = o, relative = o, plus_one = o, block = o, prefix = o, chunk = o, dilated = o,
            strided = o;
    bias.bias = alibi.alibi = relative.relative = plus_one.plus_one = true;
    block.pattern.causal_block = 7, prefix.pattern.prefix = 30, chunk.pattern.chunk = 40;
    dilated.pattern.dilation = 3, dilated.pattern.left = 20, strided.pattern.strided = 9,
    strided.pattern.left = 11;
    const std::pair<const char*, const Options*> all[] = {
        {"bias", &bias},         {"alibi", &alibi},     {"relative", &relative},
        {"plus one", &plus_one}, {"blocks", &block},    {"prefix", &prefix},
        {"chunks", &chunk},      {"dilated", &dilated}, {"strided", &strided}};
    for (const auto& [name, options] : all) expect_close<float, float, float>(h, kPrefill, *options, name);
  }
}

TEST_F(CudaAttention, FullPrecision) {
  for (const Heads& h : {Heads{4, 2, 64, 64}, Heads{2, 1, 7, 5}, Heads{4, 1, 128, 128}, Heads{2, 1, 192, 128},
                         Heads{1, 1, 576, 512}})
    for (auto [name, o] : variants()) {
      o.precision = Precision::full;
      expect_close<float, float, float>(h, {{1, 1}, {33, 40}, {67, 67}}, o, name);
      expect_close<bf16, float, float>(h, kDecode, o, name + ", bf16 keys");
    }
}

// A sequence's bits do not depend on what else is in the batch.
TEST_F(CudaAttention, BatchMatesAlone) {
  CudaExec exec;
  for (Index queries : {1, 100}) {
    const Index keys = 900;
    const auto q = Both<bf16, 3>::random({3 * queries, 4, 128}, 1);
    const auto k = Both<bf16, 3>::random({3 * keys, 2, 128}, 2),
               v = Both<bf16, 3>::random({3 * keys, 2, 128}, 3);
    Both<bf16, 3> together({3 * queries, 4, 128}), alone({queries, 4, 128});
    std::vector<Index> starts;
    std::vector<KeyValueArgs<bf16>> sequences;
    for (Index n = 0; n < 3; ++n) {
      starts.push_back(n * queries);
      const Index length = keys - 300 * (n % 2);
      sequences.push_back({k.device().slice(0, n * keys, n * keys + length),
                           v.device().slice(0, n * keys, n * keys + length)});
    }
    starts.push_back(3 * queries);
    using Args = SoftmaxAttentionArgs<float, bf16, bf16, bf16>;
    softmax_attention(
        Args{q.device(), starts, sequences, together.device(), AttentionPattern::causal_window()}, exec);
    softmax_attention(Args{q.device().slice(0, queries, 2 * queries),
                           {},
                           std::span(sequences).subspan(1, 1),
                           alone.device(),
                           AttentionPattern::causal_window()},
                      exec);
    exec.synchronize();
    together.download(), alone.download();
    for (Index t = 0; t < queries; ++t)
      for (Index h = 0; h < 4; ++h)
        for (Index d = 0; d < 128; ++d)
          ASSERT_EQ(together.host()(queries + t, h, d).bits, alone.host()(t, h, d).bits);
  }
}

TEST_F(CudaAttention, Refuses) {
  CudaExec exec;
  const auto q = Both<float, 3>::random({3, 2, 8}, 1), k = Both<float, 3>::random({5, 2, 8}, 2);
  Both<float, 3> out({3, 2, 8});
  const KeyValue kv[] = {{k.device(), k.device()}};
  SoftmaxAttention a{q.device(), {}, kv, out.device()};
  a.top_k = 3;
  EXPECT_THROW(softmax_attention(a, exec), Error);
  a.top_k = 0, a.normalizer = AttentionNormalizer::relu;
  EXPECT_THROW(softmax_attention(a, exec), Error);
  a.normalizer = AttentionNormalizer::softmax, a.out = a.out.slice(2, 0, 7);
  EXPECT_THROW(softmax_attention(a, exec), Error);
}

TEST_F(CudaAttention, Merge) {
  CudaExec exec;
  const auto a = Both<float, 3>::random({9, 3, 20}, 1), b = Both<float, 3>::random({9, 3, 20}, 2);
  auto lse_a = Both<float, 2>::random({9, 3}, 3, -5, 5), lse_b = Both<float, 2>::random({9, 3}, 4, -5, 5);
  lse_a.host()(2, 1) = -INFINITY, lse_a.host()(4, 0) = lse_b.host()(4, 0) = -INFINITY;
  lse_a.upload(), lse_b.upload();
  Both<float, 3> out({9, 3, 20});
  Both<float, 2> lse({9, 3});
  merge_attention(
      MergeAttention{a.device(), lse_a.device(), b.device(), lse_b.device(), out.device(), lse.device()},
      exec);
  const auto wa = a.wide(), wb = b.wide();
  const auto la = lse_a.wide(), lb = lse_b.wide();
  Tensor<double, 3> want({9, 3, 20});
  Tensor<double, 2> want_lse({9, 3});
  ref::merge_attention(
      MergeAttentionArgs<double>{wa.view(), la.view(), wb.view(), lb.view(), want.view(), want_lse.view()});
  exec.synchronize();
  EXPECT_LE(error_of(out, want), kFull);
  lse.download();
  for (Index i = 0; i < 27; ++i) {
    const double w = want_lse.data()[i], g = static_cast<double>(lse.host().data[i]);
    EXPECT_TRUE((std::isinf(w) && w == g) || std::abs(w - g) < 1e-5);
  }
}

}  // namespace
}  // namespace ashlar
