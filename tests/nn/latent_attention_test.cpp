// SPDX-License-Identifier: Apache-2.0
// Against the equations in double: prefill forms keys and values, decode works on what is remembered.
#include "ashlar/nn/mixers/latent_attention.hpp"

#include "ashlar/ref/rope.hpp"
#include "tests/nn/mixer_runs.hpp"

namespace ashlar {
namespace {

using namespace test;

RandomParameters weights(DType dtype = DType::f32) { return RandomParameters(dtype, 21); }

void turn(Row& x, Index begin, Index position, const LatentAttentionConfig& c) {
  if (c.rope == nullptr) return;
  std::vector<double> inverse(c.rope->inverse.data(), c.rope->inverse.data() + c.rope->inverse.size());
  const View<double, 3> part(x.data() + begin, {1, 1, c.rope_dim});
  ref::rope(RopeArgs<double>{part,
                             {&position, {1}},
                             {inverse.data(), {c.rope->inverse.size()}},
                             part,
                             c.rope->factor,
                             c.rope_layout});
}

Rows expected(const LatentAttentionConfig& c, const Rows& x, const RandomParameters& p) {
  const Index dim = c.nope_dim + c.rope_dim, head = c.nope_dim + c.value_dim;
  const Rows kv_a = make_matrix(p, "kv_a_proj_with_mqa.weight", c.rank + c.rope_dim, c.hidden),
             kv_b = make_matrix(p, "kv_b_proj.weight", c.heads * head, c.rank),
             o = make_matrix(p, "o_proj.weight", c.hidden, c.heads * c.value_dim),
             gate = make_matrix(p, "g_proj.weight", c.heads * c.value_dim, c.hidden);
  const Row kv_norm = make_vector(p, "kv_a_layernorm.weight", c.rank);
  auto at = [](Row& row, Index i) -> double& { return row[static_cast<std::size_t>(i)]; };
  Rows keys, values, out;
  for (Index t = 0; t < static_cast<Index>(x.size()); ++t) {
    const Row& token = x[static_cast<std::size_t>(t)];
    Row q;
    if (c.query_rank == 0) {
      q = times(make_matrix(p, "q_proj.weight", c.heads * dim, c.hidden), token);
    } else {
      const Row down = times(make_matrix(p, "q_a_proj.weight", c.query_rank, c.hidden), token);
      q = times(make_matrix(p, "q_b_proj.weight", c.heads * dim, c.query_rank),
                rms_norm(down, make_vector(p, "q_a_layernorm.weight", c.query_rank), c.norm_eps));
    }
    Row both = times(kv_a, token), shared(both.begin() + c.rank, both.end());
    both.resize(static_cast<std::size_t>(c.rank));
    Row kv = times(kv_b, rms_norm(both, kv_norm, c.norm_eps)), key, value, attended;
    turn(shared, 0, t, c);
    for (Index h = 0; h < c.heads; ++h) {
      turn(q, h * dim + c.nope_dim, t, c);
      key.insert(key.end(), kv.begin() + h * head, kv.begin() + h * head + c.nope_dim);
      key.insert(key.end(), shared.begin(), shared.end());
      value.insert(value.end(), kv.begin() + h * head + c.nope_dim, kv.begin() + (h + 1) * head);
    }
    keys.push_back(key), values.push_back(value);
    for (Index h = 0; h < c.heads; ++h) {
      Row scores, sum(static_cast<std::size_t>(c.value_dim));
      double total = 0;
      for (Row& k : keys) {
        double score = 0;
        for (Index i = 0; i < dim; ++i) score += at(q, h * dim + i) * at(k, h * dim + i);
        scores.push_back(std::exp(score * (c.scale != 0 ? c.scale : 1 / std::sqrt(double(dim)))));
        total += scores.back();
      }
      for (std::size_t s = 0; s < scores.size(); ++s)
        for (Index i = 0; i < c.value_dim; ++i)
          at(sum, i) += scores[s] / total * at(values[s], h * c.value_dim + i);
      attended.insert(attended.end(), sum.begin(), sum.end());
    }
    if (c.output_gate) {
      Row z = times(gate, token);
      for (std::size_t i = 0; i < z.size(); ++i) attended[i] *= sigmoid(z[i]);
    }
    out.push_back(times(o, attended));
  }
  return out;
}

const RopeFrequencies& frequencies() {
  static const RopeFrequencies f = rope_frequencies(6, 100);
  return f;
}

std::vector<LatentAttentionConfig> configs() {
  LatentAttentionConfig plain{20, 3, 0, 16, 8, 4, 10}, turned{18, 4, 12, 9, 5, 6, 7},
      gated{16, 2, 0, 8, 8, 0, 8};
  turned.rope = &frequencies(), turned.scale = 0.4f, turned.norm_eps = 1e-5f;
  gated.output_gate = true;
  return {plain, turned, gated};
}

TEST(LatentAttention, ExpandedAndAbsorbedAreTheEquations) {
  std::mt19937 rng(2);
  const RandomParameters p = weights();
  for (const LatentAttentionConfig& c : configs()) {
    constexpr Index kTokens = 17;
    Array<2> x({kTokens, c.hidden}), out({kTokens, c.hidden});
    x.normal(rng);
    const Rows want = expected(c, rows_of(x.cview()), p);
    for (CpuExec& exec : contexts()) {
      const LatentAttention<CpuExec> mixer(ParameterReader<CpuExec>(p, exec), c);
      for (Index step : {kTokens, Index{5}, Index{1}}) {
        out.poison();
        run_in_steps(mixer, x.cview(), out.view(), step, exec);
        expect_rows(out.cview(), want, 100 * kEps * largest(want));
      }
    }
  }
}

TEST(LatentAttention, RemembersOnlyTheLatents) {
  CpuExec exec;
  const RandomParameters p = weights();
  for (const LatentAttentionConfig& c : configs()) {
    const LatentAttention<CpuExec> mixer(ParameterReader<CpuExec>(p, exec), c);
    const LayerState<CpuExec> state = mixer.new_state(7);
    EXPECT_EQ(state.kv.elements(7), 7 * (c.rank + c.rope_dim));
  }
}

TEST(LatentAttention, BatchesAndThreadsDoNotMatter) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (const LatentAttentionConfig& c : configs())
      for (Phase phase : {Phase::prefill, Phase::decode}) {
        CpuExec exec;
        const RandomParameters p = weights(dtype);
        const LatentAttention<CpuExec> mixer(ParameterReader<CpuExec>(p, exec), c);
        expect_batches_do_not_matter(mixer, c.hidden, phase);
      }
}

}  // namespace
}  // namespace ashlar
