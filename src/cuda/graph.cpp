// SPDX-License-Identifier: Apache-2.0
#include "ashlar/cuda/graph.hpp"

#include "src/cuda/recording.hpp"
#include "src/cuda/resources.hpp"

namespace ashlar {
inline namespace v0 {

struct CudaGraph::Impl {
  detail::Recording recording;
  bool warm = false;  // scratch memory has its size
  Run last = Run::none;
};

CudaGraph::CudaGraph() : impl_(std::make_unique<Impl>()) {}
CudaGraph::CudaGraph(CudaGraph&&) noexcept = default;
CudaGraph& CudaGraph::operator=(CudaGraph&&) noexcept = default;
CudaGraph::~CudaGraph() = default;

CudaGraph::Run CudaGraph::last() const { return impl_->last; }

void CudaGraph::run(CudaExec& exec, void (*step)(void*), void* context) {
  detail::CudaResources& resources = exec.resources();
  if (resources.recording != nullptr) refuse("CudaGraph", "a graph's step runs another graph");
  detail::Recording& recording = impl_->recording;
  if (!impl_->warm || recording.hopeless()) {
    impl_->last = Run::eager;
    step(context);
    impl_->warm = true;
    return;
  }
  recording.begin(exec);
  resources.recording = &recording;
  try {
    step(context);
    resources.recording = nullptr;
    // A step that changed goes op by op once more, so that scratch memory has its size.
    impl_->warm = recording.finish(exec) || recording.hopeless();
  } catch (...) {
    resources.recording = nullptr;
    recording.abandon(exec);
    impl_->warm = false;
    throw;
  }
  using Mode = detail::Recording::Mode;
  const Mode mode = recording.mode();
  impl_->last = mode == Mode::record ? Run::recorded : mode == Mode::replay ? Run::replayed : Run::eager;
}

}  // namespace v0
}  // namespace ashlar
