// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/dense.hpp"

#include "ashlar/core/dense_weight.hpp"

#include <cstring>

#include "ashlar/ref/dense.hpp"
#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

struct Shape {
  Index m, n, k;
};
const Shape kShapes[] = {{1, 1, 1},      {1, 7, 63},   {3, 130, 67},   {5, 128, 16},
                         {17, 300, 130}, {64, 5, 160}, {128, 256, 64}, {129, 77, 96},
                         {300, 129, 33}, {2, 4, 1025}, {0, 5, 8},      {9, 400, 600}};

// The values of `w` in bf16, and `w` rounded to them.
std::vector<bf16> rounded(Array<2>& w, const Shape& s) {
  std::vector<bf16> values;
  for (Index i = 0; i < s.n; ++i)
    for (Index j = 0; j < s.k; ++j) {
      values.emplace_back(w.view()(i, j));
      w.view()(i, j) = static_cast<float>(values.back());
    }
  return values;
}

TEST(Dense, MatchesTheEquationInBothPhasesAndTypes) {
  std::mt19937 rng(1);
  for (const Shape& s : kShapes) {
    Array<2> x({s.m, s.k}), w({s.n, s.k}), out({s.m, s.n});
    Array<1> bias({s.n});
    x.normal(rng), w.normal(rng), bias.normal(rng);
    const std::vector<bf16> narrow = rounded(w, s);
    Tensor<double, 2> want({s.m, s.n});
    ref::dense<double>(x.exact(), w.exact(), bias.exact(), want.view());
    // Sums of K products: about sqrt(K) roundings of sums as large as sqrt(K), a margin of 4.
    const double bound = test::kEps * (4 * static_cast<double>(s.k) + 8);
    for (CpuExec& exec : test::contexts())
      for (const Phase phase : {Phase::prefill, Phase::decode})
        for (const int kind : {0, 1, 2}) {
          SCOPED_TRACE(testing::Message()
                       << s.m << "x" << s.n << "x" << s.k << " kind " << kind << " phase " << int(phase));
          DenseWeight weight = kind == 2 ? DenseWeight(AnyView<2>(narrow.data(), DType::bf16, {s.n, s.k}))
                                         : DenseWeight(w.cview());
          if (kind == 1) weight.pack(exec);
          out.poison();
          dense({x.cview(), weight, bias.cview(), out.view(), phase}, exec);
          test::expect_close(out.view(), want.view(), [&](Index) { return bound; });
          out.expect_padding_untouched();
        }
  }
}

// One row's result is the same bits alone, among others, at any place, and with any number of threads.
TEST(Dense, RowsDoNotDependOnTheirBatch) {
  std::mt19937 rng(2);
  for (const Shape& s : {Shape{300, 200, 160}, Shape{200, 96, 77}, Shape{140, 640, 512}}) {
    Array<2> x({s.m, s.k}), w({s.n, s.k});
    x.normal(rng), w.normal(rng);
    const std::vector<bf16> narrow = rounded(w, s);
    CpuExec one({1}), three({3});
    for (const Phase phase : {Phase::prefill, Phase::decode})
      for (const int kind : {0, 1, 2}) {
        SCOPED_TRACE(testing::Message()
                     << s.m << "x" << s.n << "x" << s.k << " kind " << kind << " phase " << int(phase));
        DenseWeight weight = kind == 2 ? DenseWeight(AnyView<2>(narrow.data(), DType::bf16, {s.n, s.k}))
                                       : DenseWeight(w.cview());
        if (kind == 1) weight.pack(one);
        Tensor<float, 2> whole({s.m, s.n}), part({s.m, s.n});
        dense({x.cview(), weight, {}, whole.view(), phase}, three);
        for (const auto& [begin, rows] :
             {std::pair<Index, Index>(0, 1), {s.m - 1, 1}, {7, 5}, {3, 16}, {1, 64}, {60, 70}}) {
          dense({x.cview().slice(0, begin, begin + rows), weight, {}, part.view().slice(0, 0, rows), phase},
                one);
          for (Index r = 0; r < rows; ++r)
            ASSERT_EQ(std::memcmp(part.view().at(r), whole.view().at(begin + r),
                                  sizeof(float) * static_cast<std::size_t>(s.n)),
                      0)
                << "row " << begin + r << " of " << rows;
        }
      }
  }
}

// As wide as real layers: products large enough for the library to want scratch memory of its own.
TEST(Dense, WideLayersAreBitEqualForAnyThreads) {
  std::mt19937 rng(3);
  const Shape s{256, 1024, 2048};
  Array<2> x({s.m, s.k}, 0), w({s.n, s.k}, 0), one({s.m, s.n}, 0), more({s.m, s.n}, 0);
  x.normal(rng), w.normal(rng);
  const std::vector<bf16> narrow = rounded(w, s);
  CpuExec alone({1});
  for (const bool wide : {false, true}) {
    const DenseWeight weight =
        wide ? DenseWeight(w.cview()) : DenseWeight(AnyView<2>(narrow.data(), DType::bf16, {s.n, s.k}));
    dense({x.cview(), weight, {}, one.view(), Phase::prefill}, alone);
    for (const int threads : {2, 3}) {
      CpuExec exec({threads});
      dense({x.cview(), weight, {}, more.poison().view(), Phase::prefill}, exec);
      for (Index m = 0; m < s.m; ++m)
        ASSERT_EQ(
            std::memcmp(one.view().at(m), more.view().at(m), sizeof(float) * static_cast<std::size_t>(s.n)),
            0)
            << "row " << m << ", threads " << threads;
    }
  }
}

// Layers of one call have the bits that each has alone: of several sizes and types, some with the same input.
TEST(Dense, SeveralLayersAreEachOfThem) {
  std::mt19937 rng(4);
  std::vector<Shape> shapes{{5, 70, 33}, {130, 64, 33}, {0, 9, 33}, {1, 300, 96}, {17, 3, 96}, {260, 90, 33}};
  std::vector<Array<2>> inputs, weights, together, alone;
  std::vector<std::vector<bf16>> narrow;
  for (const Shape& s : shapes) {
    inputs.emplace_back(std::array{s.m, s.k}), weights.emplace_back(std::array{s.n, s.k});
    inputs.back().normal(rng), weights.back().normal(rng);
    narrow.push_back(rounded(weights.back(), s));
    for (int twice = 0; twice < 2; ++twice)
      together.emplace_back(std::array{s.m, s.n}), alone.emplace_back(std::array{s.m, s.n});
  }
  CpuExec one({1}), three({3});
  for (const Phase phase : {Phase::prefill, Phase::decode})
    for (const int kind : {0, 1, 2, 3}) {
      std::vector<DenseWeight> kept;
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        const bool bf = kind == 2 || (kind == 3 && i % 2 == 0);
        kept.push_back(bf ? DenseWeight(AnyView<2>(narrow[i].data(), DType::bf16, {shapes[i].n, shapes[i].k}))
                          : DenseWeight(weights[i].cview()));
        if (kind == 1) kept.back().pack(one);
      }
      for (CpuExec* exec : {&one, &three}) {
        std::vector<Dense> layers;
        for (std::size_t i = 0; i < 2 * shapes.size(); ++i) {
          layers.push_back({inputs[i / 2].cview(), kept[i / 2], {}, together[i].poison().view(), phase});
          dense({inputs[i / 2].cview(), kept[i / 2], {}, alone[i].poison().view(), phase}, one);
        }
        dense(layers, *exec);
        for (std::size_t i = 0; i < layers.size(); ++i) {
          test::expect_close(together[i].cview(), alone[i].cview(), [](Index) { return 0; });
          together[i].expect_padding_untouched();
        }
      }
    }
  dense(std::span<const Dense>(), one);
}

TEST(Dense, RefusesBadInput) {
  Array<2> x({2, 8}), w({4, 7}), out({2, 4});
  CpuExec exec;
  const DenseWeight weight(w.cview());
  EXPECT_EQ(test::refusal([&] {
              dense({x.cview(), weight, {}, out.view()}, exec);
            }),
            "dense: x has shape [2, 8], expected [2, 7]");
  EXPECT_EQ(test::refusal([&] {
              DenseWeight(AnyView<2>(w.cview().data, DType::f16, {4, 7}));
            }),
            "DenseWeight: the element type is f16, expected f32 or bf16");
  Array<2> narrow({2, 7});
  narrow.each([](float& e) { e = 1; });
  const Dense layers[] = {{narrow.cview(), weight, {}, out.view(), Phase::prefill},
                          {narrow.cview(), weight, {}, out.view(), Phase::decode}};
  EXPECT_EQ(test::refusal([&] { dense(layers, exec); }),
            "dense: the layers of a call are of both phases, expected one");
}

}  // namespace
}  // namespace ashlar
