// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>

#include "ashlar/ops/gated_scan.hpp"

namespace ashlar {
inline namespace v0 {
namespace ref {

// `states` [N, D], one a sequence, read and updated.
template <class T>
void hgrn(const GatedScanArgs<T>& a, View<T, 2> states) {
  for (Index n = 0; n < a.offsets.count(); ++n)
    for (Index t = a.offsets.begin(n); t < a.offsets.end(n, a.x.shape[0]); ++t)
      for (Index i = 0; i < a.x.shape[1]; ++i)
        a.out(t, i) = states(n, i) = std::exp(a.g(t, i)) * states(n, i) + a.x(t, i);
}

}  // namespace ref
}  // namespace v0
}  // namespace ashlar
