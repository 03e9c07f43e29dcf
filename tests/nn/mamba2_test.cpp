// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/mixers/mamba2.hpp"

#include "tests/nn/reference.hpp"

namespace ashlar {
namespace {

using namespace test;

Matrix expected(const Weights& w, const Mamba2Config& c, const Matrix& x) {
  const Index H = c.heads, P = c.head_dim, N = c.state_dim, W = c.conv_width, channels = c.conv_channels();
  const Matrix in = w.matrix("in_proj.weight", c.projected(), c.hidden),
               out = w.matrix("out_proj.weight", c.hidden, c.inner());
  const Vector conv = w.flat("conv1d.weight", {channels, 1, W}), a_log = w.flat("A_log", {H}),
               dt_bias = w.flat("dt_bias", {H}), skip = w.flat("D", {c.skip_per_channel ? c.inner() : H}),
               norm = w.flat("norm.weight", {c.inner()});
  const Vector in_bias = w.flat("in_proj.bias", {c.projected()}),
               out_bias = w.flat("out_proj.bias", {c.hidden}), conv_bias = w.flat("conv1d.bias", {channels});
  Matrix past, result;  // the convolution's inputs
  std::vector<Matrix> state = zero_states(H, N, P);
  for (const Vector& token : x) {
    Vector u = times(in, token);
    for (std::size_t i = 0; i < u.size() && c.biased; ++i) u[i] += in_bias[i];
    // x, B and C of each head, in the order in which the convolution sees them.
    const Index x0 = c.inner(), b0 = x0 + c.x_width(), c0 = b0 + c.b_width(), dt0 = c0 + c.c_width();
    Vector row;
    auto add = [&](Index from, Index heads, Index repeat, Index dim) {
      for (Index h = 0; h < heads * repeat; ++h)
        for (Index i = 0; i < dim; ++i) row.push_back(u[std::size_t(from + h / repeat * dim + i)]);
    };
    const bool early = c.repeat_before_conv;
    add(x0, c.x_heads, early ? H / c.x_heads : 1, P);
    add(b0, c.b_groups, early ? H / c.b_groups : 1, N);
    add(c0, c.c_groups, 1, N);
    past.push_back(row);
    Vector mixed(static_cast<std::size_t>(channels));
    for (Index ch = 0; ch < channels; ++ch) {
      double sum = c.conv_bias ? conv_bias[std::size_t(ch)] : 0;
      for (Index j = 0; j < W; ++j)
        if (const Index t = Index(past.size()) - W + j; t >= 0)
          sum += conv[std::size_t(ch * W + j)] * past[std::size_t(t)][std::size_t(ch)];
      mixed[std::size_t(ch)] = silu(sum);
    }
    const Index x_heads = early ? H : c.x_heads, b_groups = early ? H : c.b_groups;
    Vector y(static_cast<std::size_t>(c.inner()));
    for (Index h = 0; h < H; ++h) {
      const double* xs = &mixed[std::size_t(h / (H / x_heads) * P)];
      const double* bs = &mixed[std::size_t(x_heads * P + h / (H / b_groups) * N)];
      const double* cs = &mixed[std::size_t(x_heads * P + b_groups * N + h / (H / c.c_groups) * N)];
      const double raw = u[std::size_t(dt0 + h)] + dt_bias[std::size_t(h)];
      const double dt = std::min<double>(std::max<double>(std::log1p(std::exp(raw)), c.min_step), c.max_step);
      const double decay = std::exp(-std::exp(a_log[std::size_t(h)]) * dt);
      for (Index p = 0; p < P; ++p) {
        double sum = skip[std::size_t(c.skip_per_channel ? h * P + p : h)] * xs[p];
        for (Index n = 0; n < N; ++n) {
          double& s = state[std::size_t(h)][std::size_t(n)][std::size_t(p)];
          s = decay * s + bs[n] * dt * xs[p];
          sum += s * cs[n];
        }
        y[std::size_t(h * P + p)] = sum;
      }
    }
    const auto gate = [&](std::size_t i) { return silu(u[i]); };
    for (std::size_t i = 0; i < y.size(); ++i)
      if (!c.normalised || !c.norm_before_gate) y[i] *= gate(i);
    const auto group = y.size() / std::size_t(c.norm_groups);
    for (std::size_t g = 0; g < y.size() && c.normalised; g += group) {
      double square = 0;
      for (std::size_t i = g; i < g + group; ++i) square += y[i] * y[i] / double(group);
      for (std::size_t i = g; i < g + group; ++i)
        y[i] *= norm[i] / std::sqrt(square + c.norm_eps) * (c.norm_before_gate ? gate(i) : 1);
    }
    result.push_back(times(out, y));
    for (std::size_t i = 0; i < result.back().size() && c.biased; ++i) result.back()[i] += out_bias[i];
  }
  return result;
}

Mamba2Config config(Index hidden, Index heads, Index head_dim, Index state, Index x_heads, Index b, Index c,
                    Index width) {
  Mamba2Config m;
  m.hidden = hidden, m.heads = heads, m.head_dim = head_dim, m.state_dim = state;
  m.x_heads = x_heads, m.b_groups = b, m.c_groups = c, m.conv_width = width;
  return m;
}

std::vector<Mamba2Config> dresses() {
  std::vector<Mamba2Config> all;
  all.push_back(config(16, 4, 8, 6, 4, 1, 1, 4));  // one group
  all.push_back(config(24, 6, 7, 5, 6, 2, 2, 3));  // two groups, normalised over all channels
  all.push_back(all.back()), all.back().norm_groups = 2, all.back().biased = true;
  all.push_back(all.back()), all.back().norm_before_gate = true, all.back().conv_bias = false;
  all.push_back(all.back()), all.back().normalised = false, all.back().skip_per_channel = true;
  all.push_back(config(24, 6, 4, 4, 2, 2, 6, 3));  // attention-shaped
  all.back().norm_groups = 6, all.back().min_step = 0.01f, all.back().max_step = 0.05f;
  all.push_back(all.back()), all.back().repeat_before_conv = true, all.back().biased = true;
  all.push_back(config(9, 1, 70, 3, 1, 1, 1, 1));  // no past
  return all;
}

TEST(Mamba2, MatchesTheEquationsInEveryDress) {
  std::mt19937 rng(4);
  const Weights w(11);
  Index number = 0;
  for (const Mamba2Config& c : dresses()) {
    SCOPED_TRACE(testing::Message() << "dress " << number++);
    Array<2> x({21, c.hidden});
    x.normal(rng);
    const Matrix want = expected(w, c, rows_of(x.cview()));
    for (CpuExec& exec : contexts()) {
      const ParameterReader<CpuExec> r(w.source(), exec);
      const Mamba2<CpuExec> mixer(r, c);
      check_every_way(
          x, want, 300 * kEps * largest(want), [&] { return mixer.new_state(0); },
          [&](auto in, auto out, const auto& batch) { mixer(in, out, batch, exec); });
    }
  }
}

}  // namespace
}  // namespace ashlar
