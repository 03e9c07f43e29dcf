// SPDX-License-Identifier: Apache-2.0
// What the users of oneDNN share.
#pragma once
#include <dnnl.hpp>

// oneDNN's own OpenMP; absent when it was built for another runtime.
extern "C" {
int omp_get_max_threads() __attribute__((weak));
void omp_set_num_threads(int) __attribute__((weak));
}

namespace ashlar {
inline namespace v0 {

// Our loops are the parallel ones: inside, oneDNN has one thread.
class OneDnnOnOneThread {
 public:
  OneDnnOnOneThread() : before_(omp_get_max_threads != nullptr ? omp_get_max_threads() : 1) { set(1); }
  ~OneDnnOnOneThread() { set(before_); }
  OneDnnOnOneThread(const OneDnnOnOneThread&) = delete;
  OneDnnOnOneThread& operator=(const OneDnnOnOneThread&) = delete;

 private:
  void set(int n) const {
    if (before_ != 1 && omp_set_num_threads != nullptr) omp_set_num_threads(n);
  }
  int before_;
};

inline dnnl::engine& onednn_cpu() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

}  // namespace v0
}  // namespace ashlar
