// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/cpu_exec.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <utility>
#include <vector>

#include "ashlar/core/tensor.hpp"
#include "src/core/scratch_stack.hpp"
#include "src/cpu/gemm.hpp"
#include "src/cpu/topology.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace ashlar {
inline namespace v0 {
namespace detail {

struct ScratchArena : ScratchStack<HostBlock> {};

struct CpuResources {
  ScratchArena arena;
  GemmCache gemm_cache;
};

}  // namespace detail

namespace {

int default_threads() {
  int n = physical_cores();
#ifdef _OPENMP
  if (std::getenv("OMP_NUM_THREADS") != nullptr) n = std::min(n, omp_get_max_threads());
  return n;
#else
  return std::min(n, 1);
#endif
}

Isa isa_from_environment() {
  const char* wanted = std::getenv("ASHLAR_ISA");
  if (wanted == nullptr || *wanted == '\0') return best_isa();
  std::string known;
  for (Isa isa : {Isa::scalar, Isa::sse4, Isa::avx2, Isa::avx512, Isa::neon}) {
    if (!supported(isa)) continue;
    if (name(isa) == wanted) return isa;
    known.append(" ").append(name(isa));
  }
  refuse("CpuExec", "ASHLAR_ISA is \"", wanted,
         "\", expected one of those that this machine and build have:", known);
}

// What the workers of one parallel_for share.
struct Run {
  Index tasks;
  void (*task)(void*, Index, int);
  void* context;
  std::atomic<Index> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error{};
  std::mutex mutex{};

  void work(int worker) {
    try {
      for (Index i; !failed.load(std::memory_order_relaxed) &&
                    (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
        task(context, i, worker);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failed.exchange(true)) error = std::current_exception();
    }
  }
};

}  // namespace

CpuExec::CpuExec(const CpuOptions& options)
    : isa_(options.isa != nullptr ? *options.isa : isa_from_environment()), pool_(options.pool) {
  if (!supported(isa_))
    refuse("CpuExec", "instruction set ", name(isa_), " is not available on this machine");
  if (options.threads < 0)
    refuse("CpuExec", "threads is ", options.threads, ", expected 0 (default) or more");
  threads_ = options.threads != 0 ? options.threads : pool_ != nullptr ? pool_->workers() : default_threads();
  if (pool_ != nullptr) threads_ = std::min(threads_, pool_->workers());
#ifndef _OPENMP
  if (pool_ == nullptr) threads_ = 1;
#endif
  threads_ = std::max(threads_, 1);
  const char* verbose = std::getenv("ASHLAR_VERBOSE");
  verbose_ = verbose != nullptr && *verbose != '\0' && std::string_view(verbose) != "0";
  resources_ = new detail::CpuResources;  // last: nothing behind it throws
}

CpuExec::CpuExec(CpuExec&& other) noexcept
    : threads_(other.threads_),
      isa_(other.isa_),
      verbose_(other.verbose_),
      pool_(other.pool_),
      resources_(std::exchange(other.resources_, nullptr)) {}

CpuExec& CpuExec::operator=(CpuExec&& other) noexcept {
  threads_ = other.threads_, isa_ = other.isa_, verbose_ = other.verbose_, pool_ = other.pool_;
  std::swap(resources_, other.resources_);
  return *this;
}

CpuExec::~CpuExec() { delete resources_; }

GemmCache& CpuExec::gemm_cache() { return resources_->gemm_cache; }

void CpuExec::run(Index tasks, void (*task)(void*, Index, int), void* context) {
  // Always the whole team: OpenMP makes a new one, with allocations, whenever the number changes.
  int workers = tasks > 1 ? threads_ : 1;
#ifdef _OPENMP
  if (pool_ == nullptr && omp_in_parallel()) workers = 1;
#endif
  if (workers == 1) {
    for (Index i = 0; i < tasks; ++i) task(context, i, 0);
    return;
  }
  Run shared{tasks, task, context};
  if (pool_ != nullptr) {
    pool_->run(
        workers, [](void* run, int worker) { static_cast<Run*>(run)->work(worker); }, &shared);
  } else {
#ifdef _OPENMP
#pragma omp parallel num_threads(workers)
    shared.work(omp_get_thread_num());
#endif
  }
  if (shared.error) std::rethrow_exception(shared.error);
}

CpuScratch::CpuScratch(CpuExec& exec) : arena_(exec.resources_->arena) {
  const auto mark = arena_.enter();
  block_ = mark.block, used_ = mark.used;
}

CpuScratch::~CpuScratch() { arena_.leave({block_, used_}); }

void* CpuScratch::bytes(Index n) { return arena_.bytes(n); }

}  // namespace v0
}  // namespace ashlar
