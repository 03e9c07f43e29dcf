// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/channel_mix.hpp"
#include "ashlar/nn/mixers/rwkv6.hpp"
#include "ashlar/nn/mixers/rwkv7.hpp"
#include "tests/nn/reference.hpp"

namespace ashlar {
namespace {

using namespace test;

// scaled by its place: W_up f(W_down x) + bias
Vector low_rank(const Weights& w, const std::string& name, Index in, Index rank, Index out, const Vector& x,
                double (*f)(double), bool biased = true) {
  const Matrix down = w.matrix((name + ".0.weight").c_str(), rank, in),
               up = w.matrix((name + ".2.weight").c_str(), out, rank);
  Vector y = times(up, each(times(down, x), f));
  if (biased) {
    const Vector bias = w.flat((name + ".2.bias").c_str(), {out});
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += bias[i];
  }
  return y;
}
double same(double x) { return x; }
double hyperbolic(double x) { return std::tanh(x); }

Matrix expected(const Weights& w, const Rwkv6Config& c, const Matrix& xs) {
  const Index d = c.hidden, H = c.heads, K = c.key_dim, V = c.value_dim, r = c.mix_rank;
  const Vector mu = w.flat("x_proj.0.mu", {d}), up = w.flat("x_proj.2.weight", {d, 5 * r}),
               bias = w.flat("x_bias", {5, d}), bonus = w.flat("bonus", {H, K}),
               norm = w.flat("g_norm.weight", {c.values()}), norm_bias = w.flat("g_norm.bias", {c.values()});
  const Matrix down = w.matrix("x_proj.0.linear.weight", 5 * r, d),
               wr = w.matrix("r_proj.linear.weight", c.keys(), d),
               wk = w.matrix("k_proj.linear.weight", c.keys(), d),
               wv = w.matrix("v_proj.linear.weight", c.values(), d),
               wg = w.matrix("g_proj.linear.weight", c.values(), d),
               wo = w.matrix("o_proj.weight", d, c.values());
  std::vector<Matrix> state = zero_states(H, K, V);
  Vector before(static_cast<std::size_t>(d));
  Matrix result;
  for (const Vector& x : xs) {
    const Vector z = each(times(down, shifted(x, before, mu)), hyperbolic);
    Matrix mixed;
    for (Index n = 0; n < 5; ++n) {
      Vector own(static_cast<std::size_t>(d));
      for (Index i = 0; i < d; ++i) {
        own[std::size_t(i)] = bias[std::size_t(n * d + i)];
        for (Index j = 0; j < r; ++j)
          own[std::size_t(i)] += up[std::size_t((i * 5 + n) * r + j)] * z[std::size_t(n * r + j)];
      }
      mixed.push_back(shifted(x, before, own));
    }
    const Vector rs = times(wr, mixed[0]), ks = times(wk, mixed[2]), vs = times(wv, mixed[3]),
                 gs = times(wg, mixed[4]);
    const Vector ws = low_rank(w, "w_proj.linear.lora", d, c.decay_rank, c.keys(), mixed[1], hyperbolic);
    Vector o(static_cast<std::size_t>(c.values()));
    for (Index h = 0; h < H; ++h)
      for (Index i = 0; i < K; ++i)
        for (Index j = 0; j < V; ++j) {
          const auto key = std::size_t(h * K + i), value = std::size_t(h * V + j);
          double& s = state[std::size_t(h)][std::size_t(i)][std::size_t(j)];
          o[value] += rs[key] * (s + bonus[key] * ks[key] * vs[value]);
          s = std::exp(-std::exp(ws[key])) * s + ks[key] * vs[value];
        }
    for (Index h = 0; h < H; ++h)
      layer_norm_at(o, std::size_t(h * V), std::size_t(V), norm, norm_bias, c.norm_eps);
    for (std::size_t i = 0; i < o.size(); ++i) o[i] *= silu(gs[i]);
    result.push_back(times(wo, o));
    before = x;
  }
  return result;
}

TEST(Rwkv6, MatchesTheEquations) {
  std::mt19937 rng(5);
  const Weights w(12);
  for (const Rwkv6Config& c : {Rwkv6Config{24, 2, 6, 12, 4, 5}, Rwkv6Config{15, 3, 7, 5, 1, 3, 1e-3f}}) {
    Array<2> x({19, c.hidden});
    x.normal(rng);
    const Matrix want = expected(w, c, rows_of(x.cview()));
    for (CpuExec& exec : contexts()) {
      const Rwkv6<CpuExec> mixer(ParameterReader<CpuExec>(w.source(), exec), c);
      check_every_way(
          x, want, 500 * kEps * largest(want), [&] { return mixer.new_state(0); },
          [&](auto in, auto out, const auto& batch) { mixer(in, out, batch, exec); });
    }
  }
}

Matrix expected(const Weights& w, const Rwkv7Config& c, const Matrix& xs, const Matrix& first) {
  const Index d = c.hidden, H = c.heads, K = c.head_dim, V = c.value_dim;
  Matrix mu;
  for (const char* name : {"x_r", "x_w", "x_k", "x_v", "x_a", "x_g"}) mu.push_back(w.flat(name, {1, 1, d}));
  const Vector k_k = w.flat("k_k", {c.keys()}), k_a = w.flat("k_a", {c.keys()}), r_k = w.flat("r_k", {H, K}),
               norm = w.flat("g_norm.weight", {c.values()}), norm_bias = w.flat("g_norm.bias", {c.values()});
  const Matrix wr = w.matrix("r_proj.weight", c.keys(), d), wk = w.matrix("k_proj.weight", c.keys(), d),
               wv = w.matrix("v_proj.weight", c.values(), d), wo = w.matrix("o_proj.weight", d, c.values());
  std::vector<Matrix> state = zero_states(H, K, V);
  Vector before(static_cast<std::size_t>(d));
  Matrix result;
  for (std::size_t t = 0; t < xs.size(); ++t) {
    Matrix mixed;
    for (const Vector& m : mu) mixed.push_back(shifted(xs[t], before, m));
    const Vector r = times(wr, mixed[0]);
    Vector k = times(wk, mixed[2]), v = times(wv, mixed[3]), o(v.size());
    const Vector decay = low_rank(w, "w_lora.lora", d, c.decay_rank, c.keys(), mixed[1], hyperbolic),
                 eta = each(low_rank(w, "a_lora.lora", d, c.rate_rank, c.keys(), mixed[4], same), sigmoid),
                 gate = low_rank(w, "g_lora.lora", d, c.gate_rank, c.values(), mixed[5], sigmoid, false);
    if (!c.first) {
      const Vector share = low_rank(w, "v_lora.lora", d, c.value_rank, c.values(), mixed[3], same);
      for (std::size_t i = 0; i < v.size(); ++i) v[i] += sigmoid(share[i]) * (first[t][i] - v[i]);
    }
    for (Index h = 0; h < H; ++h) {
      const auto key = std::size_t(h * K), value = std::size_t(h * V);
      double square = 0, own = 0;
      Vector kk(static_cast<std::size_t>(K));
      for (std::size_t i = 0; i < kk.size(); ++i) kk[i] = k[key + i] * k_k[key + i], square += kk[i] * kk[i];
      for (std::size_t i = 0; i < kk.size(); ++i) {
        kk[i] /= std::sqrt(square + c.key_eps);
        k[key + i] *= 1 + (eta[key + i] - 1) * k_a[key + i];
        own += r[key + i] * k[key + i] * r_k[key + i];
      }
      Matrix& s = state[std::size_t(h)];
      for (std::size_t j = 0; j < std::size_t(V); ++j) {
        double seen = 0;
        for (std::size_t i = 0; i < kk.size(); ++i) seen -= kk[i] * s[i][j];
        for (std::size_t i = 0; i < kk.size(); ++i) {
          s[i][j] = std::exp(-std::exp(-0.5) * sigmoid(decay[key + i])) * s[i][j] +
                    kk[i] * eta[key + i] * seen + k[key + i] * v[value + j];
          o[value + j] += s[i][j] * r[key + i];
        }
      }
      layer_norm_at(o, value, std::size_t(V), norm, norm_bias, double(K) * c.norm_eps);
      for (std::size_t j = value; j < value + std::size_t(V); ++j) o[j] = (o[j] + own * v[j]) * gate[j];
    }
    result.push_back(times(wo, o));
    before = xs[t];
  }
  return result;
}

TEST(Rwkv7, MatchesTheEquations) {
  std::mt19937 rng(6);
  const Weights w(13);
  for (Rwkv7Config c : {Rwkv7Config{16, 2, 8, 8, 4, 3, 2, 5}, Rwkv7Config{15, 3, 5, 10, 1, 2, 3, 4}})
    for (bool first : {true, false})
      for (float eps : {1e-6f, 1e-24f}) {
        c.first = first, c.key_eps = eps;
        Array<2> x({19, c.hidden}), values({19, c.values()}, 0);
        x.normal(rng), values.normal(rng);
        const Matrix want = expected(w, c, rows_of(x.cview()), rows_of(values.cview()));
        for (CpuExec& exec : contexts()) {
          const Rwkv7<CpuExec> mixer(ParameterReader<CpuExec>(w.source(), exec), c);
          check_every_way(
              x, want, 500 * kEps * largest(want), [&] { return mixer.new_state(0); },
              [&](auto in, auto out, const auto& batch) { mixer(in, out, batch, exec); }, values.view());
        }
        if (!first) continue;  // its values are in the buffer now
        const Matrix wv = w.matrix("v_proj.weight", c.values(), c.hidden);
        const Vector mu = w.flat("x_v", {1, 1, c.hidden});
        const Matrix rows = rows_of(x.cview());
        for (Index t = 1; t < 19; ++t) {
          const Vector v = times(wv, shifted(rows[std::size_t(t)], rows[std::size_t(t - 1)], mu));
          for (Index i = 0; i < c.values(); ++i)
            ASSERT_NEAR(values.view()(t, i), v[std::size_t(i)], 30 * kEps * 5);
        }
      }
}

TEST(Rwkv7, RefusesABatchWithoutItsValues) {
  CpuExec exec;
  const Rwkv7<CpuExec> mixer(ParameterReader<CpuExec>(Weights(1).source(), exec), {16, 2, 8, 8, 4, 3, 2, 5});
  Array<2> x({3, 16}), out({3, 16});
  x.each([](float& e) { e = 1; });
  EXPECT_EQ(refusal([&] { mixer(x.cview(), out.view(), SequenceBatch<CpuExec>(), exec); }),
            "Rwkv7: the batch's shared buffer has shape [0, 0], expected [3, 16]");
}

TEST(ChannelMix, MatchesTheEquations) {
  std::mt19937 rng(7);
  const Weights w(14);
  for (bool receptance : {true, false})
    for (Activation f : {Activation::relu2, Activation::silu}) {
      const ChannelMixConfig c{15, 40, f, receptance};
      Array<2> x({13, c.hidden});
      x.normal(rng);
      const Matrix key = w.matrix(receptance ? "key.linear.weight" : "key.weight", c.width, c.hidden),
                   value = w.matrix("value.weight", c.hidden, c.width),
                   gate = w.matrix("receptance.linear.weight", c.hidden, c.hidden);
      const Vector mu = w.flat(receptance ? "key.mu" : "x_k", {c.hidden}),
                   mu_r = w.flat("receptance.mu", {c.hidden});
      Matrix want;
      Vector before(static_cast<std::size_t>(c.hidden));
      for (const Vector& token : rows_of(x.cview())) {
        want.push_back(times(value, each(times(key, shifted(token, before, mu)), [&](double e) {
                               return f == Activation::silu ? silu(e) : e > 0 ? e * e : 0;
                             })));
        const Vector share = times(gate, shifted(token, before, mu_r));
        for (std::size_t i = 0; i < share.size() && receptance; ++i) want.back()[i] *= sigmoid(share[i]);
        before = token;
      }
      for (CpuExec& exec : contexts()) {
        const ChannelMix<CpuExec> mlp(ParameterReader<CpuExec>(w.source(), exec), c);
        auto new_state = [&] {
          LayerState<CpuExec> state;
          state.mlp_inputs = mlp.new_inputs();
          return state;
        };
        check_every_way(x, want, 200 * kEps * largest(want), new_state,
                        [&](auto in, auto out, const auto& batch) { mlp(in, out, batch, exec); });
      }
    }
}

}  // namespace
}  // namespace ashlar
