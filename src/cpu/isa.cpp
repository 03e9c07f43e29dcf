// SPDX-License-Identifier: Apache-2.0
#include "src/cpu/dispatch.hpp"

#include "hwy/highway.h"

namespace ashlar {
inline namespace v0 {

std::string_view name(Isa isa) {
  constexpr std::string_view names[] = {"scalar", "sse4", "avx2", "avx512", "neon"};
  return names[static_cast<int>(isa)];
}

bool supported(Isa isa) {
  const std::int64_t target = detail::highway_target(isa);
  if ((target & HWY_TARGETS) == 0) return false;
  return (target & (HWY_STATIC_TARGET | hwy::SupportedTargets())) != 0;
}

Isa best_isa() {
  for (Isa isa : {Isa::avx512, Isa::avx2, Isa::sse4, Isa::neon})
    if (supported(isa)) return isa;
  return Isa::scalar;
}

std::string detail::isa_reason(Isa isa) {
  std::string text = concat("isa=", name(isa));
  const Isa best = best_isa();
  if (isa != best) return concat(text, " (", name(best), " not used: another was asked for)");
  if (HWY_ARCH_X86 && best != Isa::avx512) text += " (a wider one is not in this machine or build)";
  return text;
}

void detail::print(const std::string& line) { std::fprintf(stderr, "ashlar: %s\n", line.c_str()); }

}  // namespace v0
}  // namespace ashlar
