// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/mixers/lightning_attention.hpp"

#include "ashlar/ops/decay_gate.hpp"
#include "tests/nn/mixer_runs.hpp"

namespace ashlar {
namespace {

using namespace test;

TEST(LightningAttention, MatchesTheEquation) {
  std::mt19937 rng(7);
  for (const LightningAttentionConfig& c :
       {LightningAttentionConfig{20, 3, 8}, LightningAttentionConfig{14, 4, 5}}) {
    constexpr Index kTokens = 19;
    const Index width = c.heads * c.head_dim;
    const RandomParameters p(DType::f32, 9);
    Array<2> x({kTokens, c.hidden}), out({kTokens, c.hidden});
    x.normal(rng);
    const Rows qkv = make_matrix(p, "qkv_proj.weight", 3 * width, c.hidden),
               gate = make_matrix(p, "output_gate.weight", width, c.hidden),
               last = make_matrix(p, "out_proj.weight", c.hidden, width);
    const Row norm = make_vector(p, "norm.weight", width);
    const Tensor<float, 1> decay = minimax_decay(c.heads, 1, 4);
    const auto dim = static_cast<std::size_t>(c.head_dim);
    std::vector<Rows> state(static_cast<std::size_t>(c.heads), Rows(dim, Row(dim)));
    Rows want;
    for (const Row& token : rows_of(x.cview())) {
      Row u = times(qkv, token), o;
      for (double& e : u) e *= sigmoid(e);
      for (std::size_t h = 0; h < state.size(); ++h) {
        const double *q = u.data() + 3 * h * dim, *k = q + dim, *v = k + dim;
        const double keep = std::exp(static_cast<double>(decay.data()[h]));
        for (std::size_t j = 0; j < dim; ++j) {
          double sum = 0;
          for (std::size_t i = 0; i < dim; ++i)
            sum += q[i] * (state[h][i][j] = keep * state[h][i][j] + k[i] * v[j]);
          o.push_back(sum);
        }
      }
      o = rms_norm(o, norm, 1e-6);
      const Row z = times(gate, token);
      for (std::size_t i = 0; i < z.size(); ++i) o[i] *= sigmoid(z[i]);
      want.push_back(times(last, o));
    }
    for (CpuExec& exec : contexts()) {
      const LightningAttention<CpuExec> mixer(ParameterReader<CpuExec>(p, exec), c, decay);
      for (Index step : {kTokens, Index{4}, Index{1}}) {
        out.poison();
        run_in_steps(mixer, x.cview(), out.view(), step, exec);
        expect_rows(out.cview(), want, 200 * kEps * largest(want));
      }
      for (Phase phase : {Phase::prefill, Phase::decode})
        expect_batches_do_not_matter(mixer, c.hidden, phase);
    }
  }
}

}  // namespace
}  // namespace ashlar
