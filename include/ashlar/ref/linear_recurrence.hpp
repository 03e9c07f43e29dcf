// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <vector>

#include "ashlar/ops/linear_recurrence.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// One sequence, head and token after another; `state` [N, H, Dk, Dv] ([.., Dv + 1] when normalised) stands
// for the argument's states and is updated. Requests and forms are ignored.
template <class T>
void linear_recurrence(const LinearRecurrenceArgs<T>& args, View<T, 4> state) {
  const auto [tokens, heads, dv] = args.out.shape;
  const Index dk = args.k.shape[2], columns = dv + (args.normalize ? 1 : 0);
  const T scale = args.scale != 0 ? args.scale : 1 / std::sqrt(T(dk));
  auto head_of = [heads = heads](Index h, const auto& x) { return h / (heads / x.shape[1]); };
  std::vector<T> u(static_cast<std::size_t>(columns)), w(u.size()), o(u.size());

  for (Index n = 0; n < args.offsets.count(); ++n)
    for (Index h = 0; h < heads; ++h)
      for (Index t = args.offsets.begin(n); t < args.offsets.end(n, tokens); ++t) {
        const View<T, 2> s = state[n][h];
        const T* q = args.q.at(t, head_of(h, args.q));
        for (Index step = 0; step < args.substeps; ++step) {
          const Index i = t * args.substeps + step;
          const T* k = args.k.at(i, head_of(h, args.k));
          for (Index j = 0; j < columns; ++j) {
            const T v = j < dv ? args.v(i, head_of(h, args.v), j) : T(1);
            T seen = 0, low_rank = 0, early = 0;
            for (Index d = 0; d < dk; ++d) {
              if (args.a) low_rank += args.a(i, head_of(h, args.a), d) * s(d, j);
              if (args.bonus)
                early += q[d] * (s(d, j) + args.bonus(h / (heads / args.bonus.shape[0]), d) * k[d] * v);
              if (step == 0 && args.g) s(d, j) *= std::exp(args.g(t, head_of(h, args.g)));
              if (step == 0 && args.gk) s(d, j) *= std::exp(args.gk(t, head_of(h, args.gk), d));
              if (args.beta) seen += k[d] * s(d, j);
            }
            const auto c = static_cast<std::size_t>(j);
            u[c] = args.beta ? args.beta(i, head_of(h, args.beta)) * (v - seen) : v;
            w[c] = low_rank, o[c] = scale * early;
          }
          for (Index d = 0; d < dk; ++d)
            for (Index j = 0; j < columns; ++j) {
              const auto c = static_cast<std::size_t>(j);
              s(d, j) += k[d] * u[c] + (args.a ? args.b(i, head_of(h, args.b), d) * w[c] : T(0));
            }
        }
        for (Index j = 0; j < columns && !args.bonus; ++j) {
          T sum = 0;
          for (Index d = 0; d < dk; ++d) sum += q[d] * s(d, j);
          o[static_cast<std::size_t>(j)] = scale * sum;
        }
        const T divisor = args.normalize ? o.back() + args.normalizer_eps : T(1);
        for (Index j = 0; j < dv; ++j) args.out(t, h, j) = o[static_cast<std::size_t>(j)] / divisor;
      }
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
