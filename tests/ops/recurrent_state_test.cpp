// SPDX-License-Identifier: Apache-2.0
// The state as a value: types, import and export, copies, bytes.
#include <functional>

#include "tests/ops/linear_recurrence_support.hpp"

namespace ashlar {
namespace {

using test::Expected;
using test::Inputs;
using test::Variant;

RecurrentState random_state(Index heads, Index dk, Index dv, DType dtype, unsigned seed) {
  return Inputs(test::ungrouped(1, heads, dk, dv), {}, 1, seed).state(seed, dtype);
}

TEST(RecurrentState, IsWhatWasImported) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Index dv : {1, 12, 63, 64, 65, 130}) {
      Tensor<float, 3> in({2, 7, dv}), out({2, 7, dv});
      for (Index i = 0; i < in.size(); ++i)  // exact in 8 bits
        in.data()[i] = static_cast<float>(i % 256 - 128) * (i % 3 == 0 ? 0x1p20f : 0x1p-20f);
      RecurrentState s(2, 7, dv, dtype);
      EXPECT_EQ(s.position(), 0);
      EXPECT_EQ(s.kept_tokens(), 0);
      EXPECT_EQ(test::largest(test::values(s).view()), 0);
      s.import_from(in.view(), 17);
      s.export_to(out.view());
      for (Index i = 0; i < in.size(); ++i) ASSERT_EQ(in.data()[i], out.data()[i]);
      EXPECT_EQ(s.position(), 17);
      EXPECT_EQ(s.dtype(), dtype);
      EXPECT_EQ(s.bytes(), 2 * 7 * ((dv + 63) / 64 * 64) * (dtype == DType::f32 ? 4 : 2));
      test::expect_zero_padding(s);
    }
}

TEST(RecurrentState, Bf16RoundsOnceATokenAtMost) {
  unsigned seed = 0;
  for (const test::Shape& shape : {test::Shape{1, 4, 24, 130, 2, 2, 4, 4}, {40, 2, 33, 63, 1, 1, 2, 2}})
    for (const Variant& v : test::variants({1, 2})) {
      SCOPED_TRACE(testing::Message() << shape << ", " << v);
      Inputs in(shape, v, 2, ++seed);
      const RecurrentState start = in.state(seed, DType::bf16);
      const Expected want(in, start);
      for (CpuExec& exec : test::contexts())
        for (const RecurrenceForm form :
             {RecurrenceForm::automatic, RecurrenceForm::recurrent, RecurrenceForm::chunk}) {
          in.out.poison();
          RecurrentState got = start;
          LinearRecurrence args = in.args();
          args.form = form;
          test::run(args, {&got, 1}, exec);
          want.expect_out(in.out.view(), test::kBf16);
          in.out.expect_padding_untouched();
          want.expect_state(got, 0, test::kBf16);
          test::expect_zero_padding(got);
          EXPECT_EQ(got.dtype(), DType::bf16);
          EXPECT_EQ(got.position(), shape.tokens);
          ASSERT_FALSE(HasFailure()) << "form " << static_cast<int>(form) << ", " << name(exec.isa());
        }
    }
}

// A step from a bf16 state is a step from the same numbers in f32, which is rounded when it is stored.
TEST(RecurrentState, OneBf16StepIsAnF32StepRounded) {
  CpuExec exec;
  for (const Variant& v : test::variants({1})) {
    SCOPED_TRACE(testing::Message() << v);
    Inputs in(test::ungrouped(1, 2, 24, 70), v, 1, 3);
    RecurrentState narrow = in.state(4, DType::bf16), wide(2, 24, in.columns());
    const Expected want(in, narrow);
    wide.import_from(test::values(narrow).view());
    test::run(in.args(), {&narrow, 1}, exec);
    want.expect_out(in.out.view());  // the read comes before the rounding
    test::run(in.args(), {&wide, 1}, exec);
    const Tensor<float, 3> a = test::values(narrow), b = test::values(wide);
    for (Index i = 0; i < a.size(); ++i)
      ASSERT_NEAR(a.data()[i], b.data()[i], 0x1p-8 * std::abs(b.data()[i]) + want.state_bound.data()[i]);
  }
}

TEST(RecurrentState, IsAValue) {
  CpuExec exec;
  Inputs in(test::ungrouped(5, 2, 24, 70), {test::Decay::vector, test::Transition::delta}, 1, 5);
  RecurrentState a = in.state(6);
  const RecurrentState before = a;
  RecurrentState b = a;
  test::run(in.args(), {&a, 1}, exec);
  EXPECT_TRUE(test::same(b.raw(), before.raw()));
  EXPECT_FALSE(test::same(a.raw(), before.raw()));
  test::run(in.args(), {&b, 1}, exec);
  EXPECT_TRUE(test::same(a.raw(), b.raw()));
  EXPECT_EQ(a.position(), b.position());
}

TEST(RecurrentState, SavesAndRestores) {
  CpuExec exec;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Index dv : {1, 64, 70}) {
      RecurrentState s = random_state(2, 5, dv, dtype, 7);
      s.import_from(test::values(s).view(), 123456789012);
      s.keep_updates(3);
      const std::vector<std::byte> saved = s.save();
      for (RecurrentState into : {RecurrentState(), RecurrentState(2, 5, dv, dtype), s}) {
        into.restore(saved);
        EXPECT_TRUE(test::same(into.raw(), s.raw()));
        EXPECT_EQ(into.position(), 123456789012);
        EXPECT_EQ(into.heads(), 2);
        EXPECT_EQ(into.key_dim(), 5);
        EXPECT_EQ(into.value_dim(), dv);
        EXPECT_EQ(into.dtype(), dtype);
        EXPECT_EQ(into.kept_tokens(), 0);
        EXPECT_TRUE(test::same(into.save(), saved));
      }
    }
  // What is saved is S and where it is, not what could be taken back.
  RecurrentState s = random_state(2, 16, 20, DType::f32, 8), plain = s;
  Inputs in(test::ungrouped(1, 2, 16, 20), {test::Decay::scalar, test::Transition::delta}, 1, 9);
  s.keep_updates(4);
  for (int t = 0; t < 3; ++t) test::run(in.args(), {&s, 1}, exec);
  plain.restore(s.save());
  EXPECT_TRUE(test::same(s.raw(), plain.raw()));
  EXPECT_EQ(plain.position(), 3);
  EXPECT_EQ(plain.kept_tokens(), 0);
}

TEST(RecurrentState, SavedBytesDoNotDependOnHistory) {
  const RecurrentState a = random_state(1, 4, 6, DType::f32, 10);
  RecurrentState b = a;
  b.keep_updates(8);
  EXPECT_TRUE(test::same(a.save(), b.save()));
}

// Bytes that are not what save() writes are refused and change nothing. What is accepted is what save() then
// writes again: a restored state is never anything else than the bytes say.
void expect_refused_or_itself(const std::vector<std::byte>& bytes, const RecurrentState& before,
                              const std::string& what) {
  RecurrentState s = before;
  try {
    s.restore(bytes);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), "InvalidState") << what << ": " << e.what();
    EXPECT_TRUE(test::same(s.raw(), before.raw())) << what;
    EXPECT_EQ(s.position(), before.position()) << what;
    EXPECT_EQ(s.kept_tokens(), before.kept_tokens()) << what;
    return;
  }
  EXPECT_TRUE(test::same(s.save(), bytes)) << what << " was taken for something else";
  EXPECT_GE(s.position(), 0) << what;
  EXPECT_TRUE(s.dtype() == DType::f32 || s.dtype() == DType::bf16) << what;
  test::expect_zero_padding(s);
}

void expect_invalid(const std::vector<std::byte>& bytes, const RecurrentState& before, const char* what) {
  RecurrentState s = before;
  try {
    s.restore(bytes);
    ADD_FAILURE() << what << " was restored";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), "InvalidState") << what << ": " << e.what();
    EXPECT_EQ(std::string(e.what()).rfind("saved state: ", 0), 0u) << e.what();
  }
  EXPECT_TRUE(test::same(s.raw(), before.raw())) << what;
}

TEST(RecurrentState, RefusesHostileBytes) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const RecurrentState saved = random_state(2, 3, 4, dtype, 11), before = random_state(2, 3, 4, dtype, 12);
    const std::vector<std::byte> good = saved.save();
    ASSERT_FALSE(good.empty());
    for (std::size_t n = 0; n < good.size(); ++n)
      expect_invalid({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)}, before, "a piece");
    std::vector<std::byte> longer = good;
    longer.push_back(std::byte(0));
    expect_invalid(longer, before, "one byte more");
    std::vector<std::byte> magic = good;
    magic[0] ^= std::byte(0xff);
    expect_invalid(magic, before, "another magic");
    expect_invalid(std::vector<std::byte>(good.size(), std::byte(0)), before, "zeros");
    expect_invalid(std::vector<std::byte>(good.size(), std::byte(0xff)), before, "ones");
    expect_invalid(std::vector<std::byte>(1000, std::byte('{')), before, "text");

    // Any byte of it another, and any word of it huge, negative or zero: shapes whose sizes overflow, types
    // that do not exist, positions before the first.
    for (std::size_t at = 0; at < good.size(); ++at) {
      for (const unsigned mask : {1u, 2u, 0x80u, 0xffu}) {
        std::vector<std::byte> bad = good;
        bad[at] ^= std::byte(mask);
        // A value's own bits may be others, except that a NaN's do not survive a conversion.
        expect_refused_or_itself(bad, before, concat("byte ", at, " other by ", static_cast<int>(mask)));
        if (HasFailure()) return;
      }
      for (const std::uint64_t word :
           {0x7fffffffffffffffull, 0xffffffffffffffffull, 0x4000000000000000ull, 0x0000000100000000ull, 0ull})
        for (const std::size_t width : {std::size_t(4), std::size_t(8)}) {
          std::vector<std::byte> bad = good;
          for (std::size_t i = 0; i < width && at + i < bad.size(); ++i)
            bad[at + i] = std::byte(word >> (8 * (8 - width + i)));
          expect_refused_or_itself(bad, before, concat("word at ", at));
          if (HasFailure()) return;
        }
    }
  }
}

TEST(RecurrentState, IsRestoredOfAnyShapeOrNotAtAll) {
  const RecurrentState before = random_state(2, 3, 4, DType::f32, 13);
  for (const RecurrentState& other :
       {random_state(2, 3, 5, DType::f32, 14), random_state(2, 3, 4, DType::bf16, 15),
        random_state(3, 2, 4, DType::f32, 16)})
    expect_refused_or_itself(other.save(), before, "another shape or type");
}

TEST(RecurrentState, RefusesBadArguments) {
  using test::refusal;
  EXPECT_EQ(refusal([] { RecurrentState(2, 3, 4, DType::f16); }),
            "RecurrentState: dtype is f16, expected f32 or bf16");
  EXPECT_EQ(refusal([] { RecurrentState(2, 0, 4); }),
            "RecurrentState: heads, key_dim and value_dim are 2, 0 and 4, expected positive numbers");
  const Index huge = Index(1) << 40;
  EXPECT_EQ(refusal([&] { RecurrentState(huge, huge, 64); }),
            "RecurrentState: heads, key_dim and value_dim are 1099511627776, 1099511627776 and 64, whose "
            "product overflows");
  RecurrentState s(2, 3, 4);
  Tensor<float, 3> wrong({2, 4, 3}), right({2, 3, 4});
  EXPECT_EQ(refusal([&] { s.import_from(wrong.view()); }),
            "RecurrentState: the imported state has shape [2, 4, 3], expected [2, 3, 4]");
  EXPECT_EQ(refusal([&] { s.export_to(wrong.view()); }),
            "RecurrentState: the exported state has shape [2, 4, 3], expected [2, 3, 4]");
  EXPECT_EQ(refusal([&] { s.import_from(right.view(), -1); }),
            "RecurrentState: position is -1, expected 0 or more");
  EXPECT_EQ(refusal([&] { s.keep_updates(-1); }),
            "RecurrentState: tokens is -1 and substeps 1, expected 0 or more and 1 or more");
  EXPECT_EQ(refusal([&] { s.rollback(1); }),
            "RecurrentState: 1 tokens were to be taken back, expected 0 to 0");
  EXPECT_EQ(refusal([&] { s.rollback(-1); }),
            "RecurrentState: -1 tokens were to be taken back, expected 0 to 0");
  EXPECT_NO_THROW(s.rollback(0));
}

}  // namespace
}  // namespace ashlar
