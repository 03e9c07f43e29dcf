// SPDX-License-Identifier: Apache-2.0
// The forms agree: chunks of any length, any split of a sequence, any gate.
#include <functional>

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

// Both are within the bound of the equations, so within twice the bound of each other.
TEST(LinearRecurrenceForms, ChunksOfAnyLengthAgreeWithTheRecurrentForm) {
  std::vector<CpuExec> contexts = test::contexts();
  unsigned seed = 100;
  for (const Shape& s : {Shape{130, 2, 24, 20, 1, 1, 2, 2}, Shape{67, 1, 130, 66, 1, 1, 1, 1}})
    for (const Variant& v : test::variants({1, 2})) {
      const float gate = std::array{0.05f, 3.0f}[seed++ % 2];
      SCOPED_TRACE(testing::Message() << s << ", " << v << ", gate " << gate);
      Inputs in(s, v, gate, seed);
      const RecurrentState start = in.state(seed + 1);
      const Expected want(in, start);
      for (const Index chunk : {1, 7, 32, 64, 1000})
        for (CpuExec& exec : {std::ref(contexts.front()), std::ref(contexts.back())}) {
          SCOPED_TRACE(testing::Message() << "chunk " << chunk << ", " << name(exec.isa()));
          in.out.poison();
          LinearRecurrence args = in.args();
          args.form = RecurrenceForm::chunk, args.chunk = chunk;
          RecurrentState got = start;
          test::run(args, {&got, 1}, exec);
          want.expect_out(in.out.view());
          in.out.expect_padding_untouched();
          want.expect_state(got);
          test::expect_zero_padding(got);
          if (HasFailure()) return;
        }
    }
}

TEST(LinearRecurrenceForms, AnySplitCarriesTheState) {
  CpuExec exec({2});
  const Shape s{38, 2, 20, 65, 1, 1, 2, 2};
  for (const Variant& v : test::variants({1, 2})) {
    Inputs in(s, v, 1, 11);
    const RecurrentState start = in.state(12);
    const Expected want(in, start);
    for (const RecurrenceForm form : kForms)
      for (Index cut = 0; cut <= s.tokens; cut += cut < 8 ? 1 : 5) {
        SCOPED_TRACE(testing::Message() << v << ", form " << static_cast<int>(form) << ", cut at " << cut);
        in.out.poison();
        RecurrentState got = start;
        // Two pieces, of which the first comes in two.
        for (const auto& [from, to] :
             {std::pair<Index, Index>(0, cut / 2), {cut / 2, cut}, {cut, s.tokens}}) {
          LinearRecurrence args = test::tokens_of(in.args(), from, to);
          args.form = form, args.chunk = form == RecurrenceForm::chunk ? 16 : 0;
          test::run(args, {&got, 1}, exec);
        }
        want.expect_out(in.out.view());
        want.expect_state(got);
        EXPECT_EQ(got.position(), s.tokens);
        if (HasFailure()) return;
      }
  }
}

TEST(LinearRecurrenceForms, TokenAfterTokenIsThePrefill) {
  const Shape s{40, 2, 33, 66, 2, 2, 2, 2};
  for (const Variant& v : test::variants({1, 3})) {
    Inputs in(s, v, 1, 13);
    const RecurrentState start = in.state(14);
    const Expected want(in, start);
    for (CpuExec& exec : test::contexts()) {
      SCOPED_TRACE(testing::Message() << v << ", " << name(exec.isa()));
      in.out.poison();
      RecurrentState got = start;
      for (Index t = 0; t < s.tokens; ++t) test::run(test::tokens_of(in.args(), t, t + 1), {&got, 1}, exec);
      want.expect_out(in.out.view());
      want.expect_state(got);
      if (HasFailure()) return;
    }
  }
}

// Sets log decays that are legal and extreme where `chosen` says so, for all channels or for single ones.
template <class Chosen>
void set_gates(Inputs& in, float gate, bool single_channels, Chosen&& chosen) {
  for (Index t = 0; t < in.shape.tokens; ++t)
    for (Index h = 0; h < in.shape.gate_heads; ++h) {
      if (!chosen(t)) continue;
      in.g.view()(t, h) = gate;
      for (Index i = 0; i < in.shape.dk; ++i)
        if (!single_channels || (i + t) % 5 == 0) in.gk.view()(t, h, i) = gate;
    }
}

// A single token, neighbours, the ends of chunks, every third token, all.
bool chosen(int places, Index t) {
  switch (places) {
    case 0: return t == 17;
    case 1: return t == 20 || t == 21 || t == 22;
    case 2: return t == 0 || t == 15 || t == 16 || t == 31 || t == 32 || t == 40;
    case 3: return t % 3 == 0 || t == 10;
    default: return true;
  }
}

TEST(LinearRecurrenceForms, StayRightAtExtremeGates) {
  std::vector<CpuExec> contexts = test::contexts();
  const Shape s = test::ungrouped(41, 2, 17, 20);
  for (const Decay decay : {Decay::scalar, Decay::vector})
    for (const Variant& v : test::variants({1, 2})) {
      if (v.decay != decay) continue;
      for (const float gate : {0.0f, -1e-12f, -20.0f, -90.0f, -1e30f, -INFINITY})
        for (int places = 0; places < 5; ++places)
          for (const bool single_channels : {false, true}) {
            if (single_channels && decay == Decay::scalar) continue;
            SCOPED_TRACE(testing::Message() << v << ", gate " << gate << ", places " << places
                                            << (single_channels ? ", single channels" : ""));
            Inputs in(s, v, places == 1 ? 30 : 0.3f, 15);
            set_gates(in, gate, single_channels, [&](Index t) { return chosen(places, t); });
            const RecurrentState start = in.state(16);
            const Expected want(in, start);
            for (const RecurrenceForm form : kForms)
              for (CpuExec& exec : {std::ref(contexts.front()), std::ref(contexts.back())}) {
                in.out.poison();
                LinearRecurrence args = in.args();
                args.form = form, args.chunk = form == RecurrenceForm::chunk ? 32 : 0;
                RecurrentState got = start;
                test::run(args, {&got, 1}, exec);
                want.expect_out(in.out.view());
                want.expect_state(got);
                ASSERT_FALSE(HasFailure()) << "form " << static_cast<int>(form) << ", " << name(exec.isa());
              }
          }
    }
}

// A constant decay may be extreme too.
TEST(LinearRecurrenceForms, StayRightAtExtremeConstantDecays) {
  CpuExec exec;
  for (const Transition transition : {Transition::none, Transition::delta, Transition::low_rank})
    for (const float gate : {0.0f, -1e-12f, -90.0f, -INFINITY})
      for (const RecurrenceForm form : kForms) {
        Inputs in(test::ungrouped(70, 2, 8, 9), {Decay::constant, transition}, 1, 17);
        in.constant.view()(1) = gate;
        const RecurrentState start = in.state(18);
        const Expected want(in, start);
        LinearRecurrence args = in.args();
        args.form = form;
        RecurrentState got = start;
        test::run(args, {&got, 1}, exec);
        want.expect_out(in.out.view());
        want.expect_state(got);
        ASSERT_FALSE(HasFailure()) << "gate " << gate << ", form " << static_cast<int>(form);
      }
}

TEST(LinearRecurrenceForms, StayRightAtExtremeBeta) {
  for (const Decay decay : {Decay::none, Decay::scalar, Decay::vector})
    for (const bool one_key : {false, true})
      for (int pattern = 0; pattern < 4; ++pattern) {
        Inputs in(test::ungrouped(70, 2, 16, 20), {decay, Transition::delta}, 0.2f, 19);
        for (Index t = 0; t < 70; ++t)
          for (Index h = 0; h < 2; ++h) {
            in.beta.view()(t, h) = std::array{0.0f, 1.0f, 2.0f, t % 2 == 0 ? 2.0f : 0.0f}[pattern];
            // The same key again and again: its reflections cancel, and nothing may grow.
            for (Index i = 0; one_key && i < 16; ++i) in.k.view()(t, h, i) = in.k.view()(0, h, i);
          }
        const RecurrentState start = in.state(20);
        const Expected want(in, start);
        const double factor = one_key ? std::sqrt(70.0) : 1;  // the same errors each time: they add up
        for (CpuExec& exec : test::contexts())
          for (const RecurrenceForm form : kForms) {
            LinearRecurrence args = in.args();
            args.form = form;
            RecurrentState got = start;
            test::run(args, {&got, 1}, exec);
            want.expect_out(in.out.view(), factor);
            want.expect_state(got, 0, factor);
            ASSERT_FALSE(HasFailure()) << "pattern " << pattern << ", form " << static_cast<int>(form)
                                       << (one_key ? ", one key" : "") << ", " << name(exec.isa());
          }
      }
}

}  // namespace
}  // namespace ashlar
