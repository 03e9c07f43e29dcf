// SPDX-License-Identifier: Apache-2.0
// Layers of flash-linear-attention by the names of their classes: a translation unit registers those that it
// knows.
#pragma once
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/parameter_reader.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {

struct LayerKind {
  const char* cls;
  std::unique_ptr<Mixer<CpuExec>> (*make)(const Value& config, const ParameterReader<CpuExec>& r);
  bool value_first = false;                              // its recurrent_state is [B, H, V, K]
  Index (*shared_width)(const Value& config) = nullptr;  // of SequenceBatch::shared, input.<tag>.v_first
};

std::vector<LayerKind>& layer_kinds();

struct LayerRegistration {
  explicit LayerRegistration(const LayerKind& kind) { layer_kinds().push_back(kind); }
};

}  // namespace ashlar::golden
