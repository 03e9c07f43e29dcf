// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace ashlar {
inline namespace v0 {
namespace sm90 {

// The copy engine's view of [rows, heads, columns] of 16-bit elements, strides in elements: boxes of box_rows
// rows of one head and 64 columns, swizzled by 128 bytes; what lies outside reads as zeros. False where the
// driver does not take it: the address and both strides in bytes are multiples of 16.
inline bool encode_tensor_map(CUtensorMap& map, bool is_bf16, const void* data, std::int64_t rows,
                              std::int64_t row_stride, std::int64_t heads, std::int64_t head_stride,
                              std::int64_t columns, int box_rows) {
  static const auto encode = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const bool ok = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault,
                                                     &found) == cudaSuccess &&
                    found == cudaDriverEntryPointSuccess;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(ok ? f : nullptr);
  }();
  if (encode == nullptr) return false;
  constexpr std::uint64_t kBytes = 2;
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const std::uint64_t extents[] = {size(columns), size(heads), size(rows)};
  // The stride of an axis of one element is of no meaning, but must be one.
  const std::uint64_t strides[] = {
      heads == 1 ? kBytes * size(columns + 7) / 16 * 16 : kBytes * size(head_stride),
      rows == 1 ? kBytes * size(columns + 7) / 16 * 16 : kBytes * size(row_stride)};
  const std::uint32_t box[] = {64, 1, static_cast<std::uint32_t>(box_rows)}, steps[] = {1, 1, 1};
  return encode(&map, is_bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3,
                const_cast<void*>(data), extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace sm90
}  // namespace v0
}  // namespace ashlar
