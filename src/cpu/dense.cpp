// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/dense.hpp"

#include "ashlar/core/dense_weight.hpp"

#include <algorithm>
#include <memory>

#include "src/cpu/dispatch.hpp"
#include "src/cpu/gemm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/dense.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/matmul-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

inline constexpr int kWeightRows = 4;  // rows of W that a decode step reads side by side
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
inline constexpr int kTokenRows = 2;
#else
inline constexpr int kTokenRows = 1;
#endif
inline constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));

// Two vectors of a row: neighbours in f32; in bf16 the even and the odd elements of 2 kLanes, which a shift
// and a mask separate (x comes in the same order, see split_rows).
struct Pair {
  FloatVec first, second;
};
HWY_INLINE Pair load_pair(FloatTag d, const float* p) { return {hn::LoadU(d, p), hn::LoadU(d, p + kLanes)}; }
HWY_INLINE Pair load_pair(FloatTag d, const bf16* p) {
  const hn::RebindToUnsigned<FloatTag> d32;
  const auto both = hn::LoadU(d32, reinterpret_cast<const std::uint32_t*>(p));
  return {hn::BitCast(d, hn::ShiftLeft<16>(both)), hn::BitCast(d, hn::And(both, hn::Set(d32, 0xffff0000u)))};
}

// Each run of 2 kLanes elements as its even ones and its odd ones; what is left behind the last whole run as
// it is.
void split_rows(const float* x, Index k, float* to) {
  Index i = 0;
  for (; i + 2 * kLanes <= k; i += 2 * kLanes)
    for (Index j = 0; j < kLanes; ++j) to[i + j] = x[i + 2 * j], to[i + kLanes + j] = x[i + 2 * j + 1];
  for (; i < k; ++i) to[i] = x[i];
}

// Products of kN rows of W with kM rows of x: the order of additions does not depend on kN or kM.
template <int kN, int kM, class T>
HWY_NOINLINE void dot_rows(const T* HWY_RESTRICT w, Index w_stride, const float* HWY_RESTRICT x,
                           Index x_stride, Index k, const float* bias, float* HWY_RESTRICT out,
                           Index out_stride) {
  const FloatTag d;
  FloatVec first[kN * kM], second[kN * kM];
  ASHLAR_UNROLL
  for (int j = 0; j < kN * kM; ++j) first[j] = second[j] = hn::Zero(d);
  Index i = 0;
  for (; i + 2 * kLanes <= k; i += 2 * kLanes) {
    // W is read in order, kN rows at a time.
    const char* ahead = reinterpret_cast<const char*>(w + kN * i) + kFarBytes;
    ASHLAR_UNROLL
    for (Index line = 0; line < kN * 2 * kLanes * static_cast<Index>(sizeof(T)); line += 64)
      prefetch_far(ahead + line);
    Pair rows[kM];
    ASHLAR_UNROLL
    for (int m = 0; m < kM; ++m) rows[m] = load_pair(d, x + m * x_stride + i);
    ASHLAR_UNROLL
    for (int n = 0; n < kN; ++n) {
      const Pair weight = load_pair(d, w + n * w_stride + i);
      ASHLAR_UNROLL
      for (int m = 0; m < kM; ++m) {
        first[n * kM + m] = hn::MulAdd(weight.first, rows[m].first, first[n * kM + m]);
        second[n * kM + m] = hn::MulAdd(weight.second, rows[m].second, second[n * kM + m]);
      }
    }
  }
  float totals[kN * kM];
  ASHLAR_UNROLL
  for (int j = 0; j < kN * kM; ++j) totals[j] = sum(d, hn::Add(first[j], second[j]));
  for (int n = 0; n < kN; ++n)
    for (int m = 0; m < kM; ++m) {
      float total = totals[n * kM + m];
      for (Index j = i; j < k; ++j) total += static_cast<float>(w[n * w_stride + j]) * x[m * x_stride + j];
      out[m * out_stride + n] = total + (bias ? bias[n] : 0);
    }
}

template <int kN, class T>
HWY_INLINE void dot_tokens(const Dense& a, const T* w, Index w_stride, Index n) {
  const Index tokens = a.x.shape[0], k = a.x.shape[1];
  const float* bias = a.bias ? a.bias.data + n : nullptr;
  Index m = 0;
  for (; m + kTokenRows <= tokens; m += kTokenRows)
    dot_rows<kN, kTokenRows>(w, w_stride, a.x.at(m), a.x.strides[0], k, bias, a.out.at(m, n),
                             a.out.strides[0]);
  for (; m < tokens; ++m) dot_rows<kN, 1>(w, w_stride, a.x.at(m), a.x.strides[0], k, bias, a.out.at(m, n), 0);
}

// Output columns [begin, end). For bf16 weights x is in the order of split_rows.
template <class T>
void decode_columns(const Dense& a, Index begin, Index end) {
  const View<const T, 2> w = a.weight.values().as<T>();
  Index n = begin;
  for (; n + kWeightRows <= end; n += kWeightRows) dot_tokens<kWeightRows>(a, w.at(n), w.strides[0], n);
  for (; n < end; ++n) dot_tokens<1>(a, w.at(n), w.strides[0], n);
}

void decode_f32(const Dense& a, Index begin, Index end) { decode_columns<float>(a, begin, end); }
void decode_bf16(const Dense& a, Index begin, Index end) { decode_columns<bf16>(a, begin, end); }

// to [K, columns] = rows [begin, begin + columns) of W, widened and transposed.
template <class T>
HWY_INLINE void pack_columns(const AnyView<2>& weight, Index begin, Index columns, float* to) {
  constexpr Index kChunk = 512;
  const FloatTag d;
  const View<const T, 2> w = weight.as<T>();
  const Index k = w.shape[1];
  HWY_ALIGN float wide[4 * kChunk];
  for (Index c = 0; c < k; c += kChunk) {
    const Index count = HWY_MIN(kChunk, k - c);
    for (Index r = 0; r < columns; r += 4) {
      const Index rows = HWY_MIN(4, columns - r);
      for (Index j = 0; j < rows; ++j) {
        const T* from = w.at(begin + r + j, c);
        Index i = 0;
        for (; i + kLanes <= count; i += kLanes) hn::Store(load(d, from + i), d, wide + j * kChunk + i);
        for (; i < count; ++i) wide[j * kChunk + i] = static_cast<float>(from[i]);
      }
      if (rows == 4)
        transpose_rows<4>(wide, kChunk, 4, count, to + c * columns + r, columns);
      else
        for (Index i = 0; i < count; ++i)
          for (Index j = 0; j < rows; ++j) to[(c + i) * columns + r + j] = wide[j * kChunk + i];
    }
  }
}

void pack_panel(const AnyView<2>& weight, Index begin, Index columns, float* to) {
  if (weight.dtype == DType::bf16)
    pack_columns<bf16>(weight, begin, columns, to);
  else
    pack_columns<float>(weight, begin, columns, to);
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
HWY_EXPORT(decode_f32);
HWY_EXPORT(decode_bf16);
HWY_EXPORT(split_rows);
HWY_EXPORT(pack_panel);
}  // namespace kernels
namespace {

constexpr std::string_view kOp = "dense";
// Fixed, so that a result depends on neither threads nor other rows.
constexpr Index kTileRows = 128, kTileColumns = 64;
constexpr Index kRowUnit = 16;  // a short tile is padded to a multiple of this

void check(const Dense& a) {
  const Index m = a.x.shape[0], n = a.weight.rows(), k = a.weight.columns();
  if (!a.weight) refuse(kOp, "the weight is empty");
  expect_shape(kOp, "x", a.x, {m, k});
  expect_shape(kOp, "out", a.out, {m, n});
  if (a.bias) expect_shape(kOp, "bias", a.bias, {n});
}

// What decoding knows of one layer; its tasks follow those of the layer before.
struct DecodePart {
  Dense layer;
  Index step, first_task;
};

template <class Part>
const Part& part_of(View<Part, 1> parts, Index task) {
  const auto behind =
      std::upper_bound(parts.data, parts.data + parts.shape[0], task,
                       [](Index wanted, const Part& part) { return wanted < part.first_task; });
  return *(behind - 1);
}

bool same_rows(const Dense& a, const Dense& b) {
  return a.x.data == b.x.data && a.x.shape == b.x.shape && a.x.strides == b.x.strides;
}

// Weights are read once; a task is a run of output columns.
void decode(std::span<const Dense> layers, CpuExec& exec) {
  CpuScratch scratch(exec);
  Index bytes = 0, split_size = 0;
  const Dense* before = nullptr;
  for (const Dense& a : layers) {
    const bool wide = a.weight.values().dtype == DType::f32;
    if (a.x.shape[0] != 0) bytes += a.weight.rows() * a.weight.columns() * (wide ? 4 : 2);
    if (!wide && (before == nullptr || !same_rows(*before, a))) split_size += a.x.size();
    if (!wide) before = &a;
  }
  const Index task_bytes = std::clamp<Index>(bytes / (8 * exec.threads()), 65536, 262144);
  const auto parts = scratch.get<DecodePart>(static_cast<Index>(layers.size()));
  float* split = scratch.floats(split_size).data;
  Index tasks = 0, count = 0;
  View<const float, 2> rows;  // of `before`, split
  before = nullptr;
  for (const Dense& a : layers) {
    const Index m = a.x.shape[0], n = a.weight.rows(), k = a.weight.columns();
    const bool wide = a.weight.values().dtype == DType::f32;
    if (!wide && (before == nullptr || !same_rows(*before, a))) {
      rows = {split, {m, k}};
      for (Index r = 0; r < m; ++r, split += k) ASHLAR_DISPATCH(exec, split_rows)(a.x.at(r), k, split);
    }
    if (!wide) before = &a;
    if (m == 0 || n == 0) continue;
    const Index row_bytes = std::max<Index>(1, k * (wide ? 4 : 2));
    const Index step = std::max<Index>(4, task_bytes / row_bytes / 4 * 4);
    std::construct_at(parts.at(count++),
                      DecodePart{{wide ? a.x : rows, a.weight, a.bias, a.out, a.phase}, step, tasks});
    tasks += (n + step - 1) / step;
  }
  const auto filled = parts.slice(0, 0, count);
  exec.parallel_for(tasks, [&](Index task, int) {
    const DecodePart& part = part_of(filled, task);
    const Dense& a = part.layer;
    const Index begin = (task - part.first_task) * part.step,
                end = std::min(a.weight.rows(), begin + part.step);
    if (a.weight.values().dtype == DType::f32)
      ASHLAR_DISPATCH(exec, decode_f32)(a, begin, end);
    else
      ASHLAR_DISPATCH(exec, decode_bf16)(a, begin, end);
  });
}

// Rows of x packed one after another, as the products want them: the caller's, or a copy of those that are
// not; the last tile's are padded with zero rows.
struct PackedRows {
  PackedRows(const Dense& a, CpuScratch& scratch) : x(a.x) {
    const Index m = x.shape[0], k = x.shape[1];
    whole = m / kTileRows * kTileRows;
    stride = k, padded = (m - whole + kRowUnit - 1) / kRowUnit * kRowUnit;
    const bool copy = whole > 0 && x.strides[0] != k;
    body = scratch.floats(copy ? whole : 0, k), rest = scratch.floats(padded, k);
    tiles = copy ? body.data : x.data, tail = rest.data;
  }
  void fill() const {
    const Index m = x.shape[0], k = x.shape[1];
    for (Index r = 0; r < body.shape[0]; ++r) std::copy_n(x.at(r), k, body.at(r));
    for (Index r = 0; r < padded; ++r) {
      if (whole + r < m)
        std::copy_n(x.at(whole + r), k, rest.at(r));
      else
        std::fill_n(rest.at(r), k, 0.0f);
    }
  }
  const float* row(Index r) const { return r < whole ? tiles + r * stride : tail; }

  View<const float, 2> x;
  View<float, 2> body, rest;
  const float *tiles, *tail;  // of whole tiles, and of the last one
  Index whole, padded, stride;
};

struct PrefillPart {
  const Dense* layer;
  PackedRows rows;
  bool own_rows;               // not the ones of the part before
  const Gemm* products[2][2];  // of [a short last tile][a narrow last panel]
  Index panels, tiles, groups, first_task;
};

// Tiles of 128 rows and panels of 64 output columns; an unpacked weight is packed panel by panel, for as
// many row tiles as one task has.
void prefill(std::span<const Dense> layers, CpuExec& exec) {
  CpuScratch scratch(exec);
  const auto parts = scratch.get<PrefillPart>(static_cast<Index>(layers.size()));
  Index count = 0, all_panels = 0, panel_size = 0, product_bytes = 0;
  for (const Dense& a : layers) {
    const Index m = a.x.shape[0], n = a.weight.rows(), k = a.weight.columns();
    if (m == 0 || n == 0) continue;
    const bool shared = count != 0 && same_rows(*parts(count - 1).layer, a);
    PrefillPart& part = *std::construct_at(
        parts.at(count), PrefillPart{&a, shared ? parts(count - 1).rows : PackedRows(a, scratch), !shared});
    ++count;
    part.panels = (n + kTileColumns - 1) / kTileColumns, part.tiles = (m + kTileRows - 1) / kTileRows;
    all_panels += part.panels;
    if (!a.weight.packed()) panel_size = std::max(panel_size, k * kTileColumns);
    for (Index row : {Index{0}, (part.tiles - 1) * kTileRows})
      for (Index columns : {std::min(n, kTileColumns), n - (part.panels - 1) * kTileColumns}) {
        const bool shorter = m - row < kTileRows;
        const Gemm& product = exec.gemm_cache().get(shorter ? part.rows.padded : kTileRows, k, columns);
        part.products[shorter][columns < kTileColumns] = &product;
        product_bytes = std::max(product_bytes, (product.scratch_bytes() + 63) / 64 * 64);
      }
  }
  Index tasks = 0;
  for (Index i = 0; i < count; ++i) {
    PrefillPart& part = parts(i);
    part.groups = part.layer->weight.packed()
                      ? part.tiles
                      : std::clamp<Index>(2 * exec.threads() / all_panels, 1, part.tiles);
    part.first_task = tasks;
    tasks += part.panels * part.groups;
  }
  const auto panel_memory = scratch.floats(exec.threads(), panel_size);
  const auto out_memory = scratch.floats(exec.threads(), kTileRows * kTileColumns);
  const auto product_memory = scratch.get<std::byte>(exec.threads(), product_bytes);
  const auto filled = parts.slice(0, 0, count);
  exec.parallel_for(count, [&](Index i, int) {
    if (filled(i).own_rows) filled(i).rows.fill();
  });
  exec.parallel_for(tasks, [&](Index task, int worker) {
    const PrefillPart& part = part_of(filled, task);
    const Dense& a = *part.layer;
    const Index m = a.x.shape[0], n = a.weight.rows(), k = a.weight.columns();
    const Index panel = (task - part.first_task) / part.groups,
                group = (task - part.first_task) % part.groups;
    const Index column = panel * kTileColumns, columns = std::min(kTileColumns, n - column);
    const bool packed = static_cast<bool>(a.weight.packed());
    const float* b = packed ? a.weight.packed().data() + column * k : panel_memory.at(worker);
    if (!packed)
      ASHLAR_DISPATCH(exec, pack_panel)(a.weight.values(), column, columns, panel_memory.at(worker));
    float* const out = out_memory.at(worker);
    for (Index tile = part.tiles * group / part.groups; tile < part.tiles * (group + 1) / part.groups;
         ++tile) {
      const Index row = tile * kTileRows, rows = std::min(kTileRows, m - row);
      part.products[rows < kTileRows][columns < kTileColumns]->multiply(part.rows.row(row), b, out,
                                                                        product_memory.at(worker));
      for (Index r = 0; r < rows; ++r) {
        float* to = a.out.at(row + r, column);
        if (a.bias)
          for (Index c = 0; c < columns; ++c) to[c] = out[r * columns + c] + a.bias(column + c);
        else
          std::copy_n(out + r * columns, columns, to);
      }
    }
  });
}

}  // namespace

DenseWeight::DenseWeight(AnyView<2> values, std::shared_ptr<const void> owner)
    : values_(values), owner_(std::move(owner)) {
  if (values.dtype != DType::f32 && values.dtype != DType::bf16)
    refuse("DenseWeight", "the element type is ", name(values.dtype), ", expected f32 or bf16");
  if (values.shape[1] > 1 && values.strides[1] != 1)
    refuse("DenseWeight", "the innermost stride is ", values.strides[1], ", expected 1");
}

void DenseWeight::pack(CpuExec& exec) {
  if (values_.dtype != DType::f32 || !values_) return;
  Tensor<float, 1> packed({rows() * columns()});
  exec.parallel_for((rows() + kTileColumns - 1) / kTileColumns, [&](Index panel, int) {
    const Index begin = panel * kTileColumns, count = std::min(kTileColumns, rows() - begin);
    ASHLAR_DISPATCH(exec, pack_panel)(values_, begin, count, packed.data() + begin * columns());
  });
  packed_ = std::move(packed);
}

void dense(std::span<const Dense> layers, CpuExec& exec) {
  bool none = true;
  for (const Dense& a : layers) {
    check(a);
    if (a.phase != layers.front().phase) refuse(kOp, "the layers of a call are of both phases, expected one");
    none = none && (a.x.shape[0] == 0 || a.weight.rows() == 0);
  }
  if (layers.empty()) return;
  const bool decoding = layers.front().phase == Phase::decode;
  for (const Dense& a : layers)
    trace(exec, kOp, decoding ? std::string_view("matrix-vector") : Gemm::library(), to_string(a.x.shape),
          " x ", to_string(a.weight.values().shape), "^T ", name(a.weight.values().dtype),
          decoding || a.weight.packed() ? "" : " packed in the call");
  if (none) return;
  if (decoding)
    decode(layers, exec);
  else
    prefill(layers, exec);
}

void dense(const Dense& layer, CpuExec& exec) { dense(std::span(&layer, 1), exec); }

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
