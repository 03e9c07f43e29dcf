// SPDX-License-Identifier: Apache-2.0
// Softmax attention of many queries, of 16 bits: every shape of Hopper's kernel where there is one, else the
// portable kernel of the same calls.
#include "ashlar/cuda/graph.hpp"
#include "ashlar/ref/softmax_attention.hpp"
#include "tests/cuda/support.hpp"
#include "tests/support.hpp"

namespace ashlar::test {
namespace {

struct Lengths {
  Index queries, keys;
};

struct Shape {
  Index heads = 2, kv_heads = 1, dim = 128, value_dim = 128;
};

constexpr Shape kShapes[] = {{3, 3, 64, 64},   {4, 2, 40, 24},   {2, 1, 80, 80},   {2, 2, 96, 96},
                             {6, 2, 128, 128}, {2, 2, 192, 128}, {2, 1, 256, 256}, {2, 1, 112, 64}};

const std::vector<std::vector<Lengths>> kBatches = {
    {{256, 256}},
    {{77, 333}},
    {{300, 170}, {5, 0}},
    {{1, 1}, {130, 500}, {0, 7}, {300, 300}, {0, 0}, {64, 64}, {129, 700}},
    {{9, 9}, {1, 40}, {0, 0}, {33, 33}, {200, 200}, {2, 3}, {17, 129}, {128, 128}, {64, 65}, {5, 300}},
};

struct Options {
  const char* name;
  AttentionPattern pattern{};
  float scale = 0, soft_cap = 0;
  bool sinks = false;
};

const Options kOptions[] = {{"full"},
                            {"causal", {.causal = true}},
                            {"causal window", {.causal = true, .left = 70}},
                            {"window both ways", {.left = 33, .right = 129}},
                            {"capped, sinks", {.causal = true}, 0.3f, 4, true},
                            {"full, sinks", {}, 0, 0, true}};

template <class T>
class Problem {
 public:
  Problem(const Shape& s, const std::vector<Lengths>& lengths, const Options& o) {
    for (const Lengths& l : lengths) {
      offsets_.push_back(offsets_.back() + l.queries);
      k_.push_back(Both<T, 3>::random({l.keys, s.kv_heads, s.dim}, seed_++, -2, 2, 8));
      v_.push_back(Both<T, 3>::random({l.keys, s.kv_heads, s.value_dim}, seed_++, -2, 2, 8));
    }
    const Index tokens = offsets_.back();
    q_ = Both<T, 3>::random({tokens, s.heads, s.dim}, seed_++, -2, 2, 16);
    out_ = Both<T, 3>({tokens, s.heads, s.value_dim}, 8);
    lse_ = Both<float, 2>({tokens, s.heads}, 1);
    sinks_ = Both<float, 1>::random({s.heads}, seed_++, -1, 3);
    for (std::size_t n = 0; n < k_.size(); ++n)
      sequences_.push_back({std::as_const(k_[n]).device(), std::as_const(v_[n]).device()});
    args = {
        .q = std::as_const(q_).device(), .offsets = offsets_, .sequences = sequences_, .out = out_.device()};
    args.pattern = o.pattern, args.lse = lse_.device();
    args.score.scale = o.scale, args.score.soft_cap = o.soft_cap;
    if (o.sinks) args.score.sinks = std::as_const(sinks_).device();
  }

  void expect() {
    const auto [tokens, heads, value_dim] = args.out.shape;
    Tensor<double, 3> out({tokens, heads, value_dim});
    Tensor<double, 2> lse({tokens, heads});
    std::vector<Tensor<double, 3>> exact;
    std::vector<KeyValueArgs<double>> sequences;
    for (std::size_t n = 0; n < k_.size(); ++n) {
      exact.push_back(k_[n].wide()), exact.push_back(v_[n].wide());
      sequences.push_back({std::as_const(exact[2 * n]).view(), std::as_const(exact[2 * n + 1]).view()});
    }
    const Tensor<double, 3> q = q_.wide();
    const Tensor<double, 1> sinks = sinks_.wide();
    SoftmaxAttentionArgs<double> x{q.view(), args.offsets, sequences, out.view(), args.pattern};
    x.score.scale = static_cast<double>(args.score.scale);
    x.score.soft_cap = static_cast<double>(args.score.soft_cap);
    if (args.score.sinks) x.score.sinks = sinks.view();
    x.lse = lse.view();
    ref::softmax_attention(x);
    EXPECT_LE(error_of(out_, out), kRounded);
    lse_.download();
    for (Index i = 0; i < tokens; ++i)
      for (Index h = 0; h < heads; ++h) {
        const double got = static_cast<double>(lse_.host()(i, h)), want = lse.view()(i, h);
        ASSERT_TRUE(got == want || std::abs(got - want) <= 2e-3 * (1 + std::abs(want)))
            << "lse of query " << i << ", head " << h << ": " << got << ", expected " << want;
      }
  }

  std::vector<float> bits() {
    out_.download();
    const Tensor<double, 3> wide = out_.wide();
    return {wide.data(), wide.data() + wide.size()};
  }

  SoftmaxAttentionArgs<float, T, T, T> args;

 private:
  unsigned seed_ = 1;
  std::vector<Index> offsets_{0};
  std::vector<Both<T, 3>> k_, v_;
  Both<T, 3> q_, out_;
  Both<float, 2> lse_;
  Both<float, 1> sinks_;
  std::vector<KeyValueArgs<T>> sequences_;
};

class AttentionPrefill : public CudaTest {};

template <class T>
void every_shape() {
  CudaExec exec;
  for (const Shape& s : kShapes)
    for (std::size_t b = 0; b < kBatches.size(); ++b)
      for (const Options& o : kOptions) {
        SCOPED_TRACE(concat(o.name, ", dims ", s.dim, " and ", s.value_dim, ", batch ", b));
        Problem<T> p(s, kBatches[b], o);
        // The reference refuses more queries than positions where something depends on positions.
        bool positions = true;
        for (const Lengths& l : kBatches[b]) positions = positions && l.queries <= l.keys;
        if (!positions && (o.pattern.causal || o.pattern.left >= 0)) continue;
        softmax_attention(p.args, exec);
        exec.synchronize();
        p.expect();
        if (testing::Test::HasFatalFailure()) return;
      }
}

TEST_F(AttentionPrefill, IsTheEquationBf16) { every_shape<bf16>(); }
TEST_F(AttentionPrefill, IsTheEquationF16) { every_shape<f16>(); }

// More tiles than multiprocessors: blocks take one after another.
TEST_F(AttentionPrefill, ManyTiles) {
  CudaExec exec;
  Problem<bf16> p({40, 8, 64, 64}, {{700, 700}}, {"", {.causal = true}});
  softmax_attention(p.args, exec);
  exec.synchronize();
  p.expect();
  const auto first = p.bits();
  softmax_attention(p.args, exec);
  exec.synchronize();
  EXPECT_EQ(p.bits(), first);
}

// A sequence's rows are the same whatever is beside it.
TEST_F(AttentionPrefill, BatchMates) {
  CudaExec exec;
  const Options causal{"", {.causal = true}};
  Problem<bf16> alone({2, 1, 128, 128}, {{200, 450}}, causal);
  Problem<bf16> together({2, 1, 128, 128}, {{200, 450}, {64, 64}, {900, 900}}, causal);
  // The same first queries, keys and values.
  const Index row = 2 * (128 + 16);
  detail::device_copy(const_cast<bf16*>(together.args.q.data), alone.args.q.data,
                      static_cast<std::size_t>(200 * row) * sizeof(bf16), detail::CopyKind::on_device);
  softmax_attention(alone.args, exec);
  softmax_attention(together.args, exec);
  exec.synchronize();
  const auto one = alone.bits();
  auto all = together.bits();
  all.resize(one.size());
  EXPECT_EQ(all, one);
}

TEST_F(AttentionPrefill, IsRecorded) {
  CudaExec exec;
  Problem<bf16> p({8, 2, 128, 128}, {{300, 300}, {70, 200}}, {"", {.causal = true}});
  CudaGraph graph;
  for (int i = 0; i < 4; ++i) {
    graph.run(exec, [&] { softmax_attention(p.args, exec); });
    exec.synchronize();
    p.expect();
  }
  EXPECT_EQ(graph.last(), CudaGraph::Run::replayed);
}

}  // namespace
}  // namespace ashlar::test
