// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>

#include "ashlar/core/cpu_exec.hpp"
#include "hwy/targets.h"

// ASHLAR_DISPATCH(exec, F)(args...): the function kernels::F that HWY_EXPORT(F) exported in namespace
// kernels, compiled for exec's instruction set (not for the process-wide one that Highway would choose).
#define ASHLAR_DISPATCH(exec, F) ASHLAR_DISPATCH_ISA((exec).isa(), F)
#define ASHLAR_DISPATCH_ISA(isa, F) \
  (*kernels::HWY_DISPATCH_TABLE(    \
      F)[::ashlar::detail::dispatch_index((isa), sizeof(kernels::HWY_DISPATCH_TABLE(F)) / sizeof(void*))])

namespace ashlar {
inline namespace v0 {
namespace detail {

constexpr std::int64_t highway_target(Isa isa) {
  switch (isa) {
#if HWY_ARCH_X86
    case Isa::sse4: return HWY_SSE4;
    case Isa::avx2: return HWY_AVX2;
    case Isa::avx512: return HWY_AVX3;
#elif HWY_ARCH_ARM
    case Isa::neon: return HWY_NEON;
#endif
    case Isa::scalar: return HWY_SCALAR | HWY_EMU128;  // whichever this compiler has
    default: return 0;
  }
}

// Row of HWY_EXPORT's table: ascending bits of the target after one reserved entry, the fallback last; a
// build for one target has one row.
inline std::size_t dispatch_index(Isa isa, std::size_t rows) {
  if (rows == 1) return 0;
  const std::int64_t shifted = HWY_CHOSEN_TARGET_SHIFT(highway_target(isa));
  if (isa == Isa::scalar || shifted == 0) return HWY_MAX_DYNAMIC_TARGETS + 1;
  return hwy::Num0BitsBelowLS1Bit_Nonzero64(static_cast<std::uint64_t>(shifted));
}

// "isa=avx2 (avx512 not used: ...)"
std::string isa_reason(Isa isa);
void print(const std::string& line);

}  // namespace detail

// One line of ASHLAR_VERBOSE=1: "ashlar: <op> <what...> kernel=<kernel> isa=<isa> threads=<n>". `kernel` may
// add in brackets why a faster one was refused.
template <class... Parts>
void trace(const CpuExec& exec, std::string_view op, std::string_view kernel, const Parts&... what) {
  if (!exec.verbose()) return;
  detail::print(concat(op, " ", what..., " kernel=", kernel, " ", detail::isa_reason(exec.isa()),
                       " threads=", exec.threads()));
}

}  // namespace v0
}  // namespace ashlar
