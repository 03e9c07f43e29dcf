// SPDX-License-Identifier: Apache-2.0
#include "src/cpu/topology.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace ashlar {
inline namespace v0 {
namespace {

// CPUs of the container's quota, "200000 100000" = 2; 0: no limit is known.
int quota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double allowed = 0, period = 0;
  if (!(file >> allowed >> period) || period <= 0) return 0;
  return std::max(1, static_cast<int>(std::ceil(allowed / period)));
}

}  // namespace

int physical_cores() {
  int cores = 0;
#ifdef __linux__
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) {
    std::set<std::string> siblings;  // CPUs of one core name the same list
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &mask)) continue;
      std::string list;
      std::ifstream("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list") >>
          list;
      siblings.insert(list.empty() ? std::to_string(cpu) : list);
    }
    cores = static_cast<int>(siblings.size());
  }
#endif
  if (cores == 0) cores = static_cast<int>(std::thread::hardware_concurrency());
  if (const int limit = quota(); limit > 0) cores = std::min(cores, limit);
  return std::max(cores, 1);
}

}  // namespace v0
}  // namespace ashlar
