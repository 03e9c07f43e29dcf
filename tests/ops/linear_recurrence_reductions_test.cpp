// SPDX-License-Identifier: Apache-2.0
// What the members of the family are to each other: one member's call against another's equations.
#include "ashlar/ops/linear_mixers.hpp"
#include "tests/ops/linear_recurrence_support.hpp"

namespace ashlar {
namespace {

using test::Array;
using test::Decay;
using test::Expected;
using test::Inputs;
using test::Shape;
using test::Transition;

constexpr RecurrenceForm kForms[] = {RecurrenceForm::automatic, RecurrenceForm::recurrent,
                                     RecurrenceForm::chunk};
const Shape kShape = test::ungrouped(75, 2, 24, 70);

// `member` gives, in every form, what the equations say of `in`, which has other arguments that mean the
// same. These may be rounded themselves: hence four times the bound.
template <class Member>
void expect_member(Member member, LinearRecurrence args, Inputs& in, const RecurrentState& start) {
  const Expected want(in, start);
  for (CpuExec& exec : test::contexts())
    for (const RecurrenceForm form : kForms) {
      SCOPED_TRACE(testing::Message() << "form " << static_cast<int>(form) << ", " << name(exec.isa()));
      RecurrentState got = start;
      RecurrentState* pointer = &got;
      args.states = {&pointer, 1}, args.form = form;
      in.out.poison();
      args.out = in.out.view();
      member(args, exec);
      want.expect_out(in.out.view(), 4);
      want.expect_state(got, 0, 4);
      if (testing::Test::HasFailure()) return;
    }
}

// x[t, h, i] = f(t, h, i).
template <class F>
void fill(Array<3>& x, F&& f) {
  const View<float, 3> view = x.view();
  for (Index t = 0; t < view.shape[0]; ++t)
    for (Index h = 0; h < view.shape[1]; ++h)
      for (Index i = 0; i < view.shape[2]; ++i) view(t, h, i) = f(t, h, i);
}

TEST(LinearRecurrenceReductions, EqualChannelsAreAScalarDecay) {
  for (const float gate : {0.1f, 5.0f})
    for (const Transition transition : {Transition::none, Transition::delta, Transition::low_rank}) {
      Inputs in(kShape, {Decay::scalar, transition}, gate, 1);
      fill(in.gk, [&](Index t, Index h, Index) { return in.g.view()(t, h); });
      LinearRecurrence args = in.args();
      args.g = {}, args.gk = in.gk.cview();
      const auto member = transition == Transition::none    ? gla
                          : transition == Transition::delta ? kda
                                                            : linear_recurrence;
      expect_member(member, args, in, in.state(2));
    }
}

TEST(LinearRecurrenceReductions, GatedDeltaRuleWithoutDecayIsTheDeltaRule) {
  Inputs in(kShape, {Decay::none, Transition::delta}, 1, 3);
  in.g.each([](float& g) { g = 0; });
  LinearRecurrence args = in.args();
  args.g = in.g.cview();
  expect_member(gated_delta_rule, args, in, in.state(4));
}

TEST(LinearRecurrenceReductions, BetaZeroOnlyDecaysTheState) {
  for (const Decay decay : {Decay::none, Decay::scalar, Decay::vector}) {
    // Without transition and with v = 0 the equations only decay.
    Inputs in(kShape, {decay, Transition::none}, 0.1f, 5);
    const Array<3> v = in.v;
    in.v.each([](float& e) { e = 0; });
    in.beta.each([](float& b) { b = 0; });
    Array<3> ignored = v;
    LinearRecurrence args = in.args();
    args.beta = in.beta.cview(), args.v = ignored.cview();
    expect_member(linear_recurrence, args, in, in.state(6));
  }
}

TEST(LinearRecurrenceReductions, ProductOfOneIsTheGatedDeltaRule) {
  Inputs in(kShape, {Decay::scalar, Transition::delta}, 1, 7);
  expect_member(gated_delta_product, in.args(), in, in.state(8));
  Inputs plain(kShape, {Decay::none, Transition::delta}, 1, 7);
  expect_member(gated_delta_product, plain.args(), plain, plain.state(8));
}

// n substeps are n tokens, of which the first decays and the last is read.
TEST(LinearRecurrenceReductions, ProductIsALongerGatedDeltaRule) {
  for (const Index n : {2, 3}) {
    const Shape s = test::ungrouped(25, 2, 24, 70), longer = test::ungrouped(25 * n, 2, 24, 70);
    Inputs in(s, {Decay::scalar, Transition::delta, false, false, n}, 1, 9);
    Inputs wide(longer, {Decay::scalar, Transition::delta}, 1, 9);
    wide.k = in.k, wide.v = in.v, wide.beta = in.beta;
    wide.q.each([](float& q) { q = 0; }), wide.g.each([](float& g) { g = 0; });
    for (Index t = 0; t < s.tokens; ++t)
      for (Index h = 0; h < s.heads; ++h) {
        wide.g.view()(t * n, h) = in.g.view()(t, h);
        for (Index i = 0; i < s.dk; ++i) wide.q.view()(t * n + n - 1, h, i) = in.q.view()(t, h, i);
      }
    const RecurrentState start = in.state(10);
    expect_member(gated_delta_product, in.args(), in, start);
    // The longer one's equations, read at the last substeps.
    const Expected want(in, start), other(wide, start);
    for (Index t = 0; t < s.tokens; ++t)
      for (Index h = 0; h < s.heads; ++h)
        for (Index j = 0; j < s.dv; ++j)
          ASSERT_NEAR(want.out.view()(t, h, j), other.out.view()(t * n + n - 1, h, j), 1e-12);
    test::expect_close(want.state.view(), other.state.view(), [](Index) { return 1e-12; });
  }
}

// S = e^g S + (-beta k) ((e^g k)^T S)^T + k (beta v)^T, with a decay of a head or of each channel.
TEST(LinearRecurrenceReductions, LowRankGivesTheGatedDeltaRule) {
  for (const Decay decay : {Decay::none, Decay::scalar, Decay::vector}) {
    Inputs in(kShape, {decay, Transition::delta}, 0.5f, 11);
    auto decay_of = [&](Index t, Index h, Index i) {
      return decay == Decay::none     ? 1
             : decay == Decay::scalar ? std::exp(in.g.view()(t, h))
                                      : std::exp(in.gk.view()(t, h, i));
    };
    fill(in.a, [&](Index t, Index h, Index i) { return decay_of(t, h, i) * in.k.view()(t, h, i); });
    fill(in.b, [&](Index t, Index h, Index i) { return -in.beta.view()(t, h) * in.k.view()(t, h, i); });
    Array<3> v = in.v;
    fill(v, [&](Index t, Index h, Index j) { return in.beta.view()(t, h) * in.v.view()(t, h, j); });
    LinearRecurrence args = in.args();
    args.beta = {}, args.a = in.a.cview(), args.b = in.b.cview(), args.v = v.cview();
    expect_member(linear_recurrence, args, in, in.state(12));
  }
}

TEST(LinearRecurrenceReductions, LowRankOfZeroIsGatedLinearAttention) {
  for (const bool zero_a : {false, true}) {
    Inputs in(kShape, {Decay::vector, Transition::none}, 1, 13);
    (zero_a ? in.a : in.b).each([](float& e) { e = 0; });
    LinearRecurrence args = in.args();
    args.a = in.a.cview(), args.b = in.b.cview();
    expect_member(linear_recurrence, args, in, in.state(14));
  }
}

TEST(LinearRecurrenceReductions, ConstantDecaysAreOnesOfEachToken) {
  for (const auto member : {retention, lightning_attention, simple_gla}) {
    Inputs in(kShape, {Decay::constant, Transition::none}, 0.2f, 15);
    for (Index t = 0; t < kShape.tokens; ++t)
      for (Index h = 0; h < kShape.heads; ++h) in.g.view()(t, h) = in.constant.view()(h);
    const RecurrentState start = in.state(16);
    expect_member(member, in.args(), in, start);
    LinearRecurrence args = in.args();
    args.g = in.g.cview();
    expect_member(member, args, in, start);
  }
}

// y = C^T h with h = exp(dt A) h + B (dt x)^T: the scale is 1, B and C are shared by a group of heads.
TEST(LinearRecurrenceReductions, StateSpaceDualityIsSimpleGatedLinearAttention) {
  Inputs in({75, 4, 24, 70, 2, 2, 4, 4}, {Decay::scalar, Transition::none}, 0.2f, 17);
  LinearRecurrence args = in.args();
  in.scale = 1;
  const RecurrentState start = in.state(18);
  expect_member(mamba2_ssd, args, in, start);
  args.scale = 1;
  expect_member(simple_gla, args, in, start);
}

TEST(LinearRecurrenceReductions, BonusOfOneWithoutDecayReadsAfterTheUpdate) {
  for (const Index n : {1, 2}) {
    Inputs in(kShape, {Decay::none, Transition::none, false, false, n}, 1, 19);
    in.bonus.each([](float& u) { u = 1; });
    LinearRecurrence args = in.args();
    args.bonus = in.bonus.cview();
    expect_member(linear_recurrence, args, in, in.state(20));
  }
}

TEST(LinearRecurrenceReductions, NamesMeanTheirArguments) {
  Inputs six(kShape, {Decay::vector, Transition::none, true}, 1, 21);
  expect_member(rwkv6, six.args(), six, six.state(22));
  Inputs seven(kShape, {Decay::vector, Transition::low_rank}, 0.6f, 23);
  LinearRecurrence args = seven.args();
  args.scale = 0;  // 1 all the same
  expect_member(rwkv7, args, seven, seven.state(24));
  Inputs vector(kShape, {Decay::vector, Transition::none}, 1, 25);
  fill(vector.k, [&](Index t, Index h, Index i) { return 1 - std::exp(vector.gk.view()(t, h, i)); });
  expect_member(hgrn2, vector.args(), vector, vector.state(26));
  Inputs linear(kShape, {Decay::none, Transition::none, false, true}, 1, 27);
  expect_member(linear_attention, linear.args(), linear, linear.state(28));
  Inputs delta(kShape, {Decay::none, Transition::delta}, 1, 29);
  expect_member(delta_rule, delta.args(), delta, delta.state(30));
}

TEST(LinearRecurrenceReductions, DeltaRuleRecallsOrthonormalKeysPerfectly) {
  for (const RecurrenceForm form : kForms)
    for (CpuExec& exec : test::contexts()) {
      Inputs in(test::ungrouped(16, 1, 16, 9), {Decay::none, Transition::delta}, 1, 31);
      fill(in.k, [](Index t, Index, Index i) { return i == t ? 1.0f : 0.0f; });
      in.beta.each([](float& b) { b = 1; });
      RecurrentState state(1, 16, 9);
      LinearRecurrence args = in.args();
      args.form = form;
      test::run(args, {&state, 1}, exec);
      const Tensor<float, 3> s = test::values(state);
      for (Index t = 0; t < 16; ++t)
        for (Index j = 0; j < 9; ++j) ASSERT_EQ(s.view()(0, t, j), in.v.view()(t, 0, j));
    }
}

// With v = 0 and beta = 2 a step is the reflection I - 2 k k^T, which keeps the norm of every value column.
TEST(LinearRecurrenceReductions, BetaTwoReflects) {
  for (const RecurrenceForm form : kForms)
    for (CpuExec& exec : test::contexts()) {
      Inputs in(test::ungrouped(75, 1, 24, 70), {Decay::none, Transition::delta}, 1, 33);
      in.v.each([](float& v) { v = 0; }), in.beta.each([](float& b) { b = 2; });
      RecurrentState state = in.state(34);
      const Tensor<float, 3> before = test::values(state);
      LinearRecurrence args = in.args();
      args.form = form;
      test::run(args, {&state, 1}, exec);
      const Tensor<float, 3> after = test::values(state);
      for (Index j = 0; j < 70; ++j) {
        double was = 0, is = 0;
        for (Index i = 0; i < 24; ++i)
          was += std::pow(before.view()(0, i, j), 2), is += std::pow(after.view()(0, i, j), 2);
        // 75 reflections by keys whose norm is 1 within eps, each rounded sqrt(Dk) times.
        ASSERT_NEAR(std::sqrt(is / was), 1, 75 * 4 * test::kEps) << "column " << j;
      }
    }
}

}  // namespace
}  // namespace ashlar
