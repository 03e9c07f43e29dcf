// SPDX-License-Identifier: Apache-2.0
// The CUDA layer of a build without it: the same functions, so that every configuration links. A CudaExec cannot
// be made, so that no op is ever called.
#include "ashlar/cuda/backend.hpp"
#include "ashlar/cuda/graph.hpp"
#include "ashlar/cuda/ops.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr const char* kWhy = "this build has no CUDA layer, configure it with -DASHLAR_CUDA=ON";

[[noreturn]] void no_cuda(std::string_view who) { throw Error("NoCuda", concat(who, ": ", kWhy)); }

}  // namespace

bool cuda_available(std::string* why) {
  if (why != nullptr) *why = kWhy;
  return false;
}

CudaExec::CudaExec(const CudaOptions&) { no_cuda("CudaExec"); }

}  // namespace v0
}  // namespace ashlar
