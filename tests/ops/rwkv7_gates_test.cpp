// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ref/rwkv7_gates.hpp"

#include "tests/support.hpp"

namespace ashlar {
namespace {

using test::Array;

TEST(Rwkv7Values, MatchTheEquation) {
  std::mt19937 rng(1);
  for (const auto& shape : {std::array<Index, 2>{1, 1}, {7, 63}, {130, 67}, {0, 5}, {3, 1100}}) {
    Array<2> v(shape), first(shape), gate(shape), out(shape);
    v.normal(rng), first.normal(rng), gate.normal(rng, 4);
    std::vector<double> expected(static_cast<std::size_t>(v.count()));
    const View<double, 2> want(expected.data(), shape);
    ref::rwkv7_values<double>({v.exact(), first.exact(), gate.exact(), want});
    for (CpuExec& exec : test::contexts()) {
      rwkv7_values({v.cview(), first.cview(), gate.cview(), out.poison().view()}, exec);
      // A sigmoid of 3 ulp times a difference of up to 10, and a sum.
      test::expect_close(out.view(), want, [](Index) { return 5 * test::kEps * 10; });
      out.expect_padding_untouched();
    }
  }
}

struct Shape {
  Index tokens, heads, dim, value_dim;
};
constexpr Shape kShapes[] = {{1, 1, 1, 1},     {7, 2, 63, 63}, {5, 3, 67, 134},
                             {130, 2, 16, 16}, {0, 2, 16, 32}, {3, 1, 128, 7}};

TEST(Rwkv7Keys, MatchTheEquation) {
  std::mt19937 rng(2);
  for (const Shape& s : kShapes)
    for (double eps : {1e-6, 1e-24}) {
      const std::array<Index, 3> shape{s.tokens, s.heads, s.dim};
      Array<3> k(shape), gate(shape), key(shape), a(shape), b(shape);
      Array<2> k_k({s.heads, s.dim}), k_a({s.heads, s.dim});
      k.normal(rng), gate.normal(rng, 3), k_k.normal(rng), k_a.normal(rng);
      const auto n = static_cast<std::size_t>(k.count());
      std::vector<double> keys(n), as(n), bs(n);
      const Rwkv7KeysArgs<double> want{
          k.exact(),          gate.exact(),       k_k.exact(), k_a.exact(), {keys.data(), shape},
          {as.data(), shape}, {bs.data(), shape}, eps};
      ref::rwkv7_keys(want);
      for (CpuExec& exec : test::contexts()) {
        Array<3> over = k;  // the keys may be written over k
        rwkv7_keys({over.cview(), gate.cview(), k_k.cview(), k_a.cview(), over.view(), a.poison().view(),
                    b.poison().view(), static_cast<float>(eps)},
                   exec);
        const double unit = (8 + static_cast<double>(s.dim) / 16) * test::kEps;
        test::expect_close(over.view(), want.key, [](Index) { return 8 * test::kEps * 5 * 6; });
        test::expect_close(a.view(), want.a,
                           [&](Index i) { return unit * std::abs(as[static_cast<std::size_t>(i)]); });
        test::expect_close(b.view(), want.b, [&](Index i) {
          return (unit + 4 * test::kEps) * std::abs(bs[static_cast<std::size_t>(i)]);
        });
        a.expect_padding_untouched(), b.expect_padding_untouched();
      }
    }
}

TEST(Rwkv7Keys, OfZeroAreZero) {
  float k[7] = {}, gate[7] = {}, ones[] = {1, 1, 1, 1, 1, 1, 1}, a[7], b[7];
  for (CpuExec& exec : test::contexts()) {
    rwkv7_keys({{k, {1, 1, 7}},
                {gate, {1, 1, 7}},
                {ones, {1, 7}},
                {ones, {1, 7}},
                {k, {1, 1, 7}},
                {a, {1, 1, 7}},
                {b, {1, 1, 7}},
                1e-24f},
               exec);
    for (int i = 0; i < 7; ++i) EXPECT_TRUE(k[i] == 0 && a[i] == 0 && b[i] == 0);
  }
}

TEST(Rwkv7Output, MatchesTheEquation) {
  std::mt19937 rng(3);
  for (const Shape& s : kShapes) {
    const std::array<Index, 3> shape{s.tokens, s.heads, s.value_dim};
    Array<3> x(shape), v(shape), gate(shape), out(shape), r({s.tokens, s.heads, s.dim}),
        k({s.tokens, s.heads, s.dim});
    Array<2> r_k({s.heads, s.dim});
    x.normal(rng), v.normal(rng), gate.normal(rng), r.normal(rng), k.normal(rng), r_k.normal(rng);
    std::vector<double> expected(static_cast<std::size_t>(x.count()));
    const Rwkv7OutputArgs<double> want{
        x.exact(), r.exact(), k.exact(), r_k.exact(), v.exact(), gate.exact(), {expected.data(), shape}};
    ref::rwkv7_output(want);
    for (CpuExec& exec : test::contexts()) {
      rwkv7_output(
          {x.cview(), r.cview(), k.cview(), r_k.cview(), v.cview(), gate.cview(), out.poison().view()}, exec);
      // dim products of three normal numbers, their sum times two more.
      const double unit = (4 + static_cast<double>(s.dim) / 16) * test::kEps;
      test::expect_close(out.view(), want.out,
                         [&](Index) { return unit * (5 + std::sqrt(double(s.dim)) * 30) * 5; });
      out.expect_padding_untouched();
    }
  }
}

TEST(Rwkv7Gates, DoNotDependOnThreads) {
  std::mt19937 rng(4);
  const std::array<Index, 3> shape{700, 3, 67};
  Array<3> k(shape), gate(shape), v(shape), a(shape), b(shape), key(shape), out(shape), other(shape),
      third(shape);
  Array<2> w({3, 67});
  k.normal(rng), gate.normal(rng), v.normal(rng), w.normal(rng);
  CpuExec single({1}), three({3});
  rwkv7_keys({k.cview(), gate.cview(), w.cview(), w.cview(), key.view(), a.view(), b.view()}, single);
  rwkv7_keys({k.cview(), gate.cview(), w.cview(), w.cview(), out.view(), other.view(), third.view()}, three);
  test::expect_close(out.view(), key.cview(), [](Index) { return 0; });
  test::expect_close(other.view(), a.cview(), [](Index) { return 0; });
  test::expect_close(third.view(), b.cview(), [](Index) { return 0; });
  rwkv7_output({v.cview(), k.cview(), a.cview(), w.cview(), v.cview(), gate.cview(), out.view()}, single);
  rwkv7_output({v.cview(), k.cview(), a.cview(), w.cview(), v.cview(), gate.cview(), other.view()}, three);
  test::expect_close(other.view(), out.cview(), [](Index) { return 0; });
}

TEST(Rwkv7Gates, RefuseShapesThatDiffer) {
  Array<3> x({2, 3, 8}), y({2, 3, 7});
  Array<2> w({3, 8}), flat({2, 8}), short_one({2, 7});
  CpuExec exec;
  EXPECT_EQ(test::refusal([&] {
              rwkv7_values({flat.cview(), short_one.cview(), flat.cview(), flat.view()}, exec);
            }),
            "rwkv7_values: first has shape [2, 7], expected [2, 8]");
  EXPECT_EQ(test::refusal([&] {
              rwkv7_keys({x.cview(), y.cview(), w.cview(), w.cview(), x.view(), x.view(), x.view()}, exec);
            }),
            "rwkv7_keys: gate has shape [2, 3, 7], expected [2, 3, 8]");
  EXPECT_EQ(
      test::refusal([&] {
        rwkv7_output({x.cview(), y.cview(), x.cview(), w.cview(), x.cview(), x.cview(), x.view()}, exec);
      }),
      "rwkv7_output: k has shape [2, 3, 8], expected [2, 3, 7]");
}

}  // namespace
}  // namespace ashlar
