// SPDX-License-Identifier: Apache-2.0
// What the recurrence and its members refuse, in which words; and that nothing is written then.
#include "ashlar/ops/linear_mixers.hpp"
#include "tests/ops/linear_recurrence_support.hpp"

namespace ashlar {
namespace {

using test::Decay;
using test::Inputs;
using test::Transition;
using test::Variant;

// The call that each test spoils: three sequences of 2, 1 and 3 tokens with a state each.
struct Call {
  explicit Call(const Variant& v)
      : in({6, 4, 8, 9, 2, 2, 4, 4}, v, 1, 1), offsets{0, 2, 3, 6}, args(in.args()) {
    for (unsigned n = 0; n < 3; ++n) states.push_back(in.state(n));
    for (RecurrentState& s : states) pointers.push_back(&s);
    args.offsets = offsets, args.states = pointers;
  }
  Call(const Call&) = delete;

  Inputs in;
  std::vector<Index> offsets;
  std::vector<RecurrentState> states;
  std::vector<RecurrentState*> pointers;
  std::vector<StateRequest> requests;
  LinearRecurrence args;
};

template <class Change>
std::string refusal(const Variant& v, Change&& change) {
  CpuExec exec;
  Call call(v);
  change(call);
  call.in.out.poison();
  const std::vector<RecurrentState> before = call.states;
  const std::string sentence = test::refusal([&] { linear_recurrence(call.args, exec); });
  call.in.out.each([](float& e) { EXPECT_TRUE(std::isnan(e)) << "written all the same"; });
  for (std::size_t n = 0; n < before.size(); ++n) {
    EXPECT_TRUE(test::same(before[n].raw(), call.states[n].raw())) << "a state was written all the same";
    EXPECT_EQ(before[n].position(), call.states[n].position());
  }
  const std::string_view op = "linear_recurrence: ";
  EXPECT_EQ(sentence.substr(0, op.size()), op);
  return sentence.substr(std::min(op.size(), sentence.size()));
}

const Variant kGated{Decay::scalar, Transition::delta}, kChannels{Decay::vector, Transition::delta},
    kLowRank{Decay::vector, Transition::low_rank}, kBonus{Decay::vector, Transition::none, true},
    kNormalized{Decay::none, Transition::none, false, true},
    kProduct{Decay::scalar, Transition::delta, false, false, 2};

TEST(LinearRecurrenceRefusals, Shapes) {
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.q = c.args.q.slice(0, 0, 5); }),
            "q has shape [5, 2, 8], expected [6, 2, 8]");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.q = c.args.q.slice(2, 0, 7); }),
            "q has shape [6, 2, 7], expected [6, 2, 8]");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.k = c.args.k.slice(0, 0, 5); }),
            "k has shape [5, 2, 8], expected [6, 2, 8]");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.v = c.args.v.slice(2, 0, 8); }),
            "v has shape [6, 4, 8], expected [6, 4, 9]");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.g = c.args.g.slice(0, 0, 5); }),
            "g has shape [5, 4], expected [6, 4]");
  EXPECT_EQ(refusal(kChannels, [](Call& c) { c.args.gk = c.args.gk.slice(2, 0, 7); }),
            "gk has shape [6, 4, 7], expected [6, 4, 8]");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.beta = c.args.beta.slice(0, 0, 5); }),
            "beta has shape [5, 4], expected [6, 4]");
  EXPECT_EQ(refusal(kLowRank, [](Call& c) { c.args.a = c.args.a.slice(0, 0, 5); }),
            "a has shape [5, 2, 8], expected [6, 2, 8]");
  EXPECT_EQ(refusal(kLowRank, [](Call& c) { c.args.b = c.args.b.slice(2, 0, 7); }),
            "b has shape [6, 2, 7], expected [6, 2, 8]");
  EXPECT_EQ(refusal(kBonus, [](Call& c) { c.args.bonus = c.args.bonus.slice(1, 0, 7); }),
            "bonus has shape [4, 7], expected [4, 8]");
  EXPECT_EQ(refusal(kProduct, [](Call& c) { c.args.k = c.args.k.slice(0, 0, 6); }),
            "k has shape [6, 2, 8], expected [12, 2, 8]");
  EXPECT_EQ(refusal(kProduct, [](Call& c) { c.args.beta = c.args.beta.slice(0, 0, 6); }),
            "beta has shape [6, 4], expected [12, 4]");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.q = {}; }), "q has shape [0, 0, 0], expected [6, 0, 8]");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.k.strides[2] = 2; }),
            "k has stride 2 on its last axis, expected 1");
}

TEST(LinearRecurrenceRefusals, HeadsThatDoNotDivide) {
  auto three = [](auto& view) {
    view.shape[1] = 3;
    view.strides[0] = 0, view.strides[1] = view.strides.back() = 1;
  };
  EXPECT_EQ(refusal(kGated, [&](Call& c) { three(c.args.q); }),
            "q has 3 heads, expected a divisor of the 4 of out");
  EXPECT_EQ(refusal(kGated, [&](Call& c) { three(c.args.k); }),
            "k has 3 heads, expected a divisor of the 4 of out");
  EXPECT_EQ(refusal(kGated, [&](Call& c) { three(c.args.v); }),
            "v has 3 heads, expected a divisor of the 4 of out");
  EXPECT_EQ(refusal(kGated, [&](Call& c) { three(c.args.g); }),
            "g has 3 heads, expected a divisor of the 4 of out");
  EXPECT_EQ(refusal(kChannels, [&](Call& c) { three(c.args.gk); }),
            "gk has 3 heads, expected a divisor of the 4 of out");
  EXPECT_EQ(refusal(kGated, [&](Call& c) { three(c.args.beta); }),
            "beta has 3 heads, expected a divisor of the 4 of out");
  EXPECT_EQ(refusal(kLowRank, [&](Call& c) { three(c.args.a); }),
            "a has 3 heads, expected a divisor of the 4 of out");
  EXPECT_EQ(refusal(kLowRank, [&](Call& c) { three(c.args.b); }),
            "b has 3 heads, expected a divisor of the 4 of out");
  EXPECT_EQ(refusal(kBonus, [&](Call& c) { c.args.bonus = c.args.bonus.slice(0, 0, 3); }),
            "bonus has 3 heads, expected a divisor of the 4 of out");
  EXPECT_EQ(refusal(kGated, [&](Call& c) { c.args.v = c.args.v.slice(1, 0, 0); }),
            "v has 0 heads, expected a divisor of the 4 of out");
}

TEST(LinearRecurrenceRefusals, Combinations) {
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.gk = c.in.gk.cview(); }),
            "both g and gk were given, expected one decay");
  EXPECT_EQ(refusal(kLowRank, [](Call& c) { c.args.beta = c.in.beta.cview(); }),
            "beta was given with a or b, expected one transition");
  EXPECT_EQ(refusal(kLowRank, [](Call& c) { c.args.b = {}; }),
            "a was given without b, expected both or none");
  EXPECT_EQ(refusal(kLowRank, [](Call& c) { c.args.a = {}; }),
            "b was given without a, expected both or none");
  EXPECT_EQ(refusal(kChannels, [](Call& c) { c.args.bonus = c.in.bonus.cview(); }),
            "bonus was given with a transition, expected no transition");
  EXPECT_EQ(refusal(kLowRank, [](Call& c) { c.args.bonus = c.in.bonus.cview(); }),
            "bonus was given with a transition, expected no transition");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.normalize = true; }),
            "normalize is set with a transition, expected no transition");
  EXPECT_EQ(refusal(kLowRank, [](Call& c) { c.args.normalize = true; }),
            "normalize is set with a transition, expected no transition");
  EXPECT_EQ(refusal(kBonus, [](Call& c) { c.args.normalize = true; }),
            "normalize is set with a bonus, expected a read after the update");
  for (const Index n : {Index{0}, Index{-1}, std::numeric_limits<Index>::min()})
    EXPECT_EQ(refusal(kGated, [&](Call& c) { c.args.substeps = n; }),
              concat("substeps is ", n, ", expected at least 1"));
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.substeps = 2; }),
            "k has shape [6, 2, 8], expected [12, 2, 8]");
  refusal(kGated, [](Call& c) { c.args.substeps = std::numeric_limits<Index>::max(); });
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.chunk = -1; }), "chunk is -1, expected 0 (default) or more");
}

TEST(LinearRecurrenceRefusals, Offsets) {
  auto with = [](std::vector<Index> offsets) {
    return refusal(kGated, [&](Call& c) { c.offsets = offsets, c.args.offsets = c.offsets; });
  };
  EXPECT_EQ(with({0, 2, 3, 7}), "offsets end at 7, expected 6 tokens");
  EXPECT_EQ(with({0, 2, 3, 5}), "offsets end at 5, expected 6 tokens");
  EXPECT_EQ(with({0, 4, 3, 6}), "offsets[2] is 3, less than the one before it, 4");
  EXPECT_EQ(with({1, 2, 3, 6}), "offsets[0] is 1, expected 0");
  EXPECT_EQ(with({0, 9, 3, 6}), "offsets[2] is 3, less than the one before it, 9");
}

TEST(LinearRecurrenceRefusals, States) {
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.args.states = c.args.states.first(2); }),
            "there are 2 states, expected one for each of 3 sequences");
  RecurrentState wide(4, 8, 10), narrow(4, 8, 9), keys(4, 9, 9), heads(2, 8, 9), empty;
  auto with = [](const Variant& v, RecurrentState* s) {
    return refusal(v, [&](Call& c) { c.pointers[1] = s; });
  };
  EXPECT_EQ(with(kGated, &wide), "a state has shape [4, 8, 10], expected [4, 8, 9]");
  EXPECT_EQ(with(kGated, &keys), "a state has shape [4, 9, 9], expected [4, 8, 9]");
  EXPECT_EQ(with(kGated, &heads), "a state has shape [2, 8, 9], expected [4, 8, 9]");
  EXPECT_EQ(with(kGated, &empty), "a state has shape [0, 0, 0], expected [4, 8, 9]");
  EXPECT_EQ(with(kGated, nullptr), "a state has shape none, expected [4, 8, 9]");
  EXPECT_EQ(with(kNormalized, &narrow), "a state has shape [4, 8, 9], expected [4, 8, 10]");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.pointers[2] = c.pointers[0]; }),
            "states 0 and 2 are the same, expected one a sequence");
  EXPECT_EQ(refusal(kProduct, [](Call& c) { c.states[1].keep_updates(4); }),
            "a state keeps updates of 1 substeps a token, expected 2");
}

TEST(LinearRecurrenceRefusals, Requests) {
  RecurrentState good(4, 8, 9), other(4, 8, 10);
  auto with = [](std::vector<StateRequest> requests) {
    return refusal(kGated, [&](Call& c) { c.requests = requests, c.args.requests = c.requests; });
  };
  EXPECT_EQ(with({{3, 0, &good}}), "requests[0] is of sequence 3, expected 0 to 2");
  EXPECT_EQ(with({{-1, 0, &good}}), "requests[0] is of sequence -1, expected 0 to 2");
  EXPECT_EQ(with({{1, 1, &good}, {1, 2, &good}}), "requests[1] is after 2 tokens, expected 0 to 1");
  EXPECT_EQ(with({{2, -1, &good}}), "requests[0] is after -1 tokens, expected 0 to 3");
  EXPECT_EQ(with({{2, 1, nullptr}}), "the state of requests[0] has shape none, expected [4, 8, 9]");
  EXPECT_EQ(with({{2, 1, &other}}), "the state of requests[0] has shape [4, 8, 10], expected [4, 8, 9]");
  EXPECT_EQ(with({{2, 1, &good}, {2, 2, &good}}),
            "requests[0] and [1] have the same state, expected one each");
  EXPECT_EQ(refusal(kGated,
                    [](Call& c) {
                      c.requests = {{2, 1, c.pointers[0]}};
                      c.args.requests = c.requests;
                    }),
            "requests[0] has the state of a sequence, expected one of its own");
  EXPECT_EQ(test::largest(test::values(good).view()), 0) << "a requested state was written";
  EXPECT_EQ(good.position(), 0);
}

TEST(LinearRecurrenceRefusals, Decays) {
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.in.g.view()(3, 2) = 0.5f; }),
            "g[3, 2] is 0.500000, expected a log decay <= 0");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.in.g.view()(5, 0) = NAN; }),
            "g[5, 0] is nan, expected a log decay <= 0");
  EXPECT_EQ(refusal(kGated, [](Call& c) { c.in.g.view()(5, 3) = INFINITY; }),
            "g[5, 3] is inf, expected a log decay <= 0");
  EXPECT_EQ(refusal(kChannels, [](Call& c) { c.in.gk.view()(3, 2, 5) = NAN; }),
            "gk[3, 2, 5] is nan, expected a log decay <= 0");
  EXPECT_EQ(refusal(kChannels, [](Call& c) { c.in.gk.view()(0, 0, 0) = 2; }),
            "gk[0, 0, 0] is 2.000000, expected a log decay <= 0");
  EXPECT_EQ(refusal(kLowRank, [](Call& c) { c.in.gk.view()(5, 3, 7) = 1; }),
            "gk[5, 3, 7] is 1.000000, expected a log decay <= 0");
  // The first in row-major order, whoever looks.
  EXPECT_EQ(refusal(kChannels,
                    [](Call& c) {
                      for (const auto& [t, h, i] : {std::array<Index, 3>{5, 0, 0}, {4, 1, 7}, {4, 2, 0}})
                        c.in.gk.view()(t, h, i) = NAN;
                    }),
            "gk[4, 1, 7] is nan, expected a log decay <= 0");
  // One a head, the same for each token.
  EXPECT_EQ(refusal({Decay::constant, Transition::delta}, [](Call& c) { c.in.constant.view()(3) = 0.25f; }),
            "g[0, 3] is 0.250000, expected a log decay <= 0");
  // Legal: minus nothing, zero and forgetting all.
  CpuExec exec;
  Call call(kGated);
  call.in.g.view()(0, 0) = -0.0f, call.in.g.view()(1, 1) = -INFINITY;
  EXPECT_NO_THROW(linear_recurrence(call.args, exec));
}

TEST(LinearRecurrenceRefusals, LongDecaysAreLookedAtToTheEnd) {
  for (CpuExec& exec : test::contexts())
    for (const Index dk : {1, 15, 17, 40}) {
      Inputs in(test::ungrouped(300, 2, dk, 3), {Decay::vector, Transition::none}, 1, 2);
      in.gk.view()(299, 1, dk - 1) = 1e-30f;
      in.out.poison();
      EXPECT_EQ(test::refusal([&] { gla(in.args(), exec); }),
                concat("linear_recurrence: gk[299, 1, ", dk - 1, "] is 0.000000, expected a log decay <= 0"));
      in.out.each([](float& e) { EXPECT_TRUE(std::isnan(e)); });
    }
}

TEST(LinearRecurrenceRefusals, MembersTakeTheirOwnArguments) {
  CpuExec exec;
  auto said = [&](auto member, const Variant& v, auto change) {
    Call call(v);
    change(call);
    return test::refusal([&] { member(call.args, exec); });
  };
  auto nothing = [](Call&) {};
  EXPECT_EQ(said(delta_rule, kGated, nothing), "delta_rule: g was given, expected none");
  EXPECT_EQ(said(gla, kGated, nothing), "gla: g was given, expected none");
  EXPECT_EQ(said(gla, kNormalized, nothing), "gla: gk is missing");
  EXPECT_EQ(said(kda, kLowRank, nothing), "kda: beta is missing");
  EXPECT_EQ(said(rwkv6, kChannels, nothing), "rwkv6: beta was given, expected none");
  EXPECT_EQ(said(rwkv7, kBonus, nothing), "rwkv7: a is missing");
  EXPECT_EQ(said(rwkv6, kBonus, [](Call& c) { c.args.bonus = {}; }), "rwkv6: bonus is missing");
  EXPECT_EQ(said(gated_delta_rule, kProduct, nothing), "gated_delta_rule: substeps is 2, expected 1");
  EXPECT_EQ(said(gla, kBonus, [](Call& c) { c.args.bonus = {}, c.args.normalize = true; }),
            "gla: normalize is set, expected a member without normaliser");
}

}  // namespace
}  // namespace ashlar
