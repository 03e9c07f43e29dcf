// SPDX-License-Identifier: Apache-2.0
// Blocks that run side by side and see each other's shared memory (compute capability 9.0 and later; before
// it a cluster is one block).
#pragma once
#include <cstdint>

namespace ashlar {
inline namespace v0 {
namespace cuda {

struct Cluster {
  int rank = 0, blocks = 1;

  // All threads of all blocks; what they wrote before is seen behind it.
  __device__ __forceinline__ void sync() const {
#if __CUDA_ARCH__ >= 900
    if (blocks > 1) {
      asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                       : "memory");
      return;
    }
#endif
    __syncthreads();
  }
  // What block `r` has where this one has *p in its shared memory.
  template <class T>
  __device__ __forceinline__ T* of_block(T* p, int r) const {
#if __CUDA_ARCH__ >= 900
    std::uint64_t there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(p), "r"(r));
    return reinterpret_cast<T*>(there);
#else
    return p;
#endif
  }
};

__device__ __forceinline__ Cluster this_cluster() {
  Cluster c;
#if __CUDA_ARCH__ >= 900
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(c.rank));
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(c.blocks));
#endif
  return c;
}

}  // namespace cuda
}  // namespace v0
}  // namespace ashlar
