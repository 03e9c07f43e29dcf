// SPDX-License-Identifier: Apache-2.0
// What the tests of softmax attention share: patterns, scores and normalisers by name, packed problems with
// poisoned outputs, what the equation in double says of them, and how far a kernel may be from that.
#pragma once
#include <cstring>
#include <optional>

#include "ashlar/ref/softmax_attention.hpp"
#include "tests/support.hpp"

namespace ashlar::test {

struct Heads {
  Index heads = 2, kv_heads = 2, dim = 16, value_dim = 16;
  bool latent = false;  // v is the first columns of k
};

inline constexpr Heads kHeads[] = {{2, 2, 16, 16}, {4, 2, 24, 24}, {6, 2, 20, 20},
                                   {5, 1, 17, 33}, {3, 3, 40, 8},  {4, 1, 48, 32, true}};

struct Lengths {
  Index queries, keys;
};

inline constexpr AttentionNormalizer kNormalizers[] = {
    AttentionNormalizer::softmax, AttentionNormalizer::softmax_plus_one, AttentionNormalizer::sigmoid,
    AttentionNormalizer::relu, AttentionNormalizer::relu_squared};

inline bool is_softmax(AttentionNormalizer n) { return n <= AttentionNormalizer::softmax_plus_one; }

struct PatternCase {
  const char* name;
  AttentionPattern pattern{};
  Index block = 0;       // of random lists, made for the problem's heads and positions
  bool by_head = false;  // a list for each head
  std::vector<Index> global_keys{}, global_queries{};
};

inline const std::vector<PatternCase>& pattern_cases() {
  static const std::vector<PatternCase> all = {
      {"full"},
      {"causal", {.causal = true}},
      {"causal, window 1", {.causal = true, .left = 0}},
      {"causal, window 8", {.causal = true, .left = 7}},
      {"causal, window 64", {.causal = true, .left = 63}},
      {"causal, window to the right, which it hides", {.causal = true, .left = 90, .right = 4}},
      {"window left", {.left = 9}},
      {"window right", {.right = 3}},
      {"window both", {.left = 20, .right = 70}},
      {"window of the query's own", {.left = 0, .right = 0}},
      {"chunk", {.chunk = 16}},
      {"causal chunk", {.causal = true, .chunk = 50}},
      {"causal chunk, window", {.causal = true, .left = 11, .chunk = 64}},
      {"block-causal", {.causal = true, .causal_block = 16}},
      {"block-causal, window", {.causal = true, .causal_block = 24, .left = 30}},
      {"prefix", {.causal = true, .prefix = 40}},
      {"prefix, window", {.causal = true, .prefix = 70, .left = 5, .right = 80}},
      {"dilated", {.dilation = 3}},
      {"causal dilated", {.causal = true, .dilation = 2}},
      {"dilated window", {.left = 3, .right = 2, .dilation = 5}},
      {"causal dilated window", {.causal = true, .left = 20, .dilation = 3}},
      {"dilated chunk", {.chunk = 40, .dilation = 2}},
      {"strided", {.strided = 7}},
      {"causal strided", {.causal = true, .strided = 5}},
      {"causal strided or window", {.causal = true, .left = 6, .strided = 7}},
      {"global keys", {}, 0, false, {0, 1, 17, 64}},
      {"global queries", {}, 0, false, {}, {3, 40, 66}},
      {"global keys and queries, window", {.left = 4, .right = 4}, 0, false, {0, 33}, {0, 33}},
      {"causal global keys, window", {.causal = true, .left = 12}, 0, false, {2, 65}},
      {"causal global queries, chunk", {.causal = true, .chunk = 8}, 0, false, {}, {30, 50}},
      {"blocks of 16", {}, 16},
      {"blocks of 64", {}, 64},
      {"blocks of 16 by head", {}, 16, true},
      {"causal blocks of 24 by head", {.causal = true}, 24, true},
      {"causal blocks of 8, window", {.causal = true, .left = 30}, 8},
      {"blocks of 16, global keys and queries", {}, 16, false, {0, 5}, {7}},
      {"causal blocks of 5 by head, strided", {.causal = true, .strided = 9}, 5, true},
      {"all of it",
       {.causal = true, .prefix = 20, .left = 40, .right = 30, .chunk = 64, .dilation = 2, .strided = 13},
       16,
       true,
       {6, 31},
       {20}},
  };
  return all;
}

// Which of the problem's tables go into the score.
struct ScoreCase {
  const char* name;
  float scale = 0, soft_cap = 0;
  bool alibi = false;
  Index reach = -1;  // of the relative table
  bool relative_by_head = true;
  const char* bias = "";  // its axes that are not broadcast: of "nhqk"
  bool hiding = false;    // a fifth of the bias is -inf, and all of query 3's
  bool sinks = false;
};

// Random lists, of about the given density; some query blocks have none.
struct BlockLists {
  std::vector<Index> offsets{0}, keys;

  BlockLists(Index heads, Index blocks, double density, unsigned seed) {
    std::mt19937 rng(seed);
    std::bernoulli_distribution listed(density), none(0.1);
    for (Index r = 0; r < heads * blocks; ++r) {
      const bool empty = none(rng);
      for (Index b = 0; b < blocks; ++b)
        if (listed(rng) && !empty) keys.push_back(b);
      offsets.push_back(static_cast<Index>(keys.size()));
    }
  }
};

// Equal, infinities too, or nearer than bound(i).
template <class Got, class Want, int Rank, class Bound>
void expect_near(const View<Got, Rank>& got, const View<Want, Rank>& want, Bound&& bound) {
  ASSERT_EQ(got.shape, want.shape);
  for (Index i = 0; i < want.size(); ++i) {
    Index g = 0, w = 0, rest = i;
    for (int a = Rank - 1; a >= 0; --a) {
      const Index at = rest % want.shape[a];
      rest /= want.shape[a];
      g += at * got.strides[a], w += at * want.strides[a];
    }
    const double x = static_cast<double>(got.data[g]), y = static_cast<double>(want.data[w]);
    ASSERT_TRUE(x == y || std::abs(x - y) <= bound(i))
        << "element " << i << " of " << to_string(want.shape) << ": got " << x << ", want " << y << ", bound "
        << bound(i);
  }
}

// The elements of an array, of bits to compare.
template <int Rank>
std::vector<float> copy(Array<Rank>& x) {
  std::vector<float> all;
  x.each([&](float& e) { all.push_back(e); });
  return all;
}

// A packed batch of sequences; queries stand at the end of their keys. Padding between rows is NaN.
struct Problem {
  Problem(std::vector<Lengths> of, const Heads& h, unsigned seed, float sharp = 1)
      : lengths(std::move(of)),
        heads(h),
        tokens(total(lengths)),
        q({tokens, h.heads, h.dim}),
        out({tokens, h.heads, h.value_dim}),
        lse({tokens, h.heads}),
        entropy({tokens, h.heads}) {
    std::mt19937 rng(seed);
    q.normal(rng, sharp);
    for (const Lengths& n : lengths) {
      k.emplace_back(std::array<Index, 3>{n.keys, h.kv_heads, h.dim}).normal(rng);
      v.emplace_back(std::array<Index, 3>{h.latent ? 0 : n.keys, h.kv_heads, h.value_dim}).normal(rng);
      offsets.push_back(offsets.back() + n.queries);
    }
    for (std::size_t n = 0; n < lengths.size(); ++n)
      sequences.push_back({k[n].cview(), h.latent ? first_columns(k[n].cview()) : v[n].cview()});
    args = {q.cview(), offsets, sequences, out.view()};
  }
  Problem(const Problem&) = delete;

  static Index total(const std::vector<Lengths>& lengths) {
    Index n = 0;
    for (const Lengths& l : lengths) n += l.queries;
    return n;
  }
  template <class T>
  View<const T, 3> first_columns(View<const T, 3> x) const {
    return x.slice(2, 0, heads.value_dim);
  }
  Index positions() const {  // of the longest sequence
    Index most = 0;
    for (const Lengths& l : lengths) most = std::max(most, l.keys);
    return most;
  }

  Problem& set(const PatternCase& c, unsigned seed = 7) {
    args.pattern = c.pattern;
    if (c.block > 0) {
      const Index list_heads = c.by_head ? heads.heads : 1;
      lists.emplace(list_heads, (positions() + c.block - 1) / c.block, 0.35, seed);
      args.pattern.blocks = {c.block, lists->offsets, lists->keys, list_heads};
    }
    auto inside = [&](const std::vector<Index>& list) {
      std::vector<Index> kept;
      for (Index p : list)
        if (p < positions()) kept.push_back(p);
      return kept;
    };
    global_keys = inside(c.global_keys), global_queries = inside(c.global_queries);
    args.pattern.global_keys = global_keys, args.pattern.global_queries = global_queries;
    return *this;
  }
  Problem& set(AttentionNormalizer n) {
    args.normalizer = n;
    return request(is_softmax(n), is_softmax(n));
  }
  Problem& set(const ScoreCase& c, unsigned seed = 5) {
    std::mt19937 rng(seed);
    args.score = {c.scale, c.soft_cap};
    if (c.alibi) args.score.alibi = alibi.emplace(std::array{heads.heads}).uniform(rng, 0, 0.5f).cview();
    if (c.sinks) args.score.sinks = sinks.emplace(std::array{heads.heads}).normal(rng, 2).cview();
    if (c.reach >= 0) {
      const Index rows = c.relative_by_head ? heads.heads : 1;
      relative.emplace(std::array{rows, 2 * c.reach + 1}).normal(rng);
      args.score.relative = relative->cview();
    }
    const std::string_view axes = c.bias;
    if (axes.empty()) return *this;
    Index queries = 1;
    for (const Lengths& l : lengths) queries = std::max(queries, l.queries);
    auto extent = [&](char axis, Index n) { return axes.find(axis) != axes.npos ? n : 1; };
    bias.emplace(std::array{extent('n', static_cast<Index>(lengths.size())), extent('h', heads.heads),
                            extent('q', queries), extent('k', positions())});
    bias->normal(rng);
    args.score.bias = bias->cview();
    if (!c.hiding) return *this;
    const float lowest = -std::numeric_limits<float>::infinity();
    std::bernoulli_distribution hidden(0.2);
    bias->each([&](float& e) { e = hidden(rng) ? lowest : e; });
    if (args.score.bias.shape[2] <= 3) return *this;
    for (Index n = 0; n < args.score.bias.shape[0]; ++n)
      for (Index h = 0; h < args.score.bias.shape[1]; ++h)
        for (Index j = 0; j < args.score.bias.shape[3]; ++j) bias->view()(n, h, 3, j) = lowest;
    return *this;
  }
  // Keeps the keys from `start` on.
  Problem& begin_at(std::size_t n, Index start) {
    const auto cut = [&](const View<const float, 3>& x) { return x.slice(0, start, lengths[n].keys); };
    const View<const float, 3> keys = k[n].cview();
    sequences[n] = {cut(keys), cut(heads.latent ? first_columns(keys) : v[n].cview()), start};
    return *this;
  }
  // Queries and keys of small integers: scores are exact, and many are equal.
  Problem& integers(unsigned seed, int most = 2) {
    std::mt19937 rng(seed);
    std::uniform_int_distribution<int> u(-most, most);
    q.each([&](float& e) { e = static_cast<float>(u(rng)); });
    for (auto& x : k) x.each([&](float& e) { e = static_cast<float>(u(rng)); });
    args.score.scale = 0.25f;
    return *this;
  }
  Problem& request(bool with_lse, bool with_entropy) {
    args.lse = with_lse ? lse.view() : View<float, 2>();
    args.entropy = with_entropy ? entropy.view() : View<float, 2>();
    return *this;
  }

  struct Want {
    Tensor<double, 3> out;
    Tensor<double, 2> lse, entropy;
  };
  // By the equation, of the contiguous keys and values.
  Want want() {
    Want w{Tensor<double, 3>({tokens, heads.heads, heads.value_dim}),
           Tensor<double, 2>({tokens, heads.heads}), Tensor<double, 2>({tokens, heads.heads})};
    std::vector<KeyValueArgs<double>> exact;
    for (std::size_t n = 0; n < lengths.size(); ++n) {
      const View<const double, 3> keys = k[n].exact(), values = heads.latent
                                                                    ? first_columns(keys)
                                                                    : View<const double, 3>(v[n].exact());
      const Index start = sequences[n].start, end = lengths[n].keys;
      exact.push_back({keys.slice(0, start, end), values.slice(0, start, end), start});
    }
    SoftmaxAttentionArgs<double> x{q.exact(), args.offsets, exact, w.out.view(), args.pattern};
    x.score.scale = static_cast<double>(args.score.scale);
    x.score.soft_cap = static_cast<double>(args.score.soft_cap);
    if (args.score.alibi) x.score.alibi = alibi->exact();
    if (args.score.relative) x.score.relative = relative->exact();
    if (args.score.bias) x.score.bias = bias->exact();
    if (args.score.sinks) x.score.sinks = sinks->exact();
    x.normalizer = args.normalizer, x.top_k = args.top_k;
    if (args.lse) x.lse = w.lse.view();
    if (args.entropy) x.entropy = w.entropy.view();
    ref::softmax_attention(x);
    return w;
  }

  // A score's largest magnitude, before the normaliser; a kernel's scores are off by twice eps of it.
  double score_magnitude() {
    auto row = [](const View<const float, 3>& x) {
      double most = 0;
      for (Index t = 0; t < x.shape[0]; ++t)
        for (Index h = 0; h < x.shape[1]; ++h) {
          double norm = 0;
          for (Index c = 0; c < x.shape[2]; ++c)
            norm += static_cast<double>(x(t, h, c)) * static_cast<double>(x(t, h, c));
          most = std::max(most, std::sqrt(norm));
        }
      return most;
    };
    const AttentionScore& s = args.score;
    const double scale = s.scale != 0 ? std::abs(static_cast<double>(s.scale))
                                      : 1 / std::sqrt(double(std::max<Index>(1, heads.dim)));
    double keys = 0;
    for (auto& x : k) keys = std::max(keys, row(x.cview()));
    return scale * row(q.cview()) * keys + static_cast<double>(s.soft_cap) +
           (s.alibi ? largest(s.alibi) * static_cast<double>(positions()) : 0) +
           (s.relative ? finite(s.relative) : 0) + (s.bias ? finite(s.bias) : 0) +
           (s.sinks ? finite(s.sinks) : 0);
  }
  template <int Rank>
  static double finite(View<const float, Rank> x) {
    double most = 0;
    for (Index i = 0; i < x.size(); ++i) {
      Index p = 0, rest = i;
      for (int a = Rank - 1; a >= 0; --a) p += rest % x.shape[a] * x.strides[a], rest /= x.shape[a];
      if (std::isfinite(x.data[p])) most = std::max(most, std::abs(static_cast<double>(x.data[p])));
    }
    return most;
  }

  template <class Attend>
  void run(Attend&& attend, CpuExec& exec) {
    out.poison(), lse.poison(), entropy.poison();
    attend(exec);
    out.expect_padding_untouched(), lse.expect_padding_untouched(), entropy.expect_padding_untouched();
  }
  void run(CpuExec& exec) {
    run([&](CpuExec& e) { softmax_attention(args, e); }, exec);
  }

  // `attend` is a call that must mean the same as args: of another layout or type.
  template <class Attend>
  void expect(Attend&& attend) {
    const Want w = want();
    const double magnitude = score_magnitude(), score = 2 * kEps * magnitude, n = double(positions());
    double value = 1;
    for (const KeyValue& kv : sequences) value = std::max(value, largest(kv.v));
    double slope = 0;  // of an output in a score, beside the value
    switch (args.normalizer) {
      case AttentionNormalizer::relu: slope = std::sqrt(n); break;
      case AttentionNormalizer::relu_squared: slope = std::sqrt(n) * 2 * std::max(1.0, magnitude); break;
      case AttentionNormalizer::sigmoid: slope = std::sqrt(n); break;
      default: slope = 2;
    }
    const double bound = value * (slope * score + (16 + std::sqrt(n)) * kEps);
    const double lse_roundings = 8 + magnitude + 6 * std::sqrt(n);  // sums of equal terms round alike
    static std::vector<CpuExec> execs = contexts();
    for (CpuExec& exec : execs) {
      SCOPED_TRACE(testing::Message() << name(exec.isa()) << ", " << exec.threads() << " threads");
      run(attend, exec);
      expect_near(out.view(), w.out.view(),
                  [&](Index i) { return bound + 8 * kEps * std::abs(w.out.data()[i]); });
      if (args.lse)
        expect_near(lse.view(), w.lse.view(), [&](Index) { return score + lse_roundings * kEps; });
      if (args.entropy)
        expect_near(entropy.view(), w.entropy.view(),
                    [&](Index) { return 2 * (score + lse_roundings * kEps) * (1 + magnitude); });
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  void expect() {
    expect([&](CpuExec& e) { softmax_attention(args, e); });
  }

  std::vector<Lengths> lengths;
  Heads heads;
  Index tokens;
  Array<3> q, out;
  Array<2> lse, entropy;
  std::vector<Array<3>> k, v;
  std::vector<Index> offsets{0}, global_keys, global_queries;
  std::vector<KeyValue> sequences;
  std::optional<BlockLists> lists;
  // Tables of the score, for those who set args.score.
  std::optional<Array<1>> alibi, sinks;
  std::optional<Array<2>> relative;
  std::optional<Array<4>> bias;
  SoftmaxAttention args;
};

inline std::ostream& operator<<(std::ostream& out, const Problem& p) {
  out << "heads " << p.heads.heads << "/" << p.heads.kv_heads << " dim " << p.heads.dim << "/"
      << p.heads.value_dim << (p.heads.latent ? " latent" : "") << " normalizer "
      << static_cast<int>(p.args.normalizer) << " top_k " << p.args.top_k << " sequences";
  for (const Lengths& l : p.lengths) out << " " << l.queries << "x" << l.keys;
  return out;
}

}  // namespace ashlar::test
