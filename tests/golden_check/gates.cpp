// SPDX-License-Identifier: Apache-2.0
#include "tests/golden_check/gates.hpp"

#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/gated_scan.hpp"

namespace ashlar::golden {
namespace {

constexpr double kBound = 2e-6;

}  // namespace

void check_gates(const std::string& slug, const Parameters& golden, Report& report) {
  if (!golden.contains("input.gate_raw")) return;
  const auto raw = floats(golden, "input.gate_raw"), a_log = floats(golden, "input.gate_A_log"),
             dt_bias = floats(golden, "input.gate_dt_bias"), lb = floats(golden, "input.gate_lower_bound");
  // [B, T, H, K] as tokens of H K channels; the lower bound is of one head's channels.
  const Index channels = dt_bias.size(), tokens = raw.size() / channels;
  Tensor<float, 1> bounds({channels});
  for (Index i = 0; i < channels; ++i) bounds.data()[i] = lb.data()[i % lb.size()];
  CpuExec exec;
  auto check = [&](const char* name, DecayFormula formula, auto&& change) {
    Tensor<float, 2> out({tokens, channels});
    DecayGate args{{raw.data(), {tokens, channels}}, {}, {}, out.view(), formula};
    change(args);
    decay_gate(args, exec);
    if (golden.contains(concat("output.", name)))
      report.compare(slug, name, out.data(), out.size(), floats(golden, concat("output.", name)), kBound);
  };
  auto kda = [&](DecayGate& a) { a.a_log = a_log.view(), a.dt_bias = dt_bias.view(); };
  check("gate_kda", DecayFormula::softplus, kda);
  check("gate_kda_lb5", DecayFormula::bounded, [&](DecayGate& a) { kda(a), a.bound = -5; });
  check("gate_gla16", DecayFormula::log_sigmoid, [](DecayGate& a) { a.temperature = 16; });
  check("gate_rwkv6", DecayFormula::exponential, [](DecayGate&) {});
  check("gate_rwkv7", DecayFormula::bounded, [](DecayGate& a) { a.bound = kRwkv7Bound; });
  check("gate_hgrn_lb", DecayFormula::lower_bounded, [&](DecayGate& a) { a.lower_bound = bounds.view(); });
}

void check_hgrn(const std::string& slug, const Parameters& golden, Report& report) {
  if (!golden.contains("output.hgrn.o")) return;
  const auto x = floats(golden, "input.hgrn_x"), g = floats(golden, "input.gk");
  const auto shape = golden.at("input.hgrn_x").shape;
  const Index batch = shape.at(0), length = shape.at(1), dim = shape.at(2), tokens = batch * length;
  std::vector<Index> starts;
  for (Index n = 0; n <= batch; ++n) starts.push_back(n * length);
  Tensor<float, 2> out({tokens, dim});
  CpuExec exec;
  hgrn(GatedScan{{x.data(), {tokens, dim}}, {g.data(), {tokens, dim}}, out.view(), starts}, exec);
  report.compare(slug, "hgrn.o", out.data(), out.size(), floats(golden, "output.hgrn.o"), kBound);
}

}  // namespace ashlar::golden
