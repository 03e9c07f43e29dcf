// SPDX-License-Identifier: Apache-2.0
// What may not change a bit (threads, batch-mates, requests), and the states that requests give.
#include <algorithm>

#include "tests/ops/linear_recurrence_support.hpp"

namespace ashlar {
namespace {

using test::Array;
using test::Decay;
using test::Expected;
using test::Inputs;
using test::Shape;
using test::Transition;
using test::Variant;

constexpr RecurrenceForm kForms[] = {RecurrenceForm::automatic, RecurrenceForm::recurrent,
                                     RecurrenceForm::chunk};

std::vector<RecurrentState> states_of(const Inputs& in, Index sequences, DType dtype = DType::f32) {
  std::vector<RecurrentState> all;
  for (Index n = 0; n < sequences; ++n) all.push_back(in.state(static_cast<unsigned>(n), dtype));
  return all;
}

void expect_same(std::span<const RecurrentState> a, std::span<const RecurrentState> b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t n = 0; n < a.size(); ++n) {
    EXPECT_TRUE(test::same(a[n].raw(), b[n].raw())) << "state of sequence " << n;
    EXPECT_EQ(a[n].position(), b[n].position());
  }
}

TEST(LinearRecurrenceBits, ThreadsAndBatchMatesChangeNothing) {
  const std::vector<Index> offsets = {0, 0, 5, 6, 6, 70, 101, 101};
  CpuExec one({1}), two({2}), three({3});
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Variant& v : test::variants({1, 2})) {
      Inputs in({101, 4, 24, 100, 2, 2, 4, 4}, v, 2, 1), other(in);
      for (const RecurrenceForm form : kForms) {
        SCOPED_TRACE(testing::Message() << v << ", form " << static_cast<int>(form));
        LinearRecurrence args = in.args();
        args.offsets = offsets, args.form = form;
        const std::vector<RecurrentState> start = states_of(in, args.offsets.count(), dtype);
        std::vector<RecurrentState> packed = start;
        in.out.poison();
        test::run(args, packed, three);

        args.out = other.out.view();
        for (CpuExec* exec : {&one, &two}) {
          std::vector<RecurrentState> again = start;
          other.out.poison();
          test::run(args, again, *exec);
          EXPECT_TRUE(test::same(in.out, other.out)) << exec->threads() << " threads";
          expect_same(again, packed);
        }
        std::vector<RecurrentState> alone = start;
        other.out.poison();
        for (std::size_t n = 0; n + 1 < offsets.size(); ++n) {
          LinearRecurrence single = test::tokens_of(args, offsets[n], offsets[n + 1]);
          test::run(single, {&alone[n], 1}, n % 2 == 0 ? one : three);
        }
        EXPECT_TRUE(test::same(in.out, other.out)) << "alone";
        expect_same(alone, packed);
        if (HasFailure()) return;
      }
    }
}

// The recurrent form works in runs of 32 rows of k, which leave the state itself.
TEST(LinearRecurrenceBits, ACutBetweenRunsChangesNothing) {
  CpuExec exec;
  for (const Variant& v : test::variants({1, 2})) {
    SCOPED_TRACE(testing::Message() << v);
    Inputs in({101, 4, 24, 100, 2, 2, 4, 4}, v, 2, 1), other(in);
    LinearRecurrence args = in.args();
    std::vector<RecurrentState> whole = states_of(in, 1), cut = whole;
    in.out.poison();
    test::run(args, whole, exec);
    args.out = other.out.view();
    other.out.poison();
    for (const auto& [from, to] : {std::pair<Index, Index>(0, 32), {32, 96}, {96, 101}})
      test::run(test::tokens_of(args, from, to), cut, exec);
    EXPECT_TRUE(test::same(in.out, other.out));
    expect_same(cut, whole);
  }
}

// Decode: many sequences of one token, and single sequences among them that have none.
TEST(LinearRecurrenceBits, StepsInABatchAreStepsAlone) {
  const std::vector<Index> offsets = {0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11};
  CpuExec one({1}), three({3});
  for (const Variant& v : test::variants({1, 2})) {
    SCOPED_TRACE(testing::Message() << v);
    Inputs in({11, 4, 24, 130, 2, 2, 4, 4}, v, 2, 2), other(in);
    LinearRecurrence args = in.args();
    args.offsets = offsets;
    std::vector<RecurrentState> packed = states_of(in, args.offsets.count()), alone = packed;
    test::run(args, packed, three);
    args.out = other.out.view();
    for (std::size_t n = 0; n + 1 < offsets.size(); ++n)
      test::run(test::tokens_of(args, offsets[n], offsets[n + 1]), {&alone[n], 1}, one);
    EXPECT_TRUE(test::same(in.out, other.out));
    expect_same(alone, packed);
  }
}

// A view with other strides has the same numbers.
TEST(LinearRecurrenceBits, StridesChangeNothing) {
  CpuExec exec({2});
  for (const Variant& v : test::variants({1})) {
    if (v.decay == Decay::constant) continue;
    SCOPED_TRACE(testing::Message() << v);
    Inputs in(test::ungrouped(37, 2, 20, 36), v, 1, 3), other(in);
    for (Array<3>* x : {&other.q, &other.k, &other.v, &other.gk, &other.a, &other.b, &other.out}) {
      Array<3> wider({x->view().shape}, 13);
      for (Index i = 0; i < x->count(); ++i) wider.view().data[wider.place(i)] = x->view().data[x->place(i)];
      *x = wider;
    }
    for (const RecurrenceForm form : kForms) {
      std::vector<RecurrentState> a = states_of(in, 1), b = a;
      LinearRecurrence args = in.args(), wide = other.args();
      args.form = wide.form = form;
      in.out.poison(), other.out.poison();
      test::run(args, a, exec), test::run(wide, b, exec);
      EXPECT_TRUE(test::same(in.out, other.out));
      other.out.expect_padding_untouched();
      expect_same(a, b);
    }
  }
}

struct Asked {
  Index sequence, tokens;
};
// Of no token, inside, at the end; several of one sequence, out of order, twice the same, of an empty one.
constexpr Asked kAsked[] = {{2, 64}, {0, 3}, {2, 1},  {0, 0}, {2, 33},
                            {2, 33}, {1, 0}, {3, 20}, {2, 0}, {0, 5}};
const std::vector<Index> kRequestOffsets = {0, 5, 5, 70, 90};

TEST(LinearRecurrenceRequests, GiveTheStateAfterSoManyTokens) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Variant& v : test::variants({1, 2})) {
      Inputs in({90, 2, 24, 70, 1, 1, 2, 2}, v, 1, 4), other(in);
      std::vector<RecurrentState> start = states_of(in, 4, dtype);
      for (std::size_t n = 0; n < 4; ++n)
        start[n].import_from(test::values(start[n]).view(), 100 * static_cast<Index>(n));
      // A sequence's first tokens as a sequence of their own, the second of three.
      std::vector<Expected> wants;
      for (const Asked& asked : kAsked) {
        const Index first = kRequestOffsets[static_cast<std::size_t>(asked.sequence)];
        const std::vector<Index> cut = {0, first, first + asked.tokens, 90};
        const std::vector<RecurrentState> from(3, start[static_cast<std::size_t>(asked.sequence)]);
        wants.emplace_back(in, cut, from);
      }
      for (const RecurrenceForm form : kForms)
        for (const int threads : {1, 3}) {
          SCOPED_TRACE(testing::Message() << v << ", " << name(dtype) << ", form " << static_cast<int>(form));
          CpuExec exec({threads});
          LinearRecurrence args = in.args();
          args.offsets = kRequestOffsets, args.form = form;
          std::vector<RecurrentState> plain = start, asked = start;
          in.out.poison(), other.out.poison();
          test::run(args, plain, exec);

          std::vector<RecurrentState> copies(std::size(kAsked), RecurrentState(2, 24, in.columns(), dtype));
          std::vector<StateRequest> requests;
          for (std::size_t i = 0; i < copies.size(); ++i)
            requests.push_back({kAsked[i].sequence, kAsked[i].tokens, &copies[i]});
          args.requests = requests, args.out = other.out.view();
          test::run(args, asked, exec);
          EXPECT_TRUE(test::same(in.out, other.out)) << "requests changed the output";
          expect_same(asked, plain);

          for (std::size_t i = 0; i < copies.size(); ++i) {
            SCOPED_TRACE(testing::Message() << "request " << i);
            const auto n = static_cast<std::size_t>(kAsked[i].sequence);
            const Index tokens = kAsked[i].tokens;
            EXPECT_EQ(copies[i].position(), start[n].position() + tokens);
            test::expect_zero_padding(copies[i]);
            if (tokens == 0) {
              EXPECT_TRUE(test::same(copies[i].raw(), start[n].raw()));
            }
            if (tokens == kRequestOffsets[n + 1] - kRequestOffsets[n]) {
              EXPECT_TRUE(test::same(copies[i].raw(), plain[n].raw()));
            }
            wants[i].expect_state(copies[i], 1, dtype == DType::f32 ? 1 : test::kBf16);
          }
          if (HasFailure()) return;
        }
    }
}

TEST(LinearRecurrenceRequests, NeedNoStates) {
  CpuExec exec;
  for (const RecurrenceForm form : kForms) {
    Inputs in(test::ungrouped(50, 2, 16, 20), {Decay::vector, Transition::delta}, 1, 5);
    RecurrentState middle(2, 16, 20), end(2, 16, 20), none(2, 16, 20), zero(2, 16, 20);
    const std::vector<StateRequest> requests = {{0, 50, &end}, {0, 17, &middle}, {0, 0, &none}};
    LinearRecurrence args = in.args();
    args.form = form, args.requests = requests;
    linear_recurrence(args, exec);
    args.requests = {};
    RecurrentState whole(2, 16, 20);
    const Expected want(in, whole);
    test::run(args, {&whole, 1}, exec);
    want.expect_state(end);
    EXPECT_TRUE(test::same(end.raw(), whole.raw()));
    EXPECT_TRUE(test::same(none.raw(), zero.raw()));
    EXPECT_EQ(end.position(), 50);
    EXPECT_EQ(middle.position(), 17);
    // A copy is a state like any other: the rest of the tokens lead from it to the end.
    LinearRecurrence rest = test::tokens_of(args, 17, 50);
    rest.form = form;
    test::run(rest, {&middle, 1}, exec);
    want.expect_state(middle);
    EXPECT_EQ(middle.position(), 50);
  }
}

}  // namespace
}  // namespace ashlar
