// SPDX-License-Identifier: Apache-2.0
// Hopper's matrix products of a warpgroup (wgmma), D [64, N] += A [64, 16] B [16, N], summed in f32, of bf16
// or f16 (PTX ISA, "Asynchronous warpgroup level matrix instructions"). Tiles in shared memory are rows of
// 128 bytes, 64 elements, as the copy engine writes them with its swizzle of 128 bytes; a wider tile is
// several such, one behind another.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace ashlar {
inline namespace v0 {
namespace sm90 {

constexpr int kChunk = 64;  // elements a row of a tile

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// Of a tile at a multiple of 1024 bytes. `leading`: bytes from 64 columns to the next 64, where rows are the
// dimension that is summed over (else of no meaning).
__device__ __forceinline__ std::uint64_t tile_descriptor(std::uint32_t address, std::uint32_t leading = 16) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62, kEightRows = std::uint64_t{1024 >> 4} << 32;
  return (address & 0x3ffff) >> 4 | std::uint64_t{leading >> 4} << 16 | kEightRows | kSwizzle128;
}
// The descriptor `bytes` further.
__device__ __forceinline__ std::uint64_t advance(std::uint64_t descriptor, int bytes) {
  return descriptor + static_cast<std::uint64_t>(bytes >> 4);
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Registers are not read or written across it by code that the compiler moves.
template <int kCount>
__device__ __forceinline__ void pin(float (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(r[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void pin(std::uint32_t (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(r[i])::"memory");
}

// Accumulator 4 i + 2 r + c of thread t is D[16 (t / 32) + 8 r + t % 32 / 4, 8 i + 2 (t % 4) + c].
template <int kColumns, bool kBf16>
struct Wgmma;

#define ASHLAR_F8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define ASHLAR_R8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define ASHLAR_R16 ASHLAR_R8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define ASHLAR_R24 ASHLAR_R16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define ASHLAR_R32 ASHLAR_R24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define ASHLAR_R40 ASHLAR_R32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define ASHLAR_R48 ASHLAR_R40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define ASHLAR_R56 ASHLAR_R48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define ASHLAR_R64 ASHLAR_R56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define ASHLAR_R72 ASHLAR_R64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define ASHLAR_R80 ASHLAR_R72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define ASHLAR_R88 ASHLAR_R80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define ASHLAR_R96 ASHLAR_R88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define ASHLAR_R104 ASHLAR_R96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define ASHLAR_R112 ASHLAR_R104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define ASHLAR_R120 ASHLAR_R112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define ASHLAR_R128 ASHLAR_R120 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define ASHLAR_F16 ASHLAR_F8(0), ASHLAR_F8(8)
#define ASHLAR_F24 ASHLAR_F16, ASHLAR_F8(16)
#define ASHLAR_F32 ASHLAR_F24, ASHLAR_F8(24)
#define ASHLAR_F40 ASHLAR_F32, ASHLAR_F8(32)
#define ASHLAR_F48 ASHLAR_F40, ASHLAR_F8(40)
#define ASHLAR_F56 ASHLAR_F48, ASHLAR_F8(48)
#define ASHLAR_F64 ASHLAR_F56, ASHLAR_F8(56)
#define ASHLAR_F72 ASHLAR_F64, ASHLAR_F8(64)
#define ASHLAR_F80 ASHLAR_F72, ASHLAR_F8(72)
#define ASHLAR_F88 ASHLAR_F80, ASHLAR_F8(80)
#define ASHLAR_F96 ASHLAR_F88, ASHLAR_F8(88)
#define ASHLAR_F104 ASHLAR_F96, ASHLAR_F8(96)
#define ASHLAR_F112 ASHLAR_F104, ASHLAR_F8(104)
#define ASHLAR_F120 ASHLAR_F112, ASHLAR_F8(112)
#define ASHLAR_F128 ASHLAR_F120, ASHLAR_F8(120)

// both: A [64, 16] and B [N, 16] in shared memory. left: A in registers, B [16, N] in shared memory.
#define ASHLAR_WGMMA_OF(N, K, TYPE, IS_BF16, O0, O1, O2, O3, O4)                                          \
  template <>                                                                                             \
  struct Wgmma<N, IS_BF16> {                                                                              \
    static __device__ __forceinline__ void both(float (&d)[K], std::uint64_t a, std::uint64_t b,          \
                                                int accumulate) {                                         \
      asm volatile("{.reg .pred p;\nsetp.ne.b32 p, " O2                                                   \
                   ", 0;\n"                                                                               \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" ASHLAR_R##K       \
                   "}, " O0 ", " O1 ", p, 1, 1, 0, 0;}\n"                                                 \
                   : ASHLAR_F##K                                                                          \
                   : "l"(a), "l"(b), "r"(accumulate));                                                    \
    }                                                                                                     \
    static __device__ __forceinline__ void left(float (&d)[K], const std::uint32_t* a, std::uint64_t b) { \
      asm volatile(                                                                                       \
          "{.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                                        \
          "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" ASHLAR_R##K                \
          "}, {" O0 ", " O1 ", " O2 ", " O3 "}, " O4 ", p, 1, 1, 1;}\n"                                   \
          : ASHLAR_F##K                                                                                   \
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                          \
    }                                                                                                     \
  };
#define ASHLAR_WGMMA(N, K, ...)                    \
  ASHLAR_WGMMA_OF(N, K, "bf16", true, __VA_ARGS__) \
  ASHLAR_WGMMA_OF(N, K, "f16", false, __VA_ARGS__)

ASHLAR_WGMMA(64, 32, "%32", "%33", "%34", "%35", "%36")
ASHLAR_WGMMA(80, 40, "%40", "%41", "%42", "%43", "%44")
ASHLAR_WGMMA(96, 48, "%48", "%49", "%50", "%51", "%52")
ASHLAR_WGMMA(112, 56, "%56", "%57", "%58", "%59", "%60")
ASHLAR_WGMMA(128, 64, "%64", "%65", "%66", "%67", "%68")
ASHLAR_WGMMA(144, 72, "%72", "%73", "%74", "%75", "%76")
ASHLAR_WGMMA(160, 80, "%80", "%81", "%82", "%83", "%84")
ASHLAR_WGMMA(176, 88, "%88", "%89", "%90", "%91", "%92")
ASHLAR_WGMMA(192, 96, "%96", "%97", "%98", "%99", "%100")
ASHLAR_WGMMA(256, 128, "%128", "%129", "%130", "%131", "%132")

}  // namespace sm90
}  // namespace v0
}  // namespace ashlar
