// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/view.hpp"

#include <vector>

#include "ashlar/core/offsets.hpp"
#include "ashlar/core/tensor.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

TEST(View, AddressesSlicesAndSplits) {
  std::vector<int> data(2 * 3 * 8);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<int>(i);
  const View<int, 3> v(data.data(), {2, 3, 8});
  EXPECT_TRUE(v.packed());
  EXPECT_EQ(v(1, 2, 3), 43);
  EXPECT_EQ(v[1][2].data, v.at(1, 2));
  const auto middle = v.slice(2, 2, 6);
  EXPECT_EQ(middle.shape, (std::array<Index, 3>{2, 3, 4}));
  EXPECT_EQ(middle(1, 0, 0), 26);
  EXPECT_FALSE(middle.packed());
  EXPECT_TRUE(middle.rows_contiguous());
  const auto pairs = v.split(2, 2);
  EXPECT_EQ(pairs.shape, (std::array<Index, 4>{2, 3, 4, 2}));
  EXPECT_EQ(pairs(1, 2, 3, 1), v(1, 2, 7));
  const View<const int, 3> read_only = v;
  EXPECT_EQ(read_only.data, v.data);
  EXPECT_FALSE((View<int, 2>()));
}

TEST(View, ExpectShapeSaysWhatWasWrong) {
  float x[4] = {};
  const View<float, 2> v(x, {2, 2});
  EXPECT_EQ(test::refusal([&] {
              expect_shape("op", "x", v, {2, 3});
            }),
            "op: x has shape [2, 2], expected [2, 3]");
  EXPECT_EQ(test::refusal([&] {
              expect_shape("op", "x", View<float, 2>(nullptr, {2, 2}), {2, 2});
            }),
            "op: x of shape [2, 2] has no data");
  EXPECT_EQ(test::refusal([&] {
              expect_shape("op", "x", View<float, 2>(x, {2, 2}, {1, 2}), {2, 2});
            }),
            "op: x has stride 2 on its last axis, expected 1");
}

TEST(Tensor, IsAValueAndRefusesImpossibleShapes) {
  Tensor<float, 2> a({2, 3});
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % 64, 0u);
  for (Index i = 0; i < 6; ++i) EXPECT_EQ(a.data()[i], 0);
  a.view()(1, 2) = 5;
  Tensor<float, 2> b = a;
  a.view()(1, 2) = 7;
  EXPECT_EQ(b.view()(1, 2), 5);
  b = std::move(a);
  EXPECT_EQ(b.view()(1, 2), 7);
  EXPECT_FALSE(a);  // NOLINT(bugprone-use-after-move): moved from is empty
  EXPECT_EQ(test::refusal([] { Tensor<float, 2>({-1, 3}); }), "Tensor: shape [-1, 3] has a negative extent");
  constexpr Index kHuge = Index{1} << 40;
  EXPECT_EQ(test::refusal([] {
              Tensor<float, 2>({kHuge, kHuge});
            }),
            "Tensor: shape [1099511627776, 1099511627776] overflows");
  EXPECT_EQ(test::refusal([] { Tensor<float, 1>({Index{1} << 60}); }),
            "Tensor: no memory for 4611686018427387904 bytes");
}

TEST(Offsets, AreChecked) {
  const std::vector<Index> good = {0, 3, 3, 7}, late = {1, 7}, down = {0, 4, 2, 7};
  Offsets(good).check("op", 7);
  EXPECT_EQ(Offsets(good).count(), 3);
  EXPECT_EQ(Offsets().count(), 1);
  EXPECT_EQ(Offsets().end(0, 7), 7);
  EXPECT_EQ(test::refusal([&] { Offsets(good).check("op", 8); }), "op: offsets end at 7, expected 8 tokens");
  EXPECT_EQ(test::refusal([&] { Offsets(late).check("op", 7); }), "op: offsets[0] is 1, expected 0");
  EXPECT_EQ(test::refusal([&] { Offsets(down).check("op", 7); }),
            "op: offsets[2] is 2, less than the one before it, 4");
}

}  // namespace
}  // namespace ashlar
