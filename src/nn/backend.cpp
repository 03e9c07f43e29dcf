// SPDX-License-Identifier: Apache-2.0
#include "ashlar/nn/backend.hpp"

#include <algorithm>

namespace ashlar {
inline namespace v0 {
namespace {

// A tensor may begin at any byte of its file.
template <class T>
T load(const void* data, Index i) {
  T x;
  std::memcpy(&x, static_cast<const std::byte*>(data) + i * static_cast<Index>(sizeof(T)), sizeof(T));
  return x;
}

Parameter owned(Tensor<float, 1> values, const std::vector<Index>& shape) {
  auto owner = std::make_shared<const Tensor<float, 1>>(std::move(values));
  return {owner->data(), DType::f32, shape, owner};
}

template <class From, class To>
void copy_rows(View<const From, 3> from, View<To, 3> to, CpuExec& exec) {
  expect_shape("copy", "to", to, from.shape);
  const Index tokens = from.shape[0], heads = from.shape[1], dim = from.shape[2];
  constexpr Index kRows = 256;
  exec.parallel_for((tokens * heads + kRows - 1) / kRows, [&](Index part, int) {
    for (Index row = part * kRows; row < std::min(tokens * heads, (part + 1) * kRows); ++row) {
      const From* x = from.at(row / heads, row % heads);
      To* y = to.at(row / heads, row % heads);
      if constexpr (std::is_same_v<From, To>)
        std::memcpy(y, x, sizeof(To) * static_cast<std::size_t>(dim));
      else
        for (Index i = 0; i < dim; ++i) y[i] = static_cast<To>(x[i]);
    }
  });
}

template <class T>
void move_rows(View<const T, 2> from, View<T, 2> to) {
  expect_shape("move", "to", to, from.shape);
  const auto [rows, dim] = from.shape;
  const bool forwards = to.data <= from.data;
  for (Index i = 0; i < rows; ++i) {
    const Index row = forwards ? i : rows - 1 - i;
    std::memmove(to.at(row), from.at(row), sizeof(T) * static_cast<std::size_t>(dim));
  }
}

template <class T>
void read_rows(View<const T, 3> from, void* to) {
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(from.shape[2]);
  auto* out = static_cast<std::byte*>(to);
  if (bytes == 0) return;
  for (Index t = 0; t < from.shape[0]; ++t)
    for (Index h = 0; h < from.shape[1]; ++h, out += bytes) std::memcpy(out, from.at(t, h), bytes);
}

template <class T>
void write_rows(const void* from, View<T, 3> to) {
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(to.shape[2]);
  const auto* in = static_cast<const std::byte*>(from);
  if (bytes == 0) return;
  for (Index t = 0; t < to.shape[0]; ++t)
    for (Index h = 0; h < to.shape[1]; ++h, in += bytes) std::memcpy(to.at(t, h), in, bytes);
}

}  // namespace

Tensor<float, 1> to_floats(const Parameter& p) {
  const Index n = p.size();
  Tensor<float, 1> out({n});
  auto convert = [&]<class T>(T) {
    for (Index i = 0; i < n; ++i) out.data()[i] = static_cast<float>(load<T>(p.data, i));
  };
  switch (p.dtype) {
    case DType::f32: convert(float{}); break;
    case DType::bf16: convert(bf16{}); break;
    case DType::f16: convert(f16{}); break;
    case DType::f64: convert(double{}); break;
    default: refuse("to_floats", "the tensor is of type ", name(p.dtype), ", expected f32, bf16, f16 or f64");
  }
  return out;
}

Tensor<float, 1> joined(const std::vector<Parameter>& parts) {
  Index n = 0;
  for (const Parameter& p : parts) n += p.size();
  Tensor<float, 1> all({n});
  float* to = all.data();
  for (const Parameter& p : parts) {
    const Tensor<float, 1> part = to_floats(p);
    to = std::copy_n(part.data(), part.size(), to);
  }
  return all;
}

DenseWeight Backend<CpuExec>::matrix(const Parameter& p, Index rows, Index columns, bool pack,
                                     CpuExec& exec) {
  Parameter kept = p;
  if (p.dtype != DType::f32 && p.dtype != DType::bf16) kept = owned(to_floats(p), p.shape);
  DenseWeight weight(AnyView<2>(kept.data, kept.dtype, {rows, columns}), kept.owner);
  if (pack && kept.dtype == DType::f32) weight.pack(exec);
  return weight;
}

Conv2dWeight Backend<CpuExec>::filters(const Parameter& p, Index groups, CpuExec& exec) {
  if (p.shape.size() != 4) refuse("conv2d", "the filters have ", p.shape.size(), " axes, expected 4");
  const Parameter kept = p.dtype != DType::f32 && p.dtype != DType::bf16 ? owned(to_floats(p), p.shape) : p;
  return {AnyView<4>(kept.data, kept.dtype, {p.shape[0], p.shape[1], p.shape[2], p.shape[3]}), groups, exec};
}

void Backend<CpuExec>::copy(View<const float, 3> from, View<float, 3> to, CpuExec& exec) {
  copy_rows(from, to, exec);
}
void Backend<CpuExec>::copy(View<const float, 3> from, View<bf16, 3> to, CpuExec& exec) {
  copy_rows(from, to, exec);
}
void Backend<CpuExec>::copy(View<const bf16, 3> from, View<float, 3> to, CpuExec& exec) {
  copy_rows(from, to, exec);
}
void Backend<CpuExec>::copy(View<const bf16, 3> from, View<bf16, 3> to, CpuExec& exec) {
  copy_rows(from, to, exec);
}

void Backend<CpuExec>::move(View<const float, 2> from, View<float, 2> to) { move_rows(from, to); }
void Backend<CpuExec>::move(View<const bf16, 2> from, View<bf16, 2> to) { move_rows(from, to); }

void Backend<CpuExec>::fill(View<float, 3> to, float value, CpuExec&) {
  const auto [rows, heads, dim] = to.shape;
  for (Index i = 0; i < rows; ++i)
    for (Index h = 0; h < heads; ++h) std::fill_n(to.at(i, h), dim, value);
}

void Backend<CpuExec>::read(View<const float, 3> from, void* to) { read_rows(from, to); }
void Backend<CpuExec>::read(View<const bf16, 3> from, void* to) { read_rows(from, to); }
void Backend<CpuExec>::write(const void* from, View<float, 3> to) { write_rows(from, to); }
void Backend<CpuExec>::write(const void* from, View<bf16, 3> to) { write_rows(from, to); }

}  // namespace v0
}  // namespace ashlar
