// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/embedding.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

// The table's numbers in another element type, its rows four elements apart from each other.
template <class T>
std::vector<T> stored(Array<2>& table, Index rows, Index dim) {
  std::vector<T> s(static_cast<std::size_t>(rows * (dim + 4)));
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < dim; ++i)
      s[static_cast<std::size_t>(r * (dim + 4) + i)] = static_cast<T>(table.view()(r, i));
  return s;
}

TEST(Embedding, ScalesTheRowsItWasAskedFor) {
  std::mt19937 rng(1);
  for (Index tokens : {0, 1, 7, 700})
    for (Index dim : {1, 7, 63, 67, 130}) {
      Array<2> table({19, dim}), out({tokens, dim});
      table.normal(rng);
      std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
      for (auto& id : ids) id = static_cast<std::int32_t>(rng() % 19);
      if (tokens > 1) ids[0] = 0, ids[1] = 18;
      const auto f32 = stored<float>(table, 19, dim);
      const auto b16 = stored<bf16>(table, 19, dim);
      const auto h16 = stored<f16>(table, 19, dim);
      for (const auto& [data, type] : {std::pair<const void*, DType>{f32.data(), DType::f32},
                                       {b16.data(), DType::bf16},
                                       {h16.data(), DType::f16}}) {
        AnyView<2> view(data, type, {19, dim});
        view.strides[0] = dim + 4;
        std::vector<double> expected(static_cast<std::size_t>(tokens * dim));
        const View<double, 2> want(expected.data(), {tokens, dim});
        ref::embedding<double>({ids, view, want, 11.3125});
        for (CpuExec& exec : test::contexts()) {
          embedding({ids, view, out.poison().view(), 11.3125f}, exec);
          test::expect_close(out.view(), want, [&](Index i) {
            return test::kEps / 2 * std::abs(expected[static_cast<std::size_t>(i)]);
          });
          out.expect_padding_untouched();
        }
      }
    }
}

TEST(Embedding, RefusesBadIdsBeforeItWrites) {
  Array<2> table({4, 8}), out({3, 8});
  CpuExec exec;
  std::vector<std::int32_t> ids{0, 3, 4};
  EXPECT_EQ(test::refusal([&] {
              embedding({ids, table.cview(), out.view()}, exec);
            }),
            "embedding: ids[2] is 4, expected 0 to 3 (a table of 4 rows)");
  ids[2] = -1;
  EXPECT_EQ(test::refusal([&] {
              embedding({ids, table.cview(), out.view()}, exec);
            }),
            "embedding: ids[2] is -1, expected 0 to 3 (a table of 4 rows)");
  out.each([](float e) { EXPECT_TRUE(std::isnan(e)); });
}

TEST(Embedding, RefusesOtherTypesAndShapes) {
  Array<2> out({3, 8});
  CpuExec exec;
  const std::vector<std::int32_t> ids{0, 1, 2};
  const std::vector<double> d(64);
  EXPECT_EQ(test::refusal([&] {
              embedding({ids, {d.data(), DType::f64, {4, 8}}, out.view()}, exec);
            }),
            "embedding: the table holds f64, expected f32, bf16 or f16");
  EXPECT_EQ(test::refusal([&] {
              embedding({ids, {d.data(), DType::f32, {4, 7}}, out.view()}, exec);
            }),
            "embedding: out has shape [3, 8], expected [3, 7]");
}

}  // namespace
}  // namespace ashlar
