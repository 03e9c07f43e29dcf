// SPDX-License-Identifier: Apache-2.0
// Counts every allocation on the heap, from any thread and any library. For one source file of a program: it
// defines malloc and its relatives in front of glibc's. Counts nothing under a sanitizer, which has its own.
#pragma once
#include <atomic>
#include <cstddef>

namespace ashlar::test {

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
inline constexpr bool kCountsAllocations = true;
#else
inline constexpr bool kCountsAllocations = false;
#endif

inline std::atomic<long> allocations_so_far{0};

}  // namespace ashlar::test

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t n) {
  ++ashlar::test::allocations_so_far;
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  ++ashlar::test::allocations_so_far;
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  ++ashlar::test::allocations_so_far;
  return __libc_realloc(p, n);
}
void* memalign(std::size_t align, std::size_t n) {
  ++ashlar::test::allocations_so_far;
  return __libc_memalign(align, n);
}
void* aligned_alloc(std::size_t align, std::size_t n) {
  ++ashlar::test::allocations_so_far;
  return __libc_memalign(align, n);
}
int posix_memalign(void** p, std::size_t align, std::size_t n) {
  ++ashlar::test::allocations_so_far;
  *p = __libc_memalign(align, n);
  return *p == nullptr ? 12 : 0;  // ENOMEM
}
}
#endif
