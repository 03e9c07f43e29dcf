// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/dense.hpp"
#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using namespace test;

class CudaDense : public CudaTest {};

template <class T>
void check(Index rows, Index inputs, Index outputs, bool biased, Phase phase, Precision precision,
           Index padding = 0) {
  CudaExec exec({.precision = precision});
  const auto x = Both<float, 2>::random({rows, inputs}, 1, -1, 1, padding);
  const auto w = Both<T, 2>::random({outputs, inputs}, 2, -1, 1, padding);
  const auto bias = Both<float, 1>::random({outputs}, 3);
  Both<float, 2> out({rows, outputs}, padding);
  const DeviceWeight weight{AnyView<2>(w.device())};
  dense(DeviceDense{x.device(), weight, biased ? bias.device() : View<const float, 1>(), out.device(), phase},
        exec);
  const auto wide_x = x.wide(), wide_w = w.wide();
  const auto wide_bias = bias.wide();
  Tensor<double, 2> want({rows, outputs});
  ref::dense<double>(wide_x.view(), wide_w.view(), biased ? wide_bias.view() : View<const double, 1>(),
                     want.view());
  exec.synchronize();
  const bool rounds = std::is_same_v<T, bf16> && precision == Precision::fast;
  EXPECT_LE(error_of(out, want), rounds ? kRounded : kFull)
      << rows << " x " << inputs << " x " << outputs << (phase == Phase::decode ? " decode" : " prefill");
}

TEST_F(CudaDense, EveryShapeTypeAndPrecision) {
  struct Shape {
    Index rows, inputs, outputs, padding;
  };
  for (const auto& [rows, inputs, outputs, padding] :
       {Shape{1, 8, 1, 0}, Shape{1, 7, 5, 0}, Shape{2, 63, 67, 1}, Shape{3, 130, 30, 0},
        Shape{5, 2048, 17, 8}, Shape{8, 520, 1000, 0}, Shape{9, 4096, 64, 0}, Shape{16, 136, 33, 0},
        Shape{4, 520, 9001, 8}, Shape{13, 264, 9001, 0}, Shape{17, 96, 40, 8}, Shape{130, 256, 65, 0},
        Shape{67, 30, 7, 3}})
    for (Phase phase : {Phase::prefill, Phase::decode})
      for (Precision precision : {Precision::full, Precision::fast}) {
        check<float>(rows, inputs, outputs, rows % 2 == 0, phase, precision, padding);
        check<bf16>(rows, inputs, outputs, rows % 2 == 1, phase, precision, padding);
      }
}

// Layers of one x and of several, of different sizes and more than one launch takes.
TEST_F(CudaDense, SeveralLayers) {
  for (Phase phase : {Phase::prefill, Phase::decode})
    for (Index rows : {1, 4, 20}) {
      CudaExec exec;
      const auto x = Both<float, 2>::random({rows, 128}, 1), other = Both<float, 2>::random({rows, 128}, 2);
      std::vector<Both<bf16, 2>> weights;
      std::vector<DeviceWeight> device_weights;
      std::vector<Both<float, 2>> outs;
      std::vector<DeviceDense> layers;
      for (Index i = 0; i < 11; ++i) {
        weights.push_back(Both<bf16, 2>::random({5 + 13 * i, 128}, static_cast<unsigned>(10 + i)));
        outs.emplace_back(std::array<Index, 2>{rows, 5 + 13 * i});
      }
      for (auto& w : weights) device_weights.emplace_back(AnyView<2>(std::as_const(w).device()));
      for (std::size_t i = 0; i < outs.size(); ++i)
        layers.push_back(
            {i % 4 == 3 ? other.device() : x.device(), device_weights[i], {}, outs[i].device(), phase});
      dense(layers, exec);
      exec.synchronize();
      for (std::size_t i = 0; i < outs.size(); ++i) {
        const auto wide_x = (i % 4 == 3 ? other : x).wide(), wide_w = weights[i].wide();
        Tensor<double, 2> want({rows, outs[i].host().shape[1]});
        ref::dense<double>(wide_x.view(), wide_w.view(), {}, want.view());
        EXPECT_LE(error_of(outs[i], want), kRounded) << i << " rows " << rows;
      }
    }
}

TEST_F(CudaDense, AddsToAResidual) {
  for (Phase phase : {Phase::prefill, Phase::decode})
    for (Index inputs : {64, 63})
      for (Index rows : {1, 5, 12, 40}) {
        CudaExec exec;
        const auto x = Both<float, 2>::random({rows, inputs}, 1);
        const auto w = Both<bf16, 2>::random({33, inputs}, 2);
        auto h = Both<float, 2>::random({rows, 33}, 3);
        Both<float, 2> out({rows, 33});
        const DeviceWeight weight{AnyView<2>(w.device())};
        const auto wide_x = x.wide(), wide_w = w.wide(), before = h.wide();
        dense(DeviceDense{x.device(), weight, {}, out.device(), phase, false, h.device()}, exec);
        exec.synchronize();
        Tensor<double, 2> want({rows, 33});
        ref::dense<double>(wide_x.view(), wide_w.view(), {}, want.view());
        EXPECT_LE(error_of(out, want), kRounded);
        for (Index i = 0; i < want.size(); ++i) want.data()[i] += before.data()[i];
        EXPECT_LE(error_of(h, want), kRounded) << rows << " rows";
      }
}

TEST_F(CudaDense, Gated) {
  for (Phase phase : {Phase::prefill, Phase::decode})
    for (Index inputs : {64, 520, 63})
      for (Index rows : {1, 5, 40}) {
        CudaExec exec;
        const auto x = Both<float, 2>::random({rows, inputs}, 1);
        const auto gate = Both<bf16, 2>::random({33, inputs}, 2), up = Both<bf16, 2>::random({33, inputs}, 3);
        const auto bias = Both<float, 1>::random({33}, 4);
        Both<float, 2> out({rows, 33});
        const DeviceWeight g{AnyView<2>(gate.device())}, u{AnyView<2>(up.device())};
        gated_dense(
            DeviceGatedDense{x.device(), g, u, bias.device(), {}, out.device(), Activation::silu, phase},
            exec);
        const auto wide_x = x.wide(), wide_g = gate.wide(), wide_u = up.wide();
        const auto wide_bias = bias.wide();
        Tensor<double, 2> want({rows, 33}), other({rows, 33});
        ref::dense<double>(wide_x.view(), wide_g.view(), wide_bias.view(), want.view());
        ref::dense<double>(wide_x.view(), wide_u.view(), {}, other.view());
        for (Index i = 0; i < want.size(); ++i)
          want.data()[i] *= other.data()[i] / (1 + std::exp(-want.data()[i]));
        exec.synchronize();
        EXPECT_LE(error_of(out, want), kRounded) << inputs << " rows " << rows;
      }
}

TEST_F(CudaDense, Refuses) {
  CudaExec exec;
  const auto x = Both<float, 2>::random({2, 8}, 1);
  const auto w = Both<bf16, 2>::random({4, 9}, 1);
  Both<float, 2> out({2, 4});
  const DeviceWeight weight{AnyView<2>(w.device())};
  EXPECT_THROW(dense(DeviceDense{x.device(), weight, {}, out.device()}, exec), Error);
  EXPECT_THROW(DeviceWeight(AnyView<2>(nullptr, DType::f16, {2, 2})), Error);
}

}  // namespace
}  // namespace ashlar
