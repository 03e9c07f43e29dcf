// SPDX-License-Identifier: Apache-2.0
// custom_attention: softmax attention with a mask and a score of one's own, compared with the plain sum.
#include <cmath>
#include <cstdio>

#include "ashlar/kernels/custom_attention-inl.hpp"

namespace hn = hwy::HWY_NAMESPACE;
using namespace ashlar::attention;
using ashlar::Index;
// A token sees its own paragraph, and headings (paragraph 0). `of` has 64 more elements than there are keys.
struct Paragraphs : AnyKey {
  const int* of;
  bool sees(Index i, Index j) const { return of[j] == of[i] || of[j] == 0; }
  KeyMask visible(IntTag d, const AttentionRow& row, IntVec keys) const {
    const auto paragraph = hn::LoadU(d, of + hn::GetLane(keys));
    return hn::Or(hn::Eq(paragraph, hn::Set(d, of[row.position])), hn::Eq(paragraph, hn::Zero(d)));
  }
};
// Scores fall with the square of the distance.
struct SquaredDistance {
  float slope(Index head) const { return 1e-4f / static_cast<float>(head + 1); }
  FloatVec operator()(FloatTag d, const AttentionRow& row, IntVec keys, Index, FloatVec x) const {
    const IntTag di;
    const auto far = hn::ConvertTo(d, hn::Sub(keys, hn::Set(di, static_cast<int>(row.position))));
    return hn::NegMulAdd(hn::Mul(far, far), hn::Set(d, slope(row.head)), x);
  }
};

int main() {
  constexpr Index T = 300, H = 2, D = 32;
  ashlar::Tensor<float, 3> q({T, H, D}), k({T, H, D}), v({T, H, D}), out({T, H, D});
  for (int i = 0; i < T * H * D; ++i) {
    q.data()[i] = std::sin(0.37f * i), k.data()[i] = std::cos(0.11f * i), v.data()[i] = std::sin(0.05f * i);
  }
  int paragraph[T + 64] = {};
  for (int j = 0; j < T; ++j) paragraph[j] = j % 50 == 0 ? 0 : 1 + j / 50;
  const Paragraphs mask{{}, paragraph};
  const ashlar::KeyValue kv{k.view(), v.view()};
  ashlar::CpuExec exec;
  const ashlar::SoftmaxAttention args{q.view(), {}, {&kv, 1}, out.view()};
  softmax_attention(args, mask, SquaredDistance(), exec);
  double worst = 0;
  for (Index i = 0; i < T; ++i)
    for (Index h = 0; h < H; ++h)
      for (Index c = 0; c < D; ++c) {
        double sum = 0, o = 0;
        for (Index j = 0; j < T; ++j) {
          double s = 0;
          for (Index e = 0; e < D; ++e) s += q.view()(i, h, e) * k.view()(j, h, e) / std::sqrt(D);
          s -= SquaredDistance().slope(h) * static_cast<double>((i - j) * (i - j));
          const double p = mask.sees(i, j) ? std::exp(s) : 0;
          sum += p, o += p * v.view()(j, h, c);
        }
        worst = std::max(worst, std::abs(o / sum - out.view()(i, h, c)));
      }
  std::printf("largest difference from the plain sum: %.1e\n", worst);
  return worst < 1e-5 ? 0 : 1;
}
