// SPDX-License-Identifier: Apache-2.0
// What linear-recurrence-family.safetensors has beside the recurrence itself.
#pragma once
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {

// output.gate_*
void check_gates(const std::string& slug, const Parameters& golden, Report& report);
// output.hgrn
void check_hgrn(const std::string& slug, const Parameters& golden, Report& report);

}  // namespace ashlar::golden
