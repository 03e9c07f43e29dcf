// SPDX-License-Identifier: Apache-2.0
// Every variant in every form against the equations in double.
#include "tests/ops/linear_recurrence_support.hpp"

namespace ashlar {
namespace {

using test::Decay;
using test::Expected;
using test::Inputs;
using test::Shape;
using test::Transition;
using test::Variant;

constexpr RecurrenceForm kForms[] = {RecurrenceForm::automatic, RecurrenceForm::recurrent,
                                     RecurrenceForm::chunk};

// Runs every form from `start` and compares.
void expect_every_form(Inputs& in, const RecurrentState& start, const Expected& want, CpuExec& exec) {
  for (const RecurrenceForm form : kForms) {
    SCOPED_TRACE(testing::Message() << name(exec.isa()) << ", " << exec.threads() << " threads, form "
                                    << static_cast<int>(form));
    in.out.poison();
    RecurrentState got = start;
    LinearRecurrence args = in.args();
    args.form = form;
    test::run(args, {&got, 1}, exec);
    want.expect_out(in.out.view());
    in.out.expect_padding_untouched();
    want.expect_state(got);
    test::expect_zero_padding(got);
    EXPECT_EQ(got.position(), start.position() + in.shape.tokens);
    if (testing::Test::HasFailure()) return;
  }
}

// Tokens, heads, Dk x Dv, and how many heads q, k, v and the gates have.
const Shape kShapes[] = {
    {1, 2, 128, 130, 2, 2, 2, 2}, {3, 1, 1, 64, 1, 1, 1, 1},     {4, 4, 24, 63, 2, 2, 4, 4},
    {63, 4, 16, 65, 4, 2, 2, 2},  {67, 3, 67, 12, 1, 1, 3, 3},   {130, 2, 7, 48, 2, 2, 2, 2},
    {9, 1, 1100, 5, 1, 1, 1, 1},  {13, 1, 128, 128, 1, 1, 1, 1}, {70, 6, 24, 1, 6, 2, 3, 1},
};

void match_equations(Index substeps) {
  std::vector<CpuExec> contexts = test::contexts();
  unsigned seed = 0;
  for (const Shape& s : kShapes)
    for (const Variant& v : test::variants({substeps})) {
      const float gate = std::array{0.5f, 20.0f, 90.0f}[seed++ % 3];
      SCOPED_TRACE(testing::Message() << s << ", " << v << ", gate " << gate);
      Inputs in(s, v, gate, seed);
      const RecurrentState start = in.state(seed + 1);
      const Expected want(in, start);
      for (CpuExec& exec : contexts) {
        expect_every_form(in, start, want, exec);
        if (testing::Test::HasFailure()) return;
      }
    }
}

TEST(LinearRecurrence, MatchesTheEquations) { match_equations(1); }
TEST(LinearRecurrence, MatchesTheEquationsWithTwoSubsteps) { match_equations(2); }
TEST(LinearRecurrence, MatchesTheEquationsWithThreeSubsteps) { match_equations(3); }

TEST(LinearRecurrence, TheReferenceNormalisesByAColumnOfOnes) {
  for (const bool bonus : {false, true}) {
    Inputs in(test::ungrouped(9, 2, 5, 3), {Decay::vector, Transition::none, bonus, true, 2}, 1, 1);
    const RecurrentState start = in.state(2);
    const Expected want(in, start);
    Tensor<double, 3> out({9, 2, 3});
    Tensor<double, 4> state({1, 2, 5, 4});
    const Tensor<float, 3> from = test::values(start);
    for (Index i = 0; i < from.size(); ++i) state.data()[i] = static_cast<double>(from.data()[i]);
    ref::linear_recurrence(in.exact(out.view()), state.view());
    test::expect_close(out.view(), want.out.view(), [](Index) { return 1e-13; });
    test::expect_close(state.view(), want.state.view(), [](Index) { return 1e-13; });
  }
}

// A decay of each key channel that is the same for every token.
TEST(LinearRecurrence, TakesAConstantDecayOfEachChannel) {
  for (const Transition transition : {Transition::none, Transition::delta, Transition::low_rank}) {
    const Shape s = test::ungrouped(67, 2, 24, 20);
    Inputs in(s, {Decay::vector, transition}, 2, 3);
    for (Index t = 1; t < s.tokens; ++t)
      for (Index h = 0; h < s.heads; ++h)
        for (Index i = 0; i < s.dk; ++i) in.gk.view()(t, h, i) = in.gk.view()(0, h, i);
    const RecurrentState start = in.state(4);
    const Expected want(in, start);
    for (CpuExec& exec : test::contexts())
      for (const RecurrenceForm form : kForms) {
        LinearRecurrence args = in.args();
        args.gk = constant_decay(in.gk.cview()[0], s.tokens);
        args.form = form;
        RecurrentState got = start;
        test::run(args, {&got, 1}, exec);
        want.expect_out(in.out.view());
        want.expect_state(got);
      }
  }
}

TEST(LinearRecurrence, BeginsFromZeroWithoutStates) {
  CpuExec exec({2});
  for (const Variant& v : test::variants({1, 2})) {
    SCOPED_TRACE(testing::Message() << v);
    Inputs in({21, 4, 12, 70, 2, 2, 4, 4}, v, 1, 5), again(in);
    const std::vector<Index> offsets = {0, 6, 6, 21};
    for (const RecurrenceForm form : kForms) {
      std::vector<RecurrentState> zero(3, RecurrentState(4, 12, in.columns()));
      LinearRecurrence args = in.args();
      args.offsets = offsets, args.form = form;
      in.out.poison();
      linear_recurrence(args, exec);
      args.out = again.out.poison().view();
      test::run(args, zero, exec);
      EXPECT_TRUE(test::same(in.out, again.out));
    }
  }
}

TEST(LinearRecurrence, NoTokensLeaveTheStateAlone) {
  CpuExec exec;
  for (const Variant& v : test::variants({1, 2})) {
    Inputs in(test::ungrouped(0, 2, 7, 12), v, 1, 6);
    const RecurrentState start = in.state(7);
    RecurrentState got = start;
    for (const RecurrenceForm form : kForms) {
      LinearRecurrence args = in.args();
      args.form = form;
      test::run(args, {&got, 1}, exec);
      EXPECT_TRUE(test::same(got.raw(), start.raw())) << v;
      EXPECT_EQ(got.position(), 0);
    }
  }
}

}  // namespace
}  // namespace ashlar
