// SPDX-License-Identifier: Apache-2.0
// The ops around recurrences, beside their equations in double.
#include "ashlar/ref/feature_map.hpp"
#include "ashlar/ref/gated_scan.hpp"
#include "ashlar/ref/rwkv7_gates.hpp"
#include "ashlar/ref/scale_heads.hpp"
#include "ashlar/ref/token_shift.hpp"
#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using namespace test;

class CudaMixerOps : public CudaTest {};

// A state of each sequence on both sides.
struct Rows {
  std::vector<Both<float, 1>> both;
  std::vector<Tensor<double, 1>> wide;
  std::vector<float*> device;
  std::vector<double*> host;
  Rows(std::size_t count, Index channels) {
    for (std::size_t n = 0; n < count; ++n) {
      both.push_back(Both<float, 1>::random({channels}, 20 + static_cast<unsigned>(n)));
      wide.push_back(both.back().wide());
    }
    for (auto& b : both) device.push_back(b.device().data);
    for (auto& w : wide) host.push_back(w.data());
  }
};

const std::vector<Index> kStarts{0, 1, 1, 3, 70, 107};

TEST_F(CudaMixerOps, TokenShift) {
  CudaExec exec;
  for (Index channels : {1, 130})
    for (bool own : {false, true})
      for (bool advance : {false, true})
        for (bool with_states : {false, true}) {
          const Index tokens = kStarts.back();
          const auto x = Both<float, 2>::random({tokens, channels}, 1, -1, 1, 3);
          const auto mu = Both<float, 3>::random({3, own ? tokens : 1, channels}, 2, 0, 1);
          Both<float, 3> out({3, tokens, channels}, 2);
          Rows states(kStarts.size() - 1, channels);
          const auto wx = x.wide();
          const auto wmu = mu.wide();
          Tensor<double, 3> want({3, tokens, channels});
          auto each = [&](auto v) {
            v.shape[1] = tokens;
            if (!own) v.strides[1] = 0;
            return v;
          };
          TokenShift args{x.device(), each(mu.device()), out.device(), kStarts};
          TokenShiftArgs<double> exact{wx.view(), each(wmu.view()), want.view(), kStarts};
          args.advance = exact.advance = advance;
          if (with_states) args.states = states.device, exact.states = states.host;
          token_shift(args, exec);
          ref::token_shift(exact);
          exec.synchronize();
          EXPECT_LE(error_of(out, want), kFull) << channels;
          for (std::size_t n = 0; n < states.both.size(); ++n)
            EXPECT_LE(error_of(states.both[n], states.wide[n]), 1e-7) << "state " << n;
        }
}

TEST_F(CudaMixerOps, GatedScan) {
  CudaExec exec;
  for (Index channels : {1, 130})
    for (float gate : {-1e-12f, -0.5f, -90.0f, -INFINITY}) {
      const Index tokens = kStarts.back(), count = static_cast<Index>(kStarts.size()) - 1;
      auto x = Both<float, 2>::random({tokens, channels}, 1, -1, 1, 3);
      auto g = Both<float, 2>::random({tokens, channels}, 2, -0.3f, 0);
      for (Index t = 0; t < tokens; t += 3) g.host()(t, 0) = gate;
      g.upload();
      std::vector<DeviceRecurrentState> states;
      std::vector<DeviceRecurrentState*> pointers;
      const auto initial = Both<float, 3>::random({1, 1, channels}, 3);
      Tensor<double, 2> want_states({count, channels});
      for (Index n = 0; n < count; ++n) {
        states.emplace_back(1, 1, channels);
        states.back().import_from(initial.host());
        for (Index c = 0; c < channels; ++c)
          want_states.view()(n, c) = static_cast<double>(initial.host()(0, 0, c));
      }
      for (auto& s : states) pointers.push_back(&s);
      Tensor<double, 2> want({tokens, channels});
      const auto wx = x.wide(), wg = g.wide();
      ref::hgrn(GatedScanArgs<double>{wx.view(), wg.view(), want.view(), kStarts}, want_states.view());
      hgrn(DeviceGatedScan{x.device(), g.device(), x.device(), kStarts, pointers}, exec);
      exec.synchronize();
      EXPECT_LE(error_of(x, want), kFull) << gate;
      for (Index n = 0; n < count; ++n) {
        Tensor<float, 3> got({1, 1, channels});
        states[static_cast<std::size_t>(n)].export_to(got.view());
        for (Index c = 0; c < channels; ++c)
          EXPECT_NEAR(static_cast<double>(got.data()[c]), want_states.view()(n, c), 1e-4);
      }
    }
  DeviceRecurrentState wrong(1, 2, 8);
  DeviceRecurrentState* const states[] = {&wrong};
  auto x = Both<float, 2>::random({3, 8}, 1);
  EXPECT_THROW(hgrn(DeviceGatedScan{x.device(), x.device(), x.device(), {}, states}, exec), Error);
}

TEST_F(CudaMixerOps, ScaleHeads) {
  CudaExec exec;
  for (bool per_channel : {false, true})
    for (bool add : {false, true}) {
      const auto x = Both<float, 3>::random({9, 2, 33}, 1, -1, 1, 2),
                 scale = Both<float, 3>::random({9, 6, per_channel ? 33 : 1}, 2);
      auto out = Both<float, 3>::random({9, 6, 33}, 3, -1, 1, 3);
      const auto wx = x.wide(), ws = scale.wide(), wadd = out.wide();
      Tensor<double, 3> want({9, 6, 33});
      ScaleHeads args{x.device(), scale.device(), out.device()};
      ScaleHeadsArgs<double> exact{wx.view(), ws.view(), want.view()};
      if (add) args.add = out.device(), exact.add = wadd.view();
      scale_heads(args, exec);
      ref::scale_heads(exact);
      exec.synchronize();
      EXPECT_LE(error_of(out, want), kFull);
      args.x = args.x.slice(2, 0, 32);
      EXPECT_THROW(scale_heads(args, exec), Error);
    }
}

TEST_F(CudaMixerOps, FeatureMaps) {
  CudaExec exec;
  for (Index dim : {1, 2, 40, 64}) {
    const auto x = Both<float, 3>::random({9, 3, dim}, 1, -9, 9, 2);
    const auto wx = x.wide();
    for (Index nu : {1, 4, 5}) {
      Both<float, 3> out({9, 3, 2 * dim * nu}, 1);
      Tensor<double, 3> want({9, 3, 2 * dim * nu});
      dpfp(Dpfp{x.device(), out.device(), nu}, exec);
      if (nu <= 2 * dim) {  // the reference's index
        ref::dpfp(DpfpArgs<double>{wx.view(), want.view(), nu});
        exec.synchronize();
        EXPECT_LE(error_of(out, want), kFull) << dim << " " << nu;
      }
    }
    Both<float, 3> out({9, 3, 2 * dim}, 1);
    Tensor<double, 3> want({9, 3, 2 * dim});
    hedgehog(Hedgehog{x.device(), out.device()}, exec);
    ref::hedgehog(HedgehogArgs<double>{wx.view(), want.view()});
    exec.synchronize();
    EXPECT_LE(error_of(out, want), kFull) << dim;
  }
}

TEST_F(CudaMixerOps, Rwkv7) {
  CudaExec exec;
  for (Index dim : {5, 64}) {
    const Index heads = 3, tokens = 7;
    using Cube = Both<float, 3>;
    auto k = Cube::random({tokens, heads, dim}, 1, -1, 1, 1),
         gate = Cube::random({tokens, heads, dim}, 2, -5, 5);
    const auto r = Cube::random({tokens, heads, dim}, 3), v = Cube::random({tokens, heads, 2 * dim}, 4),
               out_gate = Cube::random({tokens, heads, 2 * dim}, 5);
    const auto k_k = Both<float, 2>::random({heads, dim}, 6), k_a = Both<float, 2>::random({heads, dim}, 7);
    const auto wk = k.wide(), wgate = gate.wide(), wr = r.wide(), wv = v.wide(), wout_gate = out_gate.wide();
    const auto wk_k = k_k.wide(), wk_a = k_a.wide();
    Tensor<double, 3> key({tokens, heads, dim}), a(key.shape()), b(key.shape()), y(wv.shape());
    ref::rwkv7_keys(Rwkv7KeysArgs<double>{wk.view(), wgate.view(), wk_k.view(), wk_a.view(), key.view(),
                                          a.view(), b.view()});
    auto x = Cube::random({tokens, heads, 2 * dim}, 8);
    const auto wx = x.wide();
    ref::rwkv7_output(Rwkv7OutputArgs<double>{wx.view(), wr.view(), wk.view(), wk_k.view(), wv.view(),
                                              wout_gate.view(), y.view()});
    rwkv7_output(Rwkv7Output{x.device(), r.device(), k.device(), k_k.device(), v.device(), out_gate.device(),
                             x.device()},
                 exec);
    Cube out_a({tokens, heads, dim}, 2);
    rwkv7_keys(Rwkv7Keys{k.device(), gate.device(), k_k.device(), k_a.device(), k.device(), out_a.device(),
                         gate.device()},
               exec);
    exec.synchronize();
    EXPECT_LE(error_of(x, y), kFull);
    EXPECT_LE(error_of(k, key), kFull);
    EXPECT_LE(error_of(out_a, a), kFull);
    EXPECT_LE(error_of(gate, b), kFull);

    auto values = Both<float, 2>::random({tokens, dim}, 9, -1, 1, 1);
    const auto first = Both<float, 2>::random({tokens, dim}, 10),
               share = Both<float, 2>::random({tokens, dim}, 11, -9, 9);
    const auto wvalues = values.wide(), wfirst = first.wide(), wshare = share.wide();
    Tensor<double, 2> drawn({tokens, dim});
    ref::rwkv7_values(Rwkv7ValuesArgs<double>{wvalues.view(), wfirst.view(), wshare.view(), drawn.view()});
    rwkv7_values(Rwkv7Values{values.device(), first.device(), share.device(), values.device()}, exec);
    exec.synchronize();
    EXPECT_LE(error_of(values, drawn), kFull);
    EXPECT_THROW(rwkv7_keys(Rwkv7Keys{k.device(), gate.device(), k_k.device(), k_a.device(), x.device(),
                                      out_a.device(), gate.device()},
                            exec),
                 Error);
  }
}

}  // namespace
}  // namespace ashlar
