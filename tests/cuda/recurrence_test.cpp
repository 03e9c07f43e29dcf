// SPDX-License-Identifier: Apache-2.0
// The linear recurrences and the short convolution before them, beside their equations in double.
#include "ashlar/ref/linear_recurrence.hpp"
#include "ashlar/ref/short_conv.hpp"
#include "tests/cuda/support.hpp"

namespace ashlar {
namespace {

using namespace test;

class CudaRecurrence : public CudaTest {};

struct Case {
  const char* name;
  bool g = false, gk = false, beta = false, low_rank = false, bonus = false, normalize = false;
  Index substeps = 1;
};
constexpr Case kCases[] = {{"none"},
                           {"normalised", false, false, false, false, false, true},
                           {"scalar", true},
                           {"channels", false, true},
                           {"bonus", false, true, false, false, true},
                           {"delta", false, false, true},
                           {"gated delta", true, false, true},
                           {"kda", false, true, true},
                           {"rwkv7", false, true, false, true},
                           {"product", true, false, true, false, false, false, 3}};

struct Sizes {
  Index heads, shared, key_dim, value_dim;  // `shared`: heads of q and k
};

// Returns the errors of out and of the states.
std::pair<double, double> run(const Case& c, const Sizes& s, const std::vector<Index>& starts,
                              Precision precision, float decay = -0.5f, bool with_states = true) {
  CudaExec exec({.precision = precision});
  const Index tokens = starts.back(), rows = tokens * c.substeps,
              count = static_cast<Index>(starts.size()) - 1;
  const Index columns = s.value_dim + (c.normalize ? 1 : 0);
  const float reach = 1 / std::sqrt(static_cast<float>(s.key_dim));  // keys of length about 1
  const auto q = Both<float, 3>::random({tokens, s.shared, s.key_dim}, 1, c.normalize ? 0.1f : -1, 1),
             k = Both<float, 3>::random({rows, s.shared, s.key_dim}, 2, c.normalize ? 0.1f : -reach, reach),
             v = Both<float, 3>::random({rows, s.heads, s.value_dim}, 3),
             gk = Both<float, 3>::random({tokens, s.heads, s.key_dim}, 4, decay, 0),
             a = Both<float, 3>::random({rows, s.heads, s.key_dim}, 5, -reach, reach),
             b = Both<float, 3>::random({rows, s.heads, s.key_dim}, 6, -reach, reach);
  const auto g = Both<float, 2>::random({tokens, s.heads}, 7, decay, 0),
             beta = Both<float, 2>::random({rows, s.heads}, 8, 0, 1),
             bonus = Both<float, 2>::random({s.heads, s.key_dim}, 9);
  Both<float, 3> out({tokens, s.heads, s.value_dim}, 3);
  Tensor<double, 4> state({count, s.heads, s.key_dim, columns});
  std::vector<DeviceRecurrentState> states;
  std::vector<DeviceRecurrentState*> pointers;
  const auto initial = Both<float, 3>::random({s.heads, s.key_dim, columns}, 10);
  for (Index n = 0; n < count; ++n) {
    states.emplace_back(s.heads, s.key_dim, columns);
    if (!with_states) continue;
    states.back().import_from(initial.host(), 5);
    for (Index i = 0; i < initial.host().size(); ++i)
      state.data()[n * initial.host().size() + i] = static_cast<double>(initial.host().data[i]);
  }
  for (auto& one : states) pointers.push_back(&one);
  DeviceLinearRecurrence args{q.device(), k.device(), v.device(), {}, {}, out.device(), 0, starts};
  LinearRecurrenceArgs<double> want_args;
  const auto wq = q.wide(), wk = k.wide(), wv = v.wide(), wgk = gk.wide(), wa = a.wide(), wb = b.wide();
  const auto wg = g.wide(), wbeta = beta.wide(), wbonus = bonus.wide();
  Tensor<double, 3> want({tokens, s.heads, s.value_dim});
  want_args.q = wq.view(), want_args.k = wk.view(), want_args.v = wv.view(), want_args.out = want.view();
  want_args.offsets = starts, want_args.substeps = args.substeps = c.substeps;
  want_args.normalize = args.normalize = c.normalize;
  if (c.g) args.g = g.device(), want_args.g = wg.view();
  if (c.gk) args.gk = gk.device(), want_args.gk = wgk.view();
  if (c.beta) args.beta = beta.device(), want_args.beta = wbeta.view();
  if (c.low_rank) args.a = a.device(), args.b = b.device(), want_args.a = wa.view(), want_args.b = wb.view();
  if (c.bonus) args.bonus = bonus.device(), want_args.bonus = wbonus.view();
  if (with_states) args.states = pointers;
  ref::linear_recurrence(want_args, state.view());
  linear_recurrence(args, exec);
  exec.synchronize();
  double difference = 0, norm = 0;
  for (Index n = 0; n < count && with_states; ++n) {
    Tensor<float, 3> got({s.heads, s.key_dim, columns});
    states[static_cast<std::size_t>(n)].export_to(got.view());
    EXPECT_EQ(states[static_cast<std::size_t>(n)].position(),
              5 + starts[static_cast<std::size_t>(n) + 1] - starts[static_cast<std::size_t>(n)]);
    for (Index i = 0; i < got.size(); ++i) {
      const double w = state.data()[n * got.size() + i], d = static_cast<double>(got.data()[i]) - w;
      difference += d * d, norm += w * w;
    }
  }
  return {error_of(out, want), norm > 0 ? std::sqrt(difference / norm) : 0};
}

TEST_F(CudaRecurrence, EveryMemberInFull) {
  for (const Case& c : kCases)
    for (const Sizes& s :
         {Sizes{4, 2, 7, 5}, Sizes{6, 6, 96, 33}, Sizes{2, 1, 128, 64}, Sizes{1, 1, 200, 20}})
      for (const std::vector<Index>& starts :
           {std::vector<Index>{0, 1}, std::vector<Index>{0, 67, 67, 130, 137},
            std::vector<Index>{0, 1, 2, 3}}) {
        const auto [out, state] = run(c, s, starts, Precision::full);
        EXPECT_LE(out, kFull) << c.name << " Dk " << s.key_dim << " T " << starts.back();
        EXPECT_LE(state, kFull) << c.name << " Dk " << s.key_dim << " T " << starts.back();
      }
}

TEST_F(CudaRecurrence, FastIsCloseAndStaysSoUnderExtremeGates) {
  for (const Case& c : {kCases[6], kCases[5], kCases[2]})
    for (const Sizes& s : {Sizes{4, 2, 64, 64}, Sizes{2, 2, 96, 192}, Sizes{2, 1, 128, 128}})
      for (float decay : {0.0f, -1e-12f, -0.3f, -20.0f, -90.0f})
        for (bool with_states : {true, false}) {
          const auto [out, state] =
              run(c, s, {0, 200, 200, 263, 264, 400}, Precision::fast, decay, with_states);
          EXPECT_LE(out, kRounded) << c.name << " Dk " << s.key_dim << " decay " << decay;
          EXPECT_LE(state, kRounded) << c.name << " Dk " << s.key_dim << " decay " << decay;
        }
}

TEST_F(CudaRecurrence, Refuses) {
  CudaExec exec;
  const auto q = Both<float, 3>::random({3, 2, 8}, 1), v = Both<float, 3>::random({3, 2, 9}, 2);
  Both<float, 3> out({3, 2, 9});
  DeviceLinearRecurrence args{q.device(), q.device(), v.device(), {}, {}, out.device()};
  EXPECT_NO_THROW(linear_recurrence(args, exec));
  args.out = args.out.slice(2, 0, 8);
  EXPECT_THROW(linear_recurrence(args, exec), Error);
  args.out = out.device();
  DeviceRecurrentState wrong(2, 8, 8);
  DeviceRecurrentState* const states[] = {&wrong};
  args.states = states;
  EXPECT_THROW(linear_recurrence(args, exec), Error);
  EXPECT_THROW(wrong.keep_updates(3), Error);
  EXPECT_THROW(gated_delta_rule(
                   DeviceLinearRecurrence{q.device(), q.device(), v.device(), {}, {}, out.device()}, exec),
               Error);
}

TEST_F(CudaRecurrence, ShortConvolution) {
  CudaExec exec;
  for (Index width : {1, 2, 3, 4, 6})
    for (Index channels : {1, 130, 512}) {
      const std::vector<Index> starts{0, 1, 1, 3, 70, 170};
      const auto x = Both<float, 2>::random({170, channels}, 1, -1, 1, 5);
      const auto weight = Both<float, 2>::random({channels, width}, 2);
      const auto bias = Both<float, 1>::random({channels}, 3);
      Both<float, 2> out({170, channels}, 2);
      std::vector<Both<float, 2>> tails;
      std::vector<Tensor<double, 2>> wide_tails;
      std::vector<float*> states;
      std::vector<double*> wide_states;
      for (unsigned n = 0; n < 5; ++n) {
        tails.push_back(Both<float, 2>::random({width - 1, channels}, 10 + n));
        wide_tails.push_back(tails.back().wide());
      }
      for (auto& t : tails) states.push_back(t.device().data);
      for (auto& t : wide_tails) wide_states.push_back(t.data());
      short_conv(ShortConv{x.device(), weight.device(), bias.device(), out.device(), Activation::silu, starts,
                           states},
                 exec);
      const auto wx = x.wide(), ww = weight.wide();
      const auto wbias = bias.wide();
      Tensor<double, 2> want({170, channels});
      ref::short_conv(ShortConvArgs<double>{wx.view(), ww.view(), wbias.view(), want.view(), Activation::silu,
                                            starts, wide_states});
      exec.synchronize();
      EXPECT_LE(error_of(out, want), kFull) << width << " " << channels;
      for (std::size_t n = 0; n < tails.size() && width > 1; ++n)
        EXPECT_LE(error_of(tails[n], wide_tails[n]), 1e-7) << "state " << n << " width " << width;
    }
}

}  // namespace
}  // namespace ashlar
