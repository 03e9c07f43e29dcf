// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <type_traits>

#include "ashlar/cuda/cuda_exec.hpp"

namespace ashlar {
inline namespace v0 {

// A step that is run again and again, such as the decoding of one token, as one CUDA graph:
//
//   CudaGraph graph;
//   for (...) graph.run(exec, [&] { model.decode(ids, caches, logits, exec); });
//
// The first run goes op by op, the second is recorded. From then on the step's host code runs with its
// launches held back and compared with the recorded ones; arguments that changed are changed in the graph,
// which is then launched as a whole. A step that launches something else, or the same in another order, runs
// op by op and is recorded anew; one that waits for the device (experts that the host gathers) is never
// recorded. So a run has the results of its step, whatever the step does. Runs of one graph use one context.
class CudaGraph {
 public:
  CudaGraph();
  CudaGraph(CudaGraph&&) noexcept;
  CudaGraph& operator=(CudaGraph&&) noexcept;
  ~CudaGraph();

  template <class F>
  void run(CudaExec& exec, F&& step) {
    run(
        exec, [](void* context) { (*static_cast<std::remove_reference_t<F>*>(context))(); },
        const_cast<void*>(static_cast<const void*>(&step)));
  }

  // How the last run went.
  enum class Run { none, eager, recorded, replayed };
  Run last() const;

 private:
  struct Impl;
  void run(CudaExec& exec, void (*step)(void*), void* context);
  std::unique_ptr<Impl> impl_;
};

}  // namespace v0
}  // namespace ashlar
