// SPDX-License-Identifier: Apache-2.0
// Reformer and Sinkhorn.
#include "ashlar/nn/mixers/reformer_attention.hpp"
#include "ashlar/nn/mixers/sinkhorn_attention.hpp"
#include "ashlar/ref/lsh.hpp"
#include "ashlar/ref/sinkhorn.hpp"
#include "tests/nn/efficient_attention_support.hpp"

namespace ashlar {
namespace {

using namespace test;

Tensor<float, 4> rotations(Index heads, Index dim, Index rounds, Index width, unsigned seed = 4) {
  Tensor<float, 4> r({heads, dim, rounds, width});
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  for (Index i = 0; i < r.size(); ++i) r.data()[i] = normal(rng);
  return r;
}

Heads shared(Index heads, Index dim, std::vector<Index> starts) {
  Heads a(heads, dim);
  a.starts = std::move(starts);
  return a;
}
View<const float, 3> run_shared(Heads& a, const EfficientAttention<CpuExec>& attention, CpuExec& exec) {
  HeadBatch all = a.batch();
  all.k = {};
  attention(all, exec);
  a.out.expect_padding_untouched();
  return a.out.cview();
}
void expect_shared_alone_as_packed(Heads& a, const EfficientAttention<CpuExec>& attention) {
  CpuExec one({1}), three({3});
  run_shared(a, attention, three);
  for (Index n = 0; n + 1 < static_cast<Index>(a.starts.size()); ++n) {
    const Index begin = a.starts[static_cast<std::size_t>(n)],
                end = a.starts[static_cast<std::size_t>(n) + 1];
    HeadBatch alone = a.batch().sequence(n);
    Array<3> packed({end - begin, a.heads, a.dim}), out({end - begin, a.heads, a.dim});
    run_shared(a, attention, three);
    Backend<CpuExec>::copy(a.out.cview().slice(0, begin, end), packed.view(), one);
    alone.k = {}, alone.out = out.view();
    attention(alone, one);
    expect_close(out.view(), packed.cview(), [](Index) { return 0; });
  }
}

double norm(Heads& a, Index t, Index h) {
  double sum = 0;
  for (Index c = 0; c < a.dim; ++c) sum += double(a.q.view()(t, h, c)) * a.q.view()(t, h, c);
  return std::sqrt(sum);
}
double shared_product(Heads& a, Index t, Index s, Index h) {
  double sum = 0;
  for (Index c = 0; c < a.dim; ++c) sum += double(a.q.view()(t, h, c)) * a.q.view()(s, h, c);
  return sum;
}

TEST(Reformer, TwoChunksOfOneRoundSeeEverythingButThemselves) {
  Heads a = shared(2, 5, {0, 20, 20, 40});
  CpuExec exec;
  for (bool causal : {false, true})
    for (bool duplicates : {false, true}) {
      const auto r = rotations(1, a.dim, 1, 3);
      const ReformerAttention<CpuExec> attention(
          {.bucket_size = 10, .causal = causal, .allow_duplicates = duplicates}, r.view(), exec);
      auto want = attended(a, [&](Index n, Index h, Index i, Index j) {
        const Index begin = a.starts[static_cast<std::size_t>(n)];
        if (i == j) return causal && i == 0 ? 0.0 : kUnseen;
        if (causal && j > i) return kUnseen;
        return shared_product(a, begin + i, begin + j, h) / norm(a, begin + j, h) / std::sqrt(5.0);
      });
      expect_attended(a, run_shared(a, attention, exec), want);
      expect_shared_alone_as_packed(a, attention);
    }
}

// The paper's form in double, by the tables of lsh_bias with -5e4 for the token itself.
std::vector<double> reformer(Heads& a, const Tensor<float, 4>& r, Index m, bool causal, bool correct) {
  const Index dim = a.dim, rounds = r.shape()[2], width = r.shape()[3], tokens = a.starts.back();
  std::vector<double> rotated(static_cast<std::size_t>(tokens * a.heads * rounds * width));
  const View<double, 4> y(rotated.data(), {tokens, a.heads, rounds, width});
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < a.heads; ++h)
      for (Index e = 0; e < rounds; ++e)
        for (Index i = 0; i < width; ++i)
          for (Index c = 0; c < dim; ++c)
            y(t, h, e, i) += double(a.q.view()(t, h, c)) * r.view()(r.shape()[0] == 1 ? 0 : h, c, e, i);
  std::vector<Index> order_memory(static_cast<std::size_t>(rounds * tokens * a.heads)),
      place_memory(order_memory.size());
  const View<Index, 3> order(order_memory.data(), {rounds, tokens, a.heads}),
      place(place_memory.data(), {rounds, tokens, a.heads});
  ref::lsh_sort<double>({y, a.starts, m, order, place});
  std::vector<double> table(static_cast<std::size_t>(tokens * a.heads * 2 * m));
  const View<double, 4> bias(table.data(), {tokens / m, a.heads, m, 2 * m});
  std::vector<double> out(static_cast<std::size_t>(tokens * a.hidden)),
      total(static_cast<std::size_t>(tokens * a.heads));
  for (Index e = 0; e < rounds; ++e) {
    ref::lsh_bias<double>({order, place, a.starts, e, m, bias, causal, correct, -30});
    for (std::size_t n = 0; n + 1 < a.starts.size(); ++n)
      for (Index at = a.starts[n]; at < a.starts[n + 1]; ++at)
        for (Index h = 0; h < a.heads; ++h) {
          const Index t = order(e, at, h), chunk = at / m * m;
          const bool back = chunk == a.starts[n];
          for (Index x = 0; x < 2 * m; ++x) {
            const Index s = x >= m ? order(e, chunk + x - m, h)
                            : back ? order((e + rounds - 1) % rounds, a.starts[n + 1] - m + x, h)
                                   : order(e, chunk - m + x, h);
            const double b = bias(at / m, h, at % m, x);
            // -30 stands for -5e4: what is left of it is 1e-13, but for tokens that see nothing else.
            const double product =
                t == s ? 0 : shared_product(a, t, s, h) / norm(a, s, h) / std::sqrt(double(dim));
            const double p = std::exp(product + b);
            total[static_cast<std::size_t>(t * a.heads + h)] += p;
            for (Index c = 0; c < dim; ++c)
              out[static_cast<std::size_t>((t * a.heads + h) * dim + c)] += p * a.v.view()(s, h, c);
          }
        }
  }
  for (std::size_t i = 0; i < out.size(); ++i) out[i] /= total[i / static_cast<std::size_t>(dim)];
  return out;
}

TEST(Reformer, MatchesTheEquation) {
  Heads a = shared(2, 6, {0, 24, 24, 40});
  CpuExec exec;
  for (Index rounds : {1, 2, 3})
    for (Index heads : {1, 2})
      for (bool causal : {false, true})
        for (bool duplicates : {false, true}) {
          const auto r = rotations(heads, a.dim, rounds, 4);
          const ReformerAttention<CpuExec> attention(
              {.bucket_size = 4, .causal = causal, .allow_duplicates = duplicates}, r.view(), exec);
          expect_attended(a, run_shared(a, attention, exec), reformer(a, r, 4, causal, !duplicates));
          expect_shared_alone_as_packed(a, attention);
        }
}

TEST(Reformer, TheReleasedFormPadsAndMultipliesByTheRoot) {
  Heads a = shared(2, 3, {0, 23, 23, 40});
  for (float factor : {0.3f}) a.q.each([&](float& e) { e *= factor; });
  CpuExec exec;
  const Index width = 2, padding = 8;  // four buckets; 24 tokens each, one and seven of them zeros
  const auto r = rotations(1, a.dim, 1, width);
  const ReformerAttention<CpuExec> attention({.form = ReformerConfig::released, .padding = padding}, r.view(),
                                             exec);
  std::vector<double> want(static_cast<std::size_t>(40 * a.hidden));
  for (Index begin : {0, 23})
    for (Index h = 0; h < a.heads; ++h) {
      const Index length = begin == 0 ? 23 : 17, all = 24, m = all / 4;
      auto q = [&](Index t, Index c) { return t < length ? double(a.q.view()(begin + t, h, c)) : 0.0; };
      std::vector<double> rotated(static_cast<std::size_t>(all * width));
      const View<double, 4> y(rotated.data(), {all, 1, 1, width});
      for (Index t = 0; t < all; ++t)
        for (Index i = 0; i < width; ++i)
          for (Index c = 0; c < a.dim; ++c) y(t, 0, 0, i) += q(t, c) * r.view()(0, c, 0, i);
      std::vector<Index> order(static_cast<std::size_t>(all)), place(order.size());
      ref::lsh_sort<double>({y, {}, 0, {order.data(), {1, all, 1}}, {place.data(), {1, all, 1}}});
      for (Index at = 0; at < all; ++at) {
        const Index t = order[static_cast<std::size_t>(at)], chunk = at / m;
        if (t >= length) continue;
        double total = 0;
        double* o = &want[static_cast<std::size_t>(((begin + t) * a.heads + h) * a.dim)];
        for (Index x = 0; x < all; ++x) {
          if (x / m != chunk && (x / m + 1) % 4 != chunk) continue;
          const Index s = order[static_cast<std::size_t>(x)];
          double product = 0;
          for (Index c = 0; c < a.dim; ++c) product += q(t, c) * q(s, c);
          const double p = std::exp(product * std::sqrt(double(a.dim)));
          total += p;
          for (Index c = 0; s < length && c < a.dim; ++c) o[c] += p * a.v.view()(begin + s, h, c);
        }
        for (Index c = 0; c < a.dim; ++c) o[c] /= total;
      }
    }
  expect_attended(a, run_shared(a, attention, exec), want);
  expect_shared_alone_as_packed(a, attention);
}

TEST(Reformer, Refuses) {
  CpuExec exec;
  const auto r = rotations(1, 5, 2, 2);
  auto make = [&](const ReformerConfig& c) {
    return refusal([&] { ReformerAttention<CpuExec>(c, r.view(), exec); });
  };
  EXPECT_EQ(make({}), "ReformerAttention: bucket_size is 0 and padding 0, expected 1 or more and no padding");
  EXPECT_EQ(
      make({.form = ReformerConfig::released}),
      "ReformerAttention: bucket_size is 0 with 2 rounds, expected 0 with one round, and neither a causal "
      "mask nor a correction of duplicates, in the released form");
  Heads a = shared(2, 5, {0, 23, 23, 40});
  const ReformerAttention<CpuExec> attention({.bucket_size = 4}, r.view(), exec);
  EXPECT_EQ(refusal([&] { run_shared(a, attention, exec); }),
            "ReformerAttention: sequence 0 has 23 tokens, expected a multiple of 8, at most 16");
  a.starts = {0, 24, 40};
  EXPECT_EQ(refusal([&] { run_shared(a, attention, exec); }),
            "ReformerAttention: sequence 0 has 24 tokens, expected a multiple of 8, at most 16");
  EXPECT_EQ(refusal([&] { a.run(attention, exec); }),
            "ReformerAttention: k is not q, expected one projection for both");
}

struct SortNet {
  Array<2> weight;
  Array<1> bias;
  SortNet(Index dim, Index most) : weight({dim, most}), bias({most}) {
    std::mt19937 rng(8);
    weight.normal(rng, 0.3f), bias.normal(rng);
  }
};

// Keys and values of sequence n, head h, mixed by P: [block, position in it] as `at` has them.
TEST(SinkhornAttention, MatchesTheEquation) {
  const Index block = 4;
  Heads a = shared(2, 5, {0, 24, 24, 40});
  SortNet net(a.dim, 7);
  CpuExec exec;
  SinkhornAttentionConfig c{.head_dim = a.dim, .block = block};
  c.iterations = 5, c.temperature = 0.75f;
  const SinkhornAttention<CpuExec> attention(c, net.weight.cview(), net.bias.cview(), exec);
  std::vector<double> want(static_cast<std::size_t>(40 * a.hidden));
  for (Index begin : {0, 24})
    for (Index h = 0; h < a.heads; ++h) {
      const Index blocks = begin == 0 ? 6 : 4;
      std::vector<double> logits(static_cast<std::size_t>(blocks * blocks)), p(logits.size());
      for (Index b = 0; b < blocks; ++b)
        for (Index l = 0; l < blocks; ++l) {
          double sum = net.bias.view()(l);
          for (Index i = 0; i < block; ++i)
            for (Index e = 0; e < a.dim; ++e)
              sum += double(a.k.view()(begin + b * block + i, h, e)) * net.weight.view()(e, l);
          logits[static_cast<std::size_t>(b * blocks + l)] = sum;
        }
      ref::sinkhorn<double>({{logits.data(), {1, blocks, blocks}}, {p.data(), {1, blocks, blocks}}, 5, 0.75});
      auto sorted = [&](Array<3>& x, Index b, Index i, Index e) {
        double sum = 0;
        for (Index l = 0; l < blocks; ++l)
          sum += p[static_cast<std::size_t>(b * blocks + l)] * x.view()(begin + l * block + i, h, e);
        return sum;
      };
      for (Index t = 0; t < blocks * block; ++t) {
        const Index b = t / block;
        double total = 0;
        double* o = &want[static_cast<std::size_t>(((begin + t) * a.heads + h) * a.dim)];
        for (Index j = 0; j < 2 * block; ++j) {
          auto element = [&](Array<3>& x, Index e) {
            return j < block ? double(x.view()(begin + b * block + j, h, e)) : sorted(x, b, j - block, e);
          };
          double s = 0;
          for (Index e = 0; e < a.dim; ++e) s += a.q.view()(begin + t, h, e) * element(a.k, e);
          const double w = std::exp(s / std::sqrt(double(a.dim)));
          total += w;
          for (Index e = 0; e < a.dim; ++e) o[e] += w * element(a.v, e);
        }
        for (Index e = 0; e < a.dim; ++e) o[e] /= total;
      }
    }
  expect_attended(a, a.run(attention, exec), want);
  expect_alone_as_packed(a, attention);
}

TEST(SinkhornAttention, TheReleasedFormAddsAttentionToTheSumOfAllBlocks) {
  const Index block = 4;
  Heads a = shared(2, 5, {0, 24, 24, 40});
  SortNet net(a.dim, 7);
  CpuExec exec;
  const SinkhornAttentionConfig c{
      .head_dim = a.dim, .block = block, .form = SinkhornAttentionConfig::released_softmax};
  const SinkhornAttention<CpuExec> attention(c, net.weight.cview(), net.bias.cview(), exec);
  std::vector<double> want(static_cast<std::size_t>(40 * a.hidden));
  for (Index begin : {0, 24})
    for (Index h = 0; h < a.heads; ++h)
      for (Index t = 0; t < (begin == 0 ? 24 : 16); ++t) {
        const Index blocks = begin == 0 ? 6 : 4;
        double* o = &want[static_cast<std::size_t>(((begin + t) * a.heads + h) * a.dim)];
        for (bool summed : {false, true}) {
          auto element = [&](Array<3>& x, Index i, Index e) {
            double sum = 0;
            for (Index l = 0; l < blocks; ++l)
              if (summed || l == t % blocks) sum += x.view()(begin + i * blocks + l, h, e);
            return sum;
          };
          double total = 0;
          std::vector<double> part(static_cast<std::size_t>(a.dim));
          for (Index i = 0; i < block; ++i) {
            double s = 0;
            for (Index e = 0; e < a.dim; ++e) s += a.q.view()(begin + t, h, e) * element(a.k, i, e);
            const double w = std::exp(s / std::sqrt(double(a.dim)));
            total += w;
            for (Index e = 0; e < a.dim; ++e) part[static_cast<std::size_t>(e)] += w * element(a.v, i, e);
          }
          for (Index e = 0; e < a.dim; ++e) o[e] += part[static_cast<std::size_t>(e)] / total;
        }
      }
  const View<const double, 3> w(want.data(), {40, a.heads, a.dim});
  // Sums of six keys and values, and products with them: logits up to 30 are off by 30 dim eps.
  expect_close(a.run(attention, exec), w, [&](Index) { return 1000 * double(a.dim + 2) * kEps; });
  expect_alone_as_packed(a, attention);
  SinkhornAttentionConfig other = c;
  other.form = SinkhornAttentionConfig::released_sinkhorn;
  expect_alone_as_packed(a, SinkhornAttention<CpuExec>(other, net.weight.cview(), net.bias.cview(), exec));
}

TEST(SinkhornAttention, Refuses) {
  CpuExec exec;
  SortNet net(5, 5);
  const SinkhornAttention<CpuExec> attention({.head_dim = 5, .block = 4}, net.weight.cview(), {}, exec);
  Heads a = shared(2, 5, {0, 23, 23, 40});
  EXPECT_EQ(refusal([&] { a.run(attention, exec); }),
            "SinkhornAttention: sequence 0 has 23 tokens, expected a multiple of 4, at most 20");
  a.starts = {0, 24, 40};
  EXPECT_EQ(refusal([&] { a.run(attention, exec); }),
            "SinkhornAttention: sequence 0 has 24 tokens, expected a multiple of 4, at most 20");
  EXPECT_EQ(
      refusal([&] { SinkhornAttention<CpuExec>({.head_dim = 4, .block = 4}, net.weight.cview(), {}, exec); }),
      "SinkhornAttention: weight has shape [5, 5], expected [4, 5]");
}

}  // namespace
}  // namespace ashlar
