// SPDX-License-Identifier: Apache-2.0
// What a CudaGraph knows of its step: every kernel, library call and upload, in order.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "src/cuda/launch.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

void issue_kernel(CudaExec& exec, const char* op, const void* kernel, const LaunchShape& shape,
                  std::span<void* const> arguments);

// While a step runs it takes the place of the launches: to record them, or to compare them with what was
// recorded. `exec.resources().recording` points to it.
class Recording {
 public:
  enum class Mode { record, replay, eager };

  Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording();

  void begin(CudaExec& exec);
  // Launches what is held back; false when the recording is of no use any more.
  bool finish(CudaExec& exec);
  // The step threw: leaves the stream as it was.
  void abandon(CudaExec& exec) noexcept;
  Mode mode() const { return mode_; }
  // The step waits for the device: it is not to be recorded again.
  bool hopeless() const { return hopeless_; }

  void kernel(CudaExec& exec, const char* op, const void* kernel, const LaunchShape& shape,
              std::span<void* const> arguments, std::span<const std::size_t> sizes);
  void call(CudaExec& exec, const char* op, std::span<const std::byte> signature,
            const std::function<void()>& call);
  void upload(CudaExec& exec, const char* op, const void* host, std::size_t bytes, void* to);
  // All that is held back is issued now, and the rest of the step as it comes.
  void give_up(CudaExec& exec);

 private:
  // Page-locked memory that a recorded upload reads.
  struct Staged {
    explicit Staged(std::size_t bytes);
    ~Staged();
    std::byte* data = nullptr;
  };
  struct Entry {
    const char* op = nullptr;
    const void* kernel = nullptr;  // null: a call or an upload
    LaunchShape shape{};
    std::vector<std::byte> arguments;  // one behind another, each at a multiple of 16; or a signature
    std::vector<void*> pointers;
    cudaGraphNode_t node = nullptr;
    std::function<void()> call;
    std::unique_ptr<Staged> staged;
    void* to = nullptr;
    std::size_t bytes = 0;
  };

  Entry* next();  // in replay: the one that the step should come to
  void issue(CudaExec& exec, const Entry& entry);
  void diverge(CudaExec& exec);

  Mode mode_ = Mode::record;
  bool recorded_ = false, hopeless_ = false;
  std::vector<Entry> entries_;
  std::size_t at_ = 0;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t program_ = nullptr;
};

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
