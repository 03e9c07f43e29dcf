// SPDX-License-Identifier: Apache-2.0
// Against the equations of the layer in double, written down once more by plain loops.
#include "ashlar/nn/mixers/gated_delta_net.hpp"

#include "ashlar/nn/random_parameters.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using Matrix = std::vector<std::vector<double>>;

struct Layer {
  GatedDeltaNetConfig c;
  RandomParameters weights{DType::f32, 11};

  Matrix matrix(const char* name, Index rows, Index columns) const {
    const Parameter p = weights.make(name, std::array{rows, columns});
    Matrix m(static_cast<std::size_t>(rows), std::vector<double>(static_cast<std::size_t>(columns)));
    for (Index i = 0; i < p.size(); ++i)
      m[static_cast<std::size_t>(i / columns)][static_cast<std::size_t>(i % columns)] =
          static_cast<const float*>(p.data)[i];
    return m;
  }
  std::vector<double> vector(const char* name, Index n) const {
    const Parameter p = weights.make(name, std::array{n});
    return {static_cast<const float*>(p.data), static_cast<const float*>(p.data) + n};
  }
  GatedDeltaNetWeights<CpuExec> read(CpuExec& exec) const {
    const ParameterReader<CpuExec> r(weights, exec);
    const Index k = c.keys(), v = c.values(), d = c.hidden, h = c.value_heads;
    return {{r, "q", d, k},
            {r, "k", d, k},
            {r, "v", d, v},
            {r, "a", d, h},
            {r, "b", d, h},
            {r, "g", d, v},
            {r, "o", v, d},
            {r.vector(to_floats(r.tensor("conv", {c.channels(), c.conv_width}))), c.channels(), c.conv_width},
            r.vector("A_log", h),
            r.vector("dt_bias", h),
            {r, "norm.weight", c.value_dim, 1e-5f}};
  }
};

std::vector<double> times(const Matrix& m, const std::vector<double>& x) {
  std::vector<double> y;
  for (const auto& row : m) y.push_back(std::inner_product(row.begin(), row.end(), x.begin(), 0.0));
  return y;
}
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

Matrix expected(const Layer& layer, const Matrix& x) {
  const auto& c = layer.c;
  const Index K = c.key_dim, V = c.value_dim, H = c.value_heads, W = c.conv_width, group = H / c.key_heads;
  auto weight = [&](const char* name, Index rows, Index columns) {
    return layer.matrix(name, rows, columns);
  };
  Matrix rows = weight("q.weight", c.keys(), c.hidden);
  for (const char* name : {"k.weight", "v.weight"})
    for (auto& row : weight(name, name[0] == 'k' ? c.keys() : c.values(), c.hidden)) rows.push_back(row);
  const Matrix a = weight("a.weight", H, c.hidden), b = weight("b.weight", H, c.hidden),
               g = weight("g.weight", c.values(), c.hidden), o = weight("o.weight", c.hidden, c.values()),
               conv = weight("conv", c.channels(), W);
  const auto a_log = layer.vector("A_log", H), bias = layer.vector("dt_bias", H),
             norm = layer.vector("norm.weight", V);
  std::vector<Matrix> state(
      static_cast<std::size_t>(H),
      Matrix(static_cast<std::size_t>(K), std::vector<double>(static_cast<std::size_t>(V))));
  Matrix projected, out;
  for (const auto& token : x) {
    projected.push_back(times(rows, token));
    std::vector<double> u(static_cast<std::size_t>(c.channels()));
    for (std::size_t i = 0; i < u.size(); ++i) {
      for (Index j = 0; j < W; ++j) {
        const Index t = static_cast<Index>(projected.size()) - W + j;
        if (t >= 0) u[i] += conv[i][static_cast<std::size_t>(j)] * projected[static_cast<std::size_t>(t)][i];
      }
      u[i] *= sigmoid(u[i]);
    }
    const auto raw_a = times(a, token), raw_b = times(b, token), gate = times(g, token);
    std::vector<double> heads;
    for (Index h = 0; h < H; ++h) {
      auto unit = [&](Index from, double scale) {
        std::vector<double> v(u.begin() + from, u.begin() + from + K);
        const double n = std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0) + 1e-6);
        for (double& e : v) e *= scale / n;
        return v;
      };
      const auto q = unit(h / group * K, 1 / std::sqrt(double(K))), k = unit(c.keys() + h / group * K, 1);
      const auto at = static_cast<std::size_t>(h);
      const double decay = std::exp(-std::exp(a_log[at]) * std::log1p(std::exp(raw_a[at] + bias[at])));
      const double beta = sigmoid(raw_b[at]) * (c.negative_eigenvalues ? 2 : 1);
      std::vector<double> y(static_cast<std::size_t>(V));
      for (Index j = 0; j < V; ++j) {
        const auto column = static_cast<std::size_t>(j);
        double seen = 0;
        for (std::size_t i = 0; i < k.size(); ++i) seen += (state[at][i][column] *= decay) * k[i];
        const double update = beta * (u[static_cast<std::size_t>(2 * c.keys() + h * V + j)] - seen);
        for (std::size_t i = 0; i < k.size(); ++i)
          y[column] += (state[at][i][column] += k[i] * update) * q[i];
      }
      const double mean = std::inner_product(y.begin(), y.end(), y.begin(), 0.0) / double(V);
      for (Index j = 0; j < V; ++j) {
        const double z = gate[static_cast<std::size_t>(h * V + j)];
        heads.push_back(norm[static_cast<std::size_t>(j)] * y[static_cast<std::size_t>(j)] /
                        std::sqrt(mean + 1e-5) * z * sigmoid(z));
      }
    }
    out.push_back(times(o, heads));
  }
  return out;
}

TEST(GatedDeltaNet, MatchesTheEquations) {
  std::mt19937 rng(4);
  for (const auto& c :
       {GatedDeltaNetConfig{16, 2, 2, 8, 8, 4, false}, GatedDeltaNetConfig{24, 2, 6, 7, 11, 3, true},
        GatedDeltaNetConfig{9, 1, 1, 5, 70, 1, true}}) {
    const Layer layer{c};
    constexpr Index kTokens = 21;
    test::Array<2> x({kTokens, c.hidden}, 0), out({kTokens, c.hidden}, 0);
    x.normal(rng);
    Matrix exact;
    for (Index t = 0; t < kTokens; ++t) exact.emplace_back(x.view().at(t), x.view().at(t) + c.hidden);
    const Matrix want = expected(layer, exact);
    double most = 0;
    for (const auto& row : want)
      for (double e : row) most = std::max(most, std::abs(e));
    for (CpuExec& exec : test::contexts()) {
      const GatedDeltaNet<CpuExec> mixer(c, layer.read(exec));
      // All at once without a state, and token by token with one.
      for (Index step : {kTokens, Index{1}, Index{4}}) {
        out.poison();
        LayerState<CpuExec> state = mixer.new_state(0);
        LayerState<CpuExec>* const states[] = {&state};
        for (Index t = 0; t < kTokens; t += step) {
          SequenceBatch<CpuExec> batch;
          if (step != kTokens) batch.states = states;
          if (step == 1) batch.phase = Phase::decode;
          const Index end = std::min(kTokens, t + step);
          mixer(x.cview().slice(0, t, end), out.view().slice(0, t, end), batch, exec);
        }
        for (Index t = 0; t < kTokens; ++t)
          for (Index i = 0; i < c.hidden; ++i)
            ASSERT_NEAR(out.view()(t, i), want[static_cast<std::size_t>(t)][static_cast<std::size_t>(i)],
                        200 * test::kEps * most);
      }
    }
  }
}

}  // namespace
}  // namespace ashlar
