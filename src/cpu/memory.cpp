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
  const std::size_t align = bytes >= kHugePage ? kHugePage : kLine;
  void* p = nullptr;
  // No machine has more than 2^48 bytes; some allocators abort rather than say no.
  if (bytes > std::size_t{1} << 48 || posix_memalign(&p, align, bytes == 0 ? kLine : bytes) != 0) p = nullptr;
  if (p == nullptr) throw Error("OutOfMemory", concat("Tensor: no memory for ", bytes, " bytes"));
#ifdef __linux__
  if (align == kHugePage) madvise(p, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  return p;
}

void release(void* p) noexcept { std::free(p); }

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
