// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/recording.hpp"

#include <algorithm>
#include <cstring>

#include "src/cuda/resources.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {
namespace {

constexpr std::size_t kAlign = 16;  // of arguments, more than any needs

std::size_t packed_size(std::span<const std::size_t> sizes) {
  std::size_t n = 0;
  for (std::size_t size : sizes) n += (size + kAlign - 1) / kAlign * kAlign;
  return n;
}

bool same(const dim3& a, const dim3& b) { return a.x == b.x && a.y == b.y && a.z == b.z; }
// All but the grid, which a graph can change.
bool alike(const LaunchShape& a, const LaunchShape& b) {
  return same(a.block, b.block) && same(a.cluster, b.cluster) && a.shared == b.shared &&
         a.overlaps == b.overlaps;
}

// The node that the last captured operation became.
cudaGraphNode_t last_node(CudaStream stream, const char* op) {
  cudaStreamCaptureStatus status;
  const cudaGraphNode_t* nodes = nullptr;
  std::size_t count = 0;
  check_cuda(cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, nullptr, &count), op);
  return count == 1 ? nodes[0] : nullptr;
}

}  // namespace

Recording::Staged::Staged(std::size_t bytes) { check_cuda(cudaMallocHost(&data, bytes), "CudaGraph"); }
Recording::Staged::~Staged() {
  if (data != nullptr) cudaFreeHost(data);
}

Recording::~Recording() {
  if (program_ != nullptr) cudaGraphExecDestroy(program_);
  if (graph_ != nullptr) cudaGraphDestroy(graph_);
}

void Recording::begin(CudaExec& exec) {
  at_ = 0;
  // Page-locked lists may still be read by the run before.
  check_cuda(cudaStreamSynchronize(exec.stream()), "CudaGraph");
  if (recorded_) {
    mode_ = Mode::replay;
    return;
  }
  mode_ = Mode::record;
  entries_.clear();
  // Relaxed: page-locked memory of uploads, and scratch memory that still grows, may be allocated meanwhile.
  check_cuda(cudaStreamBeginCapture(exec.stream(), cudaStreamCaptureModeRelaxed), "CudaGraph");
}

Recording::Entry* Recording::next() { return at_ < entries_.size() ? &entries_[at_] : nullptr; }

void Recording::kernel(CudaExec& exec, const char* op, const void* kernel, const LaunchShape& shape,
                       std::span<void* const> arguments, std::span<const std::size_t> sizes) {
  if (mode_ == Mode::replay) {
    Entry* const entry = next();
    if (entry != nullptr && entry->kernel == kernel && alike(entry->shape, shape)) {
      bool changed = !same(entry->shape.grid, shape.grid);
      entry->shape.grid = shape.grid;
      for (std::size_t i = 0; i < arguments.size(); ++i) {
        if (std::memcmp(entry->pointers[i], arguments[i], sizes[i]) == 0) continue;
        std::memcpy(entry->pointers[i], arguments[i], sizes[i]);
        changed = true;
      }
      if (changed) {
        cudaKernelNodeParams p{};
        p.func = const_cast<void*>(kernel), p.gridDim = shape.grid, p.blockDim = shape.block;
        p.sharedMemBytes = static_cast<unsigned>(shape.shared), p.kernelParams = entry->pointers.data();
        check_cuda(cudaGraphExecKernelNodeSetParams(program_, entry->node, &p), op);
      }
      ++at_;
      return;
    }
    diverge(exec);
  }
  issue_kernel(exec, op, kernel, shape, arguments);
  if (mode_ != Mode::record) return;
  Entry& entry = entries_.emplace_back();
  entry.op = op, entry.kernel = kernel, entry.shape = shape, entry.node = last_node(exec.stream(), op);
  entry.arguments.resize(packed_size(sizes));
  std::byte* at = entry.arguments.data();
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::memcpy(at, arguments[i], sizes[i]);
    entry.pointers.push_back(at);
    at += (sizes[i] + kAlign - 1) / kAlign * kAlign;
  }
}

void Recording::call(CudaExec& exec, const char* op, std::span<const std::byte> signature,
                     const std::function<void()>& call) {
  if (mode_ == Mode::replay) {
    const Entry* const entry = next();
    if (entry != nullptr && entry->call && std::ranges::equal(entry->arguments, signature)) {
      ++at_;
      return;
    }
    diverge(exec);
  }
  call();
  if (mode_ != Mode::record) return;
  Entry& entry = entries_.emplace_back();
  entry.op = op, entry.call = call;
  entry.arguments.assign(signature.begin(), signature.end());
}

void Recording::upload(CudaExec& exec, const char* op, const void* host, std::size_t bytes, void* to) {
  if (mode_ == Mode::replay) {
    const Entry* const entry = next();
    if (entry != nullptr && entry->staged && entry->to == to && entry->bytes == bytes) {
      std::memcpy(entry->staged->data, host, bytes);
      ++at_;
      return;
    }
    diverge(exec);
  }
  if (mode_ != Mode::record) {
    exec.resources().recording = nullptr;
    ashlar::upload(exec, op, host, bytes, to);
    exec.resources().recording = this;
    return;
  }
  Entry& entry = entries_.emplace_back();
  entry.op = op, entry.to = to, entry.bytes = bytes;
  entry.staged = std::make_unique<Staged>(bytes);
  std::memcpy(entry.staged->data, host, bytes);
  check_cuda(cudaMemcpyAsync(to, entry.staged->data, bytes, cudaMemcpyHostToDevice, exec.stream()), op);
}

void Recording::issue(CudaExec& exec, const Entry& entry) {
  if (entry.kernel != nullptr)
    issue_kernel(exec, entry.op, entry.kernel, entry.shape, entry.pointers);
  else if (entry.call)
    entry.call();
  else
    check_cuda(
        cudaMemcpyAsync(entry.to, entry.staged->data, entry.bytes, cudaMemcpyHostToDevice, exec.stream()),
        entry.op);
}

// What was held back so far, with the arguments of this run.
void Recording::diverge(CudaExec& exec) {
  mode_ = Mode::eager, recorded_ = false;
  for (std::size_t i = 0; i < at_; ++i) issue(exec, entries_[i]);
}

void Recording::give_up(CudaExec& exec) {
  hopeless_ = true;
  if (mode_ == Mode::replay) return diverge(exec);
  if (mode_ != Mode::record) return;
  cudaGraph_t unused = nullptr;
  check_cuda(cudaStreamEndCapture(exec.stream(), &unused), "CudaGraph");
  if (unused != nullptr) cudaGraphDestroy(unused);
  mode_ = Mode::eager;
  for (const Entry& entry : entries_) issue(exec, entry);
}

bool Recording::finish(CudaExec& exec) {
  if (mode_ == Mode::record) {
    if (graph_ != nullptr) check_cuda(cudaGraphDestroy(std::exchange(graph_, nullptr)), "CudaGraph");
    check_cuda(cudaStreamEndCapture(exec.stream(), &graph_), "CudaGraph");
    if (program_ != nullptr) check_cuda(cudaGraphExecDestroy(std::exchange(program_, nullptr)), "CudaGraph");
    check_cuda(cudaGraphInstantiate(&program_, graph_, 0), "CudaGraph");
    recorded_ = true;
  } else if (mode_ == Mode::replay && at_ != entries_.size()) {
    diverge(exec);  // the step ended early
  }
  if (mode_ != Mode::eager) check_cuda(cudaGraphLaunch(program_, exec.stream()), "CudaGraph");
  return recorded_;
}

void Recording::abandon(CudaExec& exec) noexcept {
  if (mode_ == Mode::record) {
    cudaGraph_t unused = nullptr;
    cudaStreamEndCapture(exec.stream(), &unused);
    if (unused != nullptr) cudaGraphDestroy(unused);
    cudaGetLastError();
  }
  recorded_ = false, mode_ = Mode::eager;
}

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
