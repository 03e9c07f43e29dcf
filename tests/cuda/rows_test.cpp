// SPDX-License-Identifier: Apache-2.0
// Norms, activations, residual sums, decay gates, rotations and embeddings beside their equations in double.
#include "ashlar/cuda/backend.hpp"
#include "ashlar/ref/activation.hpp"
#include "ashlar/ref/decay_gate.hpp"
#include "ashlar/ref/embedding.hpp"
#include "ashlar/ref/norm.hpp"
#include "ashlar/ref/rope.hpp"
#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using namespace test;

class CudaRows : public CudaTest {};

struct RowShape {
  Index tokens, heads, dim, padding;
};
constexpr RowShape kShapes[] = {{1, 1, 1, 0},     {3, 2, 7, 0},    {1, 1, 3840, 0},
                                {5, 30, 192, 0},  {67, 1, 130, 6}, {130, 2, 64, 4},
                                {2, 1, 11008, 0}, {0, 3, 8, 0},    {9, 4, 63, 1}};

TEST_F(CudaRows, RmsNorm) {
  CudaExec exec;
  unsigned seed = 0;
  for (const auto& [tokens, heads, dim, padding] : kShapes)
    for (int kind = 0; kind < 4; ++kind) {
      const std::array<Index, 3> shape{tokens, heads, dim};
      const auto x = Both<float, 3>::random(shape, ++seed, -2, 2, padding),
                 gate = Both<float, 3>::random(shape, ++seed, -4, 4, padding);
      const auto weight = Both<float, 1>::random({kind == 2 ? heads * dim : dim}, ++seed);
      Both<float, 3> out(shape, padding);
      RmsNorm a{x.device(), kind == 0 ? View<const float, 1>() : weight.device(), out.device(), 1e-3f,
                kind == 3 ? 1.0f : 0.0f};
      if (kind >= 1)
        a.gate = gate.device(), a.gate_activation = kind == 1 ? Activation::silu : Activation::sigmoid;
      rms_norm(a, exec);
      const auto wide = x.wide(), wide_gate = gate.wide();
      const auto wide_weight = weight.wide();
      Tensor<double, 3> want(shape);
      RmsNormArgs<double> r{wide.view(), kind == 0 ? View<const double, 1>() : wide_weight.view(),
                            want.view(), static_cast<double>(1e-3f), kind == 3 ? 1.0 : 0.0};
      if (kind >= 1) r.gate = wide_gate.view(), r.gate_activation = a.gate_activation;
      ref::rms_norm(r);
      exec.synchronize();
      EXPECT_LE(error_of(out, want), kFull) << to_string(shape) << " kind " << kind;
    }
}

TEST_F(CudaRows, OtherNorms) {
  CudaExec exec;
  unsigned seed = 100;
  for (const auto& [tokens, heads, dim, padding] : kShapes) {
    const std::array<Index, 3> shape{tokens, heads, dim};
    const auto x = Both<float, 3>::random(shape, ++seed, 0.1f, 2, padding);
    const auto weight = Both<float, 1>::random({heads * dim}, ++seed),
               bias = Both<float, 1>::random({heads * dim}, ++seed);
    const auto wide = x.wide();
    const auto wide_weight = weight.wide(), wide_bias = bias.wide();
    Both<float, 3> layer(shape, padding), l2(shape, padding), sum(shape, padding);
    Tensor<double, 3> want(shape);
    if (dim > 1) {  // the variance of one number is nothing but rounding
      layer_norm(LayerNorm{x.device(), weight.device(), bias.device(), layer.device(), 1e-5f}, exec);
      ref::layer_norm(LayerNormArgs<double>{wide.view(), wide_weight.view(), wide_bias.view(), want.view(),
                                            static_cast<double>(1e-5f)});
      exec.synchronize();
      EXPECT_LE(error_of(layer, want), kFull) << to_string(shape);
    }
    l2_norm(L2Norm{x.device(), l2.device(), 1e-6f, 3}, exec);
    ref::l2_norm(L2NormArgs<double>{wide.view(), want.view(), static_cast<double>(1e-6f), 3});
    exec.synchronize();
    EXPECT_LE(error_of(l2, want), kFull) << to_string(shape);
    sum_norm(SumNorm{x.device(), sum.device(), 0.5f}, exec);
    ref::sum_norm(SumNormArgs<double>{wide.view(), want.view(), 0.5});
    exec.synchronize();
    EXPECT_LE(error_of(sum, want), kFull) << to_string(shape);
  }
}

TEST_F(CudaRows, InPlaceAndRefused) {
  CudaExec exec;
  auto x = Both<float, 3>::random({40, 2, 96}, 7);
  const auto wide = x.wide();
  rms_norm(RmsNorm{x.device(), {}, x.device()}, exec);
  Tensor<double, 3> want({40, 2, 96});
  ref::rms_norm(RmsNormArgs<double>{wide.view(), {}, want.view(), static_cast<double>(1e-6f)});
  exec.synchronize();
  EXPECT_LE(error_of(x, want), kFull);
  Both<float, 3> other({40, 2, 95});
  EXPECT_THROW(rms_norm(RmsNorm{x.device(), {}, other.device()}, exec), Error);
  EXPECT_THROW(activate(Activate{x.device()[0], {}, other.device()[0]}, exec), Error);
}

TEST_F(CudaRows, Activations) {
  CudaExec exec;
  unsigned seed = 200;
  for (int f = 0; f <= static_cast<int>(Activation::leaky_relu); ++f)
    for (Index dim : {1, 7, 64, 1000}) {
      const auto x = Both<float, 2>::random({5, dim}, ++seed, -9, 9),
                 up = Both<float, 2>::random({5, dim}, ++seed, -9, 9);
      const bool clipped = f % 2 == 1;
      Both<float, 2> out({5, dim});
      Activate a{x.device(), {}, out.device(), static_cast<Activation>(f)};
      const auto wide = x.wide(), wide_up = up.wide();
      Tensor<double, 2> want({5, dim});
      ActivateArgs<double> r{wide.view(), {}, want.view(), a.activation};
      r.negative_slope = static_cast<double>(a.negative_slope);
      if (clipped) {
        a.up = up.device(), a.scale = 0.5f, a.slope = 1.5f, a.limit = 3, a.up_offset = 1;
        r.up = wide_up.view(), r.scale = 0.5, r.slope = 1.5, r.limit = 3, r.up_offset = 1;
      }
      activate(a, exec);
      ref::activate(r);
      exec.synchronize();
      EXPECT_LE(error_of(out, want), kFull) << f << " " << dim;
    }
  const auto x = Both<float, 2>::random({67, 130}, 1);
  auto h = Both<float, 2>::random({67, 130}, 2);
  Tensor<double, 2> sum = h.wide();
  const auto wide = x.wide();
  for (Index i = 0; i < sum.size(); ++i) sum.data()[i] = 0.5 * sum.data()[i] + 2 * wide.data()[i];
  residual_add(ResidualAdd{x.device(), h.device(), 2, 0.5f}, exec);
  exec.synchronize();
  EXPECT_LE(error_of(h, sum), kFull);
}

TEST_F(CudaRows, DecayGates) {
  CudaExec exec;
  for (DecayFormula f : {DecayFormula::softplus, DecayFormula::bounded, DecayFormula::log_sigmoid,
                         DecayFormula::exponential, DecayFormula::lower_bounded}) {
    const auto x = Both<float, 2>::random({33, 24}, 1, -12, 12);
    const auto a_log = Both<float, 1>::random({6}, 2), bias = Both<float, 1>::random({24}, 3),
               low = Both<float, 1>::random({24}, 4, 0, 1);
    Both<float, 2> out({33, 24}), complement({33, 24});
    DecayGate a{x.device(), {}, bias.device(), out.device(), f};
    const auto wide = x.wide();
    const auto wide_log = a_log.wide(), wide_bias = bias.wide(), wide_low = low.wide();
    Tensor<double, 2> want({33, 24}), rest({33, 24});
    DecayGateArgs<double> r{wide.view(), {}, wide_bias.view(), want.view(), f};
    a.complement = complement.device(), r.complement = rest.view();
    if (f == DecayFormula::softplus || f == DecayFormula::bounded)
      a.a_log = a_log.device(), r.a_log = wide_log.view();
    if (f == DecayFormula::lower_bounded) a.lower_bound = low.device(), r.lower_bound = wide_low.view();
    if (f == DecayFormula::softplus) a.min_step = 0.01f, r.min_step = static_cast<double>(0.01f);
    if (f == DecayFormula::log_sigmoid) a.temperature = 16, r.temperature = 16;
    decay_gate(a, exec);
    ref::decay_gate(r);
    exec.synchronize();
    EXPECT_LE(error_of(out, want), kFull) << static_cast<int>(f);
    EXPECT_LE(error_of(complement, rest), kFull) << static_cast<int>(f);
  }
}

TEST_F(CudaRows, Rope) {
  CudaExec exec;
  unsigned seed = 300;
  for (RopeLayout layout : {RopeLayout::half_split, RopeLayout::interleaved})
    for (Index tokens : {1, 40})
      for (Index pairs : {3, 16, 32}) {
        const auto x = Both<float, 3>::random({tokens, 3, 66}, ++seed, -1, 1, 2);
        const auto frequencies = Both<float, 1>::random({pairs}, ++seed, 1e-4f, 1);
        std::vector<Index> positions;
        for (Index t = 0; t < tokens; ++t) positions.push_back(t * 3001);
        const View<const Index, 1> where(positions.data(), {tokens});
        Both<float, 3> out({tokens, 3, 66}, 2);
        rope(Rope{x.device(), where, frequencies.device(), out.device(), 1.25f, layout}, exec);
        const auto wide = x.wide();
        const auto wide_frequencies = frequencies.wide();
        Tensor<double, 3> want({tokens, 3, 66});
        ref::rope(RopeArgs<double>{wide.view(), where, wide_frequencies.view(), want.view(), 1.25, layout});
        exec.synchronize();
        EXPECT_LE(error_of(out, want), kFull) << tokens << " " << pairs;
      }
}

TEST_F(CudaRows, EmbeddingAndCopies) {
  CudaExec exec;
  const auto table = Both<bf16, 2>::random({50, 72}, 1);
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < 100; ++i) ids.push_back(i * 7 % 50);
  Both<float, 2> out({100, 72});
  embedding(Embedding{ids, table.device(), out.device(), 3}, exec);
  const auto wide = table.wide();
  Tensor<double, 2> want({100, 72});
  for (Index t = 0; t < 100; ++t)
    for (Index i = 0; i < 72; ++i) want.view()(t, i) = 3 * wide.view()(ids[static_cast<std::size_t>(t)], i);
  exec.synchronize();
  EXPECT_LE(error_of(out, want), 1e-7);
  ids[3] = 50;
  EXPECT_THROW(embedding(Embedding{ids, table.device(), out.device()}, exec), Error);

  using Cuda = Backend<CudaExec>;
  const auto x = Both<float, 3>::random({9, 3, 30}, 2, -1, 1, 2);
  Both<bf16, 3> rounded({9, 3, 30}, 6);
  Both<float, 3> back({9, 3, 30}, 2);
  Cuda::copy(x.device(), rounded.device(), exec);
  Cuda::copy(std::as_const(rounded).device(), back.device(), exec);
  exec.synchronize();
  EXPECT_LE(error_of(back, x.wide()), 4e-3);
  std::vector<float> packed(9 * 3 * 30);
  Cuda::read(x.device(), packed.data());
  EXPECT_EQ(packed[31], x.host()(0, 1, 1));
  packed[31] = 5;
  Cuda::write(packed.data(), back.device());
  back.download();
  EXPECT_EQ(back.host()(0, 1, 1), 5);
  EXPECT_EQ(back.host()(8, 2, 29), x.host()(8, 2, 29));
}

}  // namespace
}  // namespace ashlar
