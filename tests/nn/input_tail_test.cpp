// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/sequence_batch.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using Tail = InputTail<CpuExec>;

// As an op of the columns from `first` on does: the tail becomes the last rows of itself and x.
void advance(Tail& tail, View<const float, 2> x, Index first) {
  tail.push(x, first);
  for (Index t = 0; t < x.shape[0]; ++t) {
    const auto rows = tail.view().slice(1, first, first + x.shape[1]);
    for (Index i = 0; i < tail.rows(); ++i)
      std::copy_n(i + 1 < tail.rows() ? rows.at(i + 1) : x.at(t), x.shape[1], rows.at(i));
  }
}

std::vector<float> values(const Tail& tail) { return {tail.view().data, tail.view().data + tail.size()}; }

// Input t has values 10 t + channel; those before the first are 0.
std::vector<float> after(const Tail& tail, Index tokens) {
  std::vector<float> want;
  for (Index t = tokens - tail.rows(); t < tokens; ++t)
    for (Index c = 0; c < tail.channels(); ++c) want.push_back(t < 0 ? 0.f : static_cast<float>(10 * t + c));
  return want;
}

TEST(InputTail, IsThatOfAnyOfTheKeptTokens) {
  constexpr Index kTokens = 60, kChannels = 5;
  test::Array<2> x({kTokens, kChannels});
  for (Index t = 0; t < kTokens; ++t)
    for (Index c = 0; c < kChannels; ++c) x.view()(t, c) = static_cast<float>(10 * t + c);
  std::mt19937 rng(1);
  for (Index rows : {1, 2, 3, 7})
    for (Index keep : {0, 1, 2, 5, 12}) {
      Tail tail(rows, kChannels);
      tail.keep_updates(keep);
      Index at = 0, kept = 0;
      auto feed = [&](Tail& into, Index begin, Index end) {  // by two ops
        for (Index split : {0, 2}) {
          const auto mine = x.cview().slice(0, begin, end).slice(1, split, split == 0 ? 2 : kChannels);
          advance(into, mine, split);
        }
      };
      while (at < kTokens) {
        const Index next = std::min<Index>(kTokens, at + static_cast<Index>(rng() % 10));
        feed(tail, at, next);
        kept = std::min(keep, kept + next - at), at = next;
        ASSERT_EQ(tail.kept_tokens(), kept);
        ASSERT_EQ(values(tail), after(tail, at));
        for (Index back = 0; back <= kept; ++back) {
          Tail copy = tail;
          copy.rollback(back);
          ASSERT_EQ(values(copy), after(copy, at - back)) << rows << " " << keep << " " << at << " " << back;
          feed(copy, at - back, at);
          ASSERT_EQ(values(copy), after(copy, at));
          ASSERT_EQ(copy.kept_tokens(), kept);
        }
        if (rng() % 3 == 0 && kept != 0) tail.rollback(kept), at -= kept, kept = 0;
      }
    }
}

TEST(InputTail, KeepsItsRowsWhenKeepingBeginsAndEnds) {
  Tail tail(3, 2);
  test::Array<2> x({4, 2});
  for (Index t = 0; t < 4; ++t)
    for (Index c = 0; c < 2; ++c) x.view()(t, c) = static_cast<float>(10 * t + c);
  advance(tail, x.cview(), 0);
  const Index bytes = tail.bytes();
  for (Index keep : {4, 1, 6, 0}) {
    tail.keep_updates(keep);
    EXPECT_EQ(values(tail), after(tail, 4));
    EXPECT_EQ(tail.kept_tokens(), 0);
    EXPECT_EQ(tail.bytes(), bytes + keep * 2 * static_cast<Index>(sizeof(float)));
  }
  Tail none;
  none.keep_updates(3);
  EXPECT_FALSE(none);
  EXPECT_EQ(none.bytes(), 0);
}

TEST(LayerState, RefusesMoreThanEveryPartKeeps) {
  LayerState<CpuExec> state;
  state.inputs = Tail(2, 3);
  state.recurrent = RecurrentState(1, 2, 3);
  state.substeps = 2;
  EXPECT_EQ(state.kept_tokens(), 0);
  state.keep_updates(5);
  EXPECT_EQ(state.recurrent.history().substeps, 2);
  test::Array<2> x({2, 3});
  state.inputs.push(x.cview(), 0);
  EXPECT_EQ(state.kept_tokens(), 0);  // the recurrence has seen none
  EXPECT_EQ(test::refusal([&] { state.rollback(1); }),
            "LayerState: 1 tokens were to be taken back, expected 0 to 0");
  EXPECT_EQ(test::refusal([&] { state.keep_updates(-2); }),
            "LayerState: tokens is -2, expected 0 to 1073741824 to keep");
}

TEST(InputTails, RefusesStatesThatAreNotTheBatchs) {
  CpuExec exec;
  LayerState<CpuExec> narrow, wide;
  narrow.inputs = Tail(1, 3), wide.inputs = Tail(1, 4);
  LayerState<CpuExec>* const states[] = {&narrow, &wide};
  const std::vector<Index> offsets{0, 1, 2};
  test::Array<2> x({2, 3});
  SequenceBatch<CpuExec> batch;
  batch.states = states;
  auto refused = [&](Index first) {
    return test::refusal(
        [&] { InputTails<CpuExec>(batch, &LayerState<CpuExec>::inputs, x.cview(), exec, first); });
  };
  EXPECT_EQ(refused(0), "InputTails: 2 states were given, expected one for each of 1 sequences");
  batch.offsets = offsets;
  EXPECT_EQ(refused(0), "InputTails: state 1 has 4 channels of last inputs, expected 3");
  EXPECT_EQ(refused(2), "InputTails: state 0 has 3 channels of last inputs, expected 5");
}

}  // namespace
}  // namespace ashlar
