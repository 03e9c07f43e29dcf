// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "ashlar/core/tensor.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

constexpr std::size_t kLine = 64, kHugePage = std::size_t{2} << 20;

}  // namespace

void* allocate(std::size_t bytes) {
  const std::size_t align = bytes >= 2 * kHugePage ? kHugePage : kLine;
  const std::size_t rounded = (bytes + align - 1) / align * align;
  void* p = rounded < bytes ? nullptr : std::aligned_alloc(align, rounded == 0 ? align : rounded);
  if (p == nullptr) throw Error("OutOfMemory", concat("Tensor: no memory for ", bytes, " bytes"));
#ifdef __linux__
  if (align == kHugePage) madvise(p, rounded, MADV_HUGEPAGE);
#endif
  return p;
}

void release(void* p) noexcept { std::free(p); }

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
