// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string_view>
#include <type_traits>
#include <utility>

#include "ashlar/core/view.hpp"

namespace ashlar {
inline namespace v0 {

// The instruction sets that the kernels are compiled for, worst first. `scalar` runs on any machine.
enum class Isa { scalar, sse4, avx2, avx512, neon };
std::string_view name(Isa isa);
// Whether this machine and this build have it.
bool supported(Isa isa);
Isa best_isa();

// The host's own threads. run() calls job(context, worker) once for each worker in [0, workers) and returns
// when all have returned; the calls may run one after another.
class ThreadPool {
 public:
  virtual ~ThreadPool() = default;
  virtual int workers() const = 0;
  virtual void run(int workers, void (*job)(void* context, int worker), void* context) = 0;
};

struct CpuOptions {
  int threads = 0;  // 0: one a physical core, no more than the affinity mask and OMP_NUM_THREADS allow
  ThreadPool* pool = nullptr;  // null: OpenMP when built with it, else the calling thread
  const Isa* isa = nullptr;    // null: the environment's ASHLAR_ISA, else the best one
};

class CpuScratch;
class GemmCache;

namespace detail {
struct ScratchArena;  // a stack of blocks; see CpuScratch
struct CpuResources;  // scratch memory and prepared products
}  // namespace detail

// Where and how CPU ops run: threads, instruction set, scratch memory. Not shared between threads: each
// thread that calls ops has its own; models are const and shared. Results do not depend on the number of
// threads. Inside somebody's OpenMP parallel region one worker runs. An exception thrown by a task is
// rethrown here.
class CpuExec {
 public:
  using Scratch = CpuScratch;

  explicit CpuExec(const CpuOptions& options = {});
  CpuExec(CpuExec&&) noexcept;
  CpuExec& operator=(CpuExec&&) noexcept;
  ~CpuExec();

  int threads() const { return threads_; }
  Isa isa() const { return isa_; }
  // ASHLAR_VERBOSE=1 was in the environment when this context was made: ops print what they ran, and why.
  bool verbose() const { return verbose_; }

  // f(task, worker) for each task in [0, tasks), on up to threads() workers; worker < threads() tells scratch
  // apart. Tasks must write separate outputs: their order and distribution are not defined.
  template <class F>
  void parallel_for(Index tasks, F&& f) {
    auto call = [](void* context, Index task, int worker) {
      (*static_cast<std::remove_reference_t<F>*>(context))(task, worker);
    };
    run(tasks, call, const_cast<void*>(static_cast<const void*>(&f)));
  }

  // For the ops: what the dense layer prepares once a shape.
  GemmCache& gemm_cache();

 private:
  friend class CpuScratch;
  void run(Index tasks, void (*task)(void*, Index, int), void* context);

  int threads_ = 1;
  Isa isa_ = Isa::scalar;
  bool verbose_ = false;
  ThreadPool* pool_ = nullptr;
  detail::CpuResources* resources_ = nullptr;  // owned
};

// Scratch memory of an execution context, given back at the end of the scope. Contents are undefined, rows
// start at 64-byte boundaries only when their length is a multiple of 16 floats. After the first pass through
// a program nothing is allocated.
class CpuScratch {
 public:
  explicit CpuScratch(CpuExec& exec);
  ~CpuScratch();
  CpuScratch(const CpuScratch&) = delete;
  CpuScratch& operator=(const CpuScratch&) = delete;

  template <class T, class... Extents>
  View<T, sizeof...(Extents)> get(Extents... extents) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::array<Index, sizeof...(Extents)> shape{static_cast<Index>(extents)...};
    Index n = 1;
    for (Index e : shape) n *= e;
    return {static_cast<T*>(bytes(n * static_cast<Index>(sizeof(T)))), shape};
  }
  template <class... Extents>
  View<float, sizeof...(Extents)> floats(Extents... extents) {
    return get<float>(extents...);
  }

 private:
  void* bytes(Index n);
  detail::ScratchArena& arena_;
  std::size_t block_, used_;
};

}  // namespace v0
}  // namespace ashlar
