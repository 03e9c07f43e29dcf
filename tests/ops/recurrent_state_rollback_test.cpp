// SPDX-License-Identifier: Apache-2.0
// Taking tokens back, as speculative decoding does.
#include "tests/ops/linear_recurrence_support.hpp"

namespace ashlar {
namespace {

using test::Decay;
using test::Expected;
using test::Inputs;
using test::Transition;
using test::Variant;

void step(Inputs& in, Index t, RecurrentState& state, CpuExec& exec) {
  test::run(test::tokens_of(in.args(), t, t + 1), {&state, 1}, exec);
}

void keep(RecurrentState& state, Index tokens, const Variant& v) { state.keep_updates(tokens, v.substeps); }

std::vector<std::byte> bytes_of(const RecurrentState& s) { return {s.raw().begin(), s.raw().end()}; }

// The right token of each position, with the state before it; wrong ones in between are taken back. Over many
// steps the ring wraps and its oldest updates are folded into the checkpoint.
void expect_rollbacks(const Variant& v, DType dtype, Index kept, CpuExec& exec) {
  constexpr Index kTokens = 40;
  Inputs right(test::ungrouped(kTokens, 2, 20, 66), v, 1, 1), wrong(right.shape, v, 1, 2);
  RecurrentState clean = right.state(3, dtype);
  keep(clean, kept, v);
  RecurrentState state = clean;
  std::vector<std::vector<std::byte>> before{bytes_of(clean)};
  for (Index t = 0; t < kTokens; ++t) {
    step(right, t, clean, exec);
    before.push_back(bytes_of(clean));
  }
  std::vector<float> out;
  right.out.each([&](float& e) { out.push_back(e); });
  right.out.poison();

  std::mt19937 rng(4);
  Index position = 0;
  for (int round = 0; round < 120 && position < kTokens; ++round) {
    const Index guesses = std::min<Index>(static_cast<Index>(rng() % static_cast<unsigned>(kept + 1)), 40);
    for (Index i = 0; i < guesses; ++i) step(wrong, (position + i) % kTokens, state, exec);
    ASSERT_EQ(state.position(), position + guesses);
    ASSERT_GE(state.kept_tokens(), guesses);
    state.rollback(guesses);
    ASSERT_EQ(state.position(), position);
    ASSERT_TRUE(test::same(state.raw(), before[static_cast<std::size_t>(position)]))
        << "after " << guesses << " wrong tokens at " << position << ", round " << round;
    step(right, position++, state, exec);
    ASSERT_TRUE(test::same(state.raw(), before[static_cast<std::size_t>(position)])) << "going on";
    if (round % 7 == 6) {  // right ones too, as many as there are
      const Index back = std::min(state.kept_tokens(), position);
      state.rollback(back), position -= back;
      ASSERT_TRUE(test::same(state.raw(), before[static_cast<std::size_t>(position)])) << back << " right";
      for (Index i = 0; i < back; ++i) step(right, position++, state, exec);
      ASSERT_TRUE(test::same(state.raw(), before[static_cast<std::size_t>(position)])) << "again";
    }
    test::expect_zero_padding(state);
  }
  ASSERT_EQ(position, kTokens);
  std::size_t i = 0;
  right.out.each([&](float& e) { ASSERT_EQ(e, out[i++]); });
}

TEST(RecurrentStateRollback, GivesTheBitsOfBefore) {
  for (CpuExec& exec : test::contexts())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const Variant& v : test::variants({1, 2})) {
        SCOPED_TRACE(testing::Message() << v << ", " << name(dtype) << ", " << name(exec.isa()));
        expect_rollbacks(v, dtype, 4, exec);
        if (HasFailure()) return;
      }
}

TEST(RecurrentStateRollback, GivesTheBitsOfBeforeForAnyNumberKept) {
  CpuExec exec;
  for (const Index kept : {1, 2, 3, 7, 16, 64}) {
    SCOPED_TRACE(testing::Message() << kept << " kept");
    expect_rollbacks({Decay::vector, Transition::delta}, DType::f32, kept, exec);
    expect_rollbacks({Decay::scalar, Transition::low_rank}, DType::bf16, kept, exec);
  }
}

// Every j up to n, from every position.
TEST(RecurrentStateRollback, TakesBackAnyNumberUpToTheKept) {
  CpuExec exec;
  for (const Variant& v : test::variants({1})) {
    SCOPED_TRACE(testing::Message() << v);
    Inputs in(test::ungrouped(20, 2, 9, 12), v, 1, 5);
    RecurrentState state = in.state(6);
    keep(state, 5, v);
    EXPECT_EQ(state.kept_tokens(), 0);
    std::vector<std::vector<std::byte>> before{bytes_of(state)};
    for (Index t = 0; t < 20; ++t) {
      step(in, t, state, exec);
      before.push_back(bytes_of(state));
      ASSERT_GE(state.kept_tokens(), std::min<Index>(t + 1, 5));
      for (Index j = 0; j <= state.kept_tokens(); ++j) {
        RecurrentState copy = state;  // with its history
        copy.rollback(j);
        ASSERT_EQ(copy.position(), t + 1 - j);
        ASSERT_TRUE(test::same(copy.raw(), before[static_cast<std::size_t>(t + 1 - j)])) << t << " " << j;
      }
      RecurrentState copy = state;
      const std::string sentence = test::refusal([&] { copy.rollback(copy.kept_tokens() + 1); });
      EXPECT_EQ(sentence, concat("RecurrentState: ", state.kept_tokens() + 1,
                                 " tokens were to be taken back, expected 0 to ", state.kept_tokens()));
      ASSERT_TRUE(test::same(copy.raw(), state.raw()));
      ASSERT_EQ(copy.position(), state.position());
    }
  }
}

// A prefill does not pass through the states that a decode does: what is left of it is close to a shorter
// one.
TEST(RecurrentStateRollback, OfAPrefillIsCloseToAShorterOne) {
  for (CpuExec& exec : test::contexts())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const Variant& v : test::variants({1, 2}))
        for (const RecurrenceForm form :
             {RecurrenceForm::automatic, RecurrenceForm::recurrent, RecurrenceForm::chunk})
          for (const Index tokens : {3, 50}) {
            SCOPED_TRACE(testing::Message()
                         << v << ", " << name(dtype) << ", " << name(exec.isa()) << ", form "
                         << static_cast<int>(form) << ", " << tokens << " tokens");
            Inputs in(test::ungrouped(tokens, 1, 10, 66), v, 1, 7);
            const RecurrentState start = in.state(8, dtype);
            RecurrentState state = start;
            keep(state, 4, v);
            LinearRecurrence args = in.args();
            args.form = form;
            test::run(args, {&state, 1}, exec);
            ASSERT_GE(state.kept_tokens(), std::min<Index>(tokens, 4));
            const double factor = dtype == DType::f32 ? 1 : test::kBf16;
            const Expected whole(in, start);
            whole.expect_state(state, 0, factor);
            whole.expect_out(in.out.view(), factor);
            for (Index back : {1, 3, 4}) {
              if (back > tokens) continue;
              RecurrentState copy = state;
              copy.rollback(back);
              EXPECT_EQ(copy.position(), tokens - back);
              const std::vector<Index> cut = {0, tokens - back, tokens};
              const Expected want(in, cut, std::vector<RecurrentState>(2, start));
              want.expect_state(copy, 0, factor);
              if (back == tokens) {
                EXPECT_TRUE(test::same(copy.raw(), start.raw())) << "all of it";
              }
            }
            if (HasFailure()) return;
          }
}

TEST(RecurrentStateRollback, StepsAfterAPrefillComeBackExactly) {
  CpuExec exec;
  for (const Variant& v : test::variants({1, 2})) {
    SCOPED_TRACE(testing::Message() << v);
    Inputs in(test::ungrouped(30, 2, 16, 66), v, 1, 9);
    RecurrentState state = in.state(10);
    keep(state, 4, v);
    test::run(test::tokens_of(in.args(), 0, 20), {&state, 1}, exec);
    const std::vector<std::byte> prefilled = bytes_of(state);
    for (Index t = 20; t < 23; ++t) step(in, t, state, exec);
    state.rollback(3);
    EXPECT_EQ(state.position(), 20);
    // The last token of the prefill is within what is kept: its update is applied again.
    EXPECT_TRUE(test::same(state.raw(), prefilled));
    for (Index t = 20; t < 30; ++t) step(in, t, state, exec);
    state.rollback(4);
    EXPECT_EQ(state.position(), 26);
    if (HasFailure()) return;
  }
}

TEST(RecurrentStateRollback, InABatchOnlySomeKeep) {
  CpuExec exec({3});
  for (const Variant& v : test::variants({1, 2})) {
    SCOPED_TRACE(testing::Message() << v);
    const std::vector<Index> offsets = {0, 1, 1, 2};
    Inputs in(test::ungrouped(2, 2, 16, 66), v, 1, 11);
    std::vector<RecurrentState> states(3, in.state(12));
    const std::vector<std::byte> start = bytes_of(states[0]);
    keep(states[1], 2, v), keep(states[2], 2, v);
    LinearRecurrence args = in.args();
    args.offsets = offsets;
    test::run(args, states, exec);
    EXPECT_EQ(states[0].kept_tokens(), 0);
    EXPECT_EQ(states[1].kept_tokens(), 0);
    EXPECT_GE(states[2].kept_tokens(), 1);
    states[2].rollback(1);
    EXPECT_TRUE(test::same(states[2].raw(), start));
  }
}

TEST(RecurrentStateRollback, ExtremeGatesComeBackToo) {
  CpuExec exec;
  for (const Decay decay : {Decay::scalar, Decay::vector})
    for (const Variant& v : test::variants({1, 2})) {
      if (v.decay != decay) continue;
      for (const float gate : {0.0f, -90.0f, -1e30f, -INFINITY}) {
        SCOPED_TRACE(testing::Message() << v << ", gate " << gate);
        Inputs in(test::ungrouped(6, 2, 9, 12), v, 1, 13);
        in.g.view()(4, 0) = gate, in.gk.view()(4, 1, 3) = gate;
        RecurrentState state = in.state(14);
        keep(state, 2, v);
        for (Index t = 0; t < 4; ++t) step(in, t, state, exec);
        const std::vector<std::byte> before = bytes_of(state);
        for (Index t = 4; t < 6; ++t) step(in, t, state, exec);
        state.rollback(2);
        EXPECT_TRUE(test::same(state.raw(), before));
      }
    }
}

TEST(RecurrentStateRollback, BeginsAnewAtAnImportAndEndsAtZero) {
  CpuExec exec;
  const Variant v{Decay::scalar, Transition::delta};
  Inputs in(test::ungrouped(5, 2, 9, 12), v, 1, 15);
  RecurrentState state = in.state(16);
  const Index plain = state.bytes();
  keep(state, 4, v);
  EXPECT_GT(state.bytes(), plain);
  for (Index t = 0; t < 3; ++t) step(in, t, state, exec);
  state.import_from(test::values(state).view(), 3);
  EXPECT_EQ(state.kept_tokens(), 0);
  const std::vector<std::byte> imported = bytes_of(state);
  step(in, 3, state, exec);
  EXPECT_GE(state.kept_tokens(), 1);
  state.rollback(1);
  EXPECT_TRUE(test::same(state.raw(), imported));
  EXPECT_EQ(state.position(), 3);
  state.keep_updates(0);
  EXPECT_EQ(state.kept_tokens(), 0);
  EXPECT_EQ(state.bytes(), plain);
  EXPECT_TRUE(test::same(state.raw(), imported));
}

}  // namespace
}  // namespace ashlar
