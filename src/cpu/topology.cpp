// SPDX-License-Identifier: Apache-2.0
#include "src/cpu/topology.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif
#ifdef _OPENMP
#include <omp.h>
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

// CPUs that this process may run on; empty: unknown. A thread that OpenMP has bound (OMP_PLACES,
// OMP_PROC_BIND) may itself run on those of its place alone: then they are the CPUs of all places.
std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#ifdef _OPENMP
  if (omp_get_proc_bind() != omp_proc_bind_false)
    for (int place = 0; place < omp_get_num_places(); ++place) {
      std::vector<int> of_place(static_cast<std::size_t>(omp_get_place_num_procs(place)));
      omp_get_place_proc_ids(place, of_place.data());
      cpus.insert(cpus.end(), of_place.begin(), of_place.end());
    }
#endif
#ifdef __linux__
  cpu_set_t mask;
  if (cpus.empty() && sched_getaffinity(0, sizeof mask, &mask) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
#endif
  return cpus;
}

}  // namespace

int physical_cores() {
  std::set<std::string> siblings;  // CPUs of one core name the same list
  for (const int cpu : allowed_cpus()) {
    std::string list;
    std::ifstream("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list") >>
        list;
    siblings.insert(list.empty() ? std::to_string(cpu) : list);
  }
  int cores = static_cast<int>(siblings.size());
  if (cores == 0) cores = static_cast<int>(std::thread::hardware_concurrency());
  if (const int limit = quota(); limit > 0) cores = std::min(cores, limit);
  return std::max(cores, 1);
}

}  // namespace v0
}  // namespace ashlar
