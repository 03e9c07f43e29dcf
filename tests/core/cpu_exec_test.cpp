// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/cpu_exec.hpp"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <set>

#include "tests/support.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace ashlar {
namespace {

TEST(CpuExec, RunsEachTaskOnceWithAWorkerOfItsOwn) {
  for (CpuExec& exec : test::contexts())
    for (const Index tasks : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> ran(static_cast<std::size_t>(tasks));
      std::vector<std::atomic<int>> busy(static_cast<std::size_t>(exec.threads()));
      exec.parallel_for(tasks, [&](Index task, int worker) {
        EXPECT_EQ(busy[static_cast<std::size_t>(worker)]++, 0)
            << "two tasks at once with one worker's number";
        ++ran[static_cast<std::size_t>(task)];
        --busy[static_cast<std::size_t>(worker)];
      });
      for (const auto& count : ran) EXPECT_EQ(count, 1);
    }
}

TEST(CpuExec, RethrowsWhatATaskThrows) {
  for (CpuExec& exec : test::contexts()) {
    EXPECT_EQ(test::refusal([&] {
                exec.parallel_for(100, [](Index task, int) {
                  if (task == 17) refuse("task", "number ", task, " is bad");
                });
              }),
              "task: number 17 is bad");
    std::atomic<int> ran = 0;  // and works on
    exec.parallel_for(10, [&](Index, int) { ++ran; });
    EXPECT_EQ(ran, 10);
  }
}

#ifdef _OPENMP
TEST(CpuExec, HasOneWorkerInsideSomebodysParallelRegion) {
  std::mutex mutex;
  std::set<int> workers;
#pragma omp parallel num_threads(2)
  {
    CpuExec exec({4});
    exec.parallel_for(64, [&](Index, int worker) {
      const std::lock_guard lock(mutex);
      workers.insert(worker);
    });
  }
  EXPECT_EQ(workers, std::set<int>{0});
}
#endif

TEST(CpuExec, TakesTheInstructionSetOfTheEnvironment) {
  setenv("ASHLAR_ISA", "scalar", 1);
  EXPECT_EQ(CpuExec().isa(), Isa::scalar);
  const Isa best = best_isa();
  EXPECT_EQ(CpuExec({1, nullptr, &best}).isa(), best);  // what the program says goes first
  setenv("ASHLAR_ISA", "mmx", 1);
  EXPECT_TRUE(
      test::refusal([] { CpuExec(); }).starts_with("CpuExec: ASHLAR_ISA is \"mmx\", expected one of"));
  unsetenv("ASHLAR_ISA");
  EXPECT_EQ(CpuExec().isa(), best);
  EXPECT_EQ(test::refusal([] { CpuExec({-1}); }), "CpuExec: threads is -1, expected 0 (default) or more");
}

TEST(CpuScratch, NestsGrowsAndStaysWhereItIs) {
  CpuExec exec({1});
  const float* first = nullptr;
  for (int pass = 0; pass < 3; ++pass) {
    CpuScratch outer(exec);
    const auto a = outer.floats(3, 5);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data) % 64, 0u);
    std::fill_n(a.data, 15, 1.0f);
    for (int inner_pass = 0; inner_pass < 2; ++inner_pass) {
      CpuScratch inner(exec);
      const auto b = inner.floats(1 << 20), c = inner.floats(1 << 19);  // more than the first block
      std::fill_n(b.data, b.size(), 2.0f), std::fill_n(c.data, c.size(), 3.0f);
      EXPECT_EQ(b(b.size() - 1), 2.0f);
    }
    for (Index i = 0; i < 15; ++i) EXPECT_EQ(a.data[i], 1.0f);
    if (pass == 1) first = a.data;
    if (pass == 2) {
      EXPECT_EQ(a.data, first);  // one block holds it all by now
    }
  }
}

}  // namespace
}  // namespace ashlar
