// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/mixers/gated_short_conv.hpp"

#include "tests/nn/mixer_runs.hpp"

namespace ashlar {
namespace {

using namespace test;

TEST(GatedShortConv, MatchesTheEquation) {
  std::mt19937 rng(5);
  for (Index width : {1, 3, 4})
    for (bool biased : {false, true}) {
      constexpr Index kTokens = 13, kHidden = 19;
      const RandomParameters p(DType::f32, 3);
      Array<2> x({kTokens, kHidden}), out({kTokens, kHidden});
      x.normal(rng);
      const Rows in = make_matrix(p, "in_proj.weight", 3 * kHidden, kHidden),
                 last = make_matrix(p, "out_proj.weight", kHidden, kHidden);
      const Tensor<float, 1> taps = to_floats(p.make("conv.weight", std::array{kHidden, Index{1}, width}));
      auto bias = [&](const char* name, Index n) {
        return biased ? make_vector(p, name, n) : Row(static_cast<std::size_t>(n));
      };
      const Row in_bias = bias("in_proj.bias", 3 * kHidden), conv_bias = bias("conv.bias", kHidden),
                out_bias = bias("out_proj.bias", kHidden);
      Rows inputs, want;
      for (const Row& token : rows_of(x.cview())) {
        Row projected = times(in, token), input, y;
        for (std::size_t i = 0; i < projected.size(); ++i) projected[i] += in_bias[i];
        for (std::size_t i = 0; i < kHidden; ++i) input.push_back(projected[i] * projected[2 * kHidden + i]);
        inputs.push_back(input);
        for (std::size_t i = 0; i < kHidden; ++i) {
          double sum = conv_bias[i];
          for (Index j = 0; j < width; ++j)
            if (const Index t = static_cast<Index>(inputs.size()) - width + j; t >= 0)
              sum += taps.data()[static_cast<Index>(i) * width + j] * inputs[static_cast<std::size_t>(t)][i];
          y.push_back(projected[kHidden + i] * sum);
        }
        want.push_back(times(last, y));
        for (std::size_t i = 0; i < kHidden; ++i) want.back()[i] += out_bias[i];
      }
      for (CpuExec& exec : contexts()) {
        const GatedShortConv<CpuExec> mixer(ParameterReader<CpuExec>(p, exec), kHidden, width, biased);
        for (Index step : {kTokens, Index{4}, Index{1}}) {
          out.poison();
          run_in_steps(mixer, x.cview(), out.view(), step, exec);
          expect_rows(out.cview(), want, 50 * kEps * largest(want));
        }
        for (Phase phase : {Phase::prefill, Phase::decode})
          expect_batches_do_not_matter(mixer, kHidden, phase);
      }
    }
}

}  // namespace
}  // namespace ashlar
