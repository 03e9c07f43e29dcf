// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/embedding.hpp"

#include "src/core/op_checks.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/embedding.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

template <class Stored>
void widen_row(const Stored* row, float scale, float* out, Index n) {
  const FloatTag d;
  const Index lanes = static_cast<Index>(hn::Lanes(d));
  const auto s = hn::Set(d, scale);
  Index i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(s, load(d, row + i)), d, out + i);
  if (i < n) store_n(hn::Mul(s, load_n(d, row + i, n - i)), d, out + i, n - i);
}

template <class Stored>
void gather_rows(const Embedding& a, Index begin, Index end) {
  const View<const Stored, 2> table = a.table.as<Stored>();
  for (Index t = begin; t < end; ++t)
    widen_row(table.at(a.ids[static_cast<std::size_t>(t)]), a.scale, a.out.at(t), a.out.shape[1]);
}

void embedding_rows(const Embedding& a, Index begin, Index end) {
  if (a.table.dtype == DType::f32) gather_rows<float>(a, begin, end);
  if (a.table.dtype == DType::bf16) gather_rows<bf16>(a, begin, end);
  if (a.table.dtype == DType::f16) gather_rows<f16>(a, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(embedding_rows);
}  // namespace kernels

void embedding(const Embedding& a, CpuExec& exec) {
  check(a);
  const Index tokens = a.out.shape[0], dim = a.out.shape[1];
  const DType type = a.table.dtype;
  trace(exec, "embedding", name(type), to_string(a.out.shape));
  parallel_rows(exec, tokens, dim, [&](Index begin, Index end) {
    ASHLAR_DISPATCH(exec, embedding_rows)(a, begin, end);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
