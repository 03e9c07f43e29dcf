// SPDX-License-Identifier: Apache-2.0
#include "tests/golden_check/linear_layers.hpp"

#include <algorithm>

#include "ashlar/io/huggingface.hpp"

namespace ashlar::golden {

std::vector<LayerKind>& layer_kinds() {
  static std::vector<LayerKind> all;
  return all;
}

namespace {

constexpr double kLayerBound = 2e-5;

// The recurrent states of a batch as the golden has them.
std::vector<float> exported(const std::vector<LayerState<CpuExec>>& states, bool value_first) {
  std::vector<float> all;
  for (const auto& state : states) {
    const RecurrentState& r = state.recurrent;
    Tensor<float, 3> s({r.heads(), r.key_dim(), r.value_dim()});
    if (s.size() != 0) r.export_to(s.view());
    for (Index i = 0; i < s.size(); ++i) {
      const Index h = i / (r.key_dim() * r.value_dim()), at = i % (r.key_dim() * r.value_dim());
      all.push_back(value_first ? s.view()(h, at % r.key_dim(), at / r.key_dim()) : s.data()[i]);
    }
  }
  return all;
}

void check_layer(const Value& config, const SafetensorsFile& file, const ParameterReader<CpuExec>& all,
                 const LayerKind& kind, Report& report, CpuExec& exec) {
  const std::string tag = config.get_string("tag", ""), input = concat("input.", tag, ".x");
  const auto mixer = kind.make(config, all.scope(tag));
  const Tensor<float, 1> x = floats(file, input);
  const auto shape = file.at(input).shape;
  const Index sequences = shape.at(0), length = shape.at(1), tokens = sequences * length, width = shape.at(2);

  std::vector<LayerState<CpuExec>> states(static_cast<std::size_t>(sequences), mixer->new_state(length));
  std::vector<LayerState<CpuExec>*> pointers;
  std::vector<Index> starts{0}, positions;
  for (auto& state : states) {
    pointers.push_back(&state), starts.push_back(starts.back() + length);
    for (Index t = 0; t < length; ++t) positions.push_back(t);
  }
  SequenceBatch<CpuExec> batch;
  batch.offsets = starts, batch.states = pointers;
  batch.positions = {positions.data(), {tokens}};
  Tensor<float, 1> shared;
  if (kind.shared_width != nullptr) {
    const std::string name = concat("input.", tag, ".v_first");
    const Index wide = kind.shared_width(config);
    shared = file.contains(name) ? floats(file, name) : Tensor<float, 1>({tokens * wide});
    batch.shared = {shared.data(), {tokens, shared.size() / tokens}};
  }
  Tensor<float, 2> out({tokens, width});
  (*mixer)({x.data(), {tokens, width}}, out.view(), batch, exec);
  const std::string slug = concat("linear-layers ", tag);
  report.compare(slug, "y", out.data(), out.size(), floats(file, concat("output.", tag, ".y")), kLayerBound);
  const std::string state = concat("mid.", tag, ".recurrent_state");
  if (!file.contains(state)) return;
  const std::vector<float> got = exported(states, kind.value_first);
  report.compare(slug, "recurrent_state", got.data(), static_cast<Index>(got.size()), floats(file, state),
                 kLayerBound);
}

const Runner kLinearLayers{
    "linear-layers", "linear-layers*.safetensors, layers of flash-linear-attention with their configs inside",
    [](const Path& path) {
      return path.extension() == ".safetensors" && path.stem().string().starts_with("linear-layers");
    },
    [](const Path& path, Report& report) {
      const auto file = std::make_shared<const SafetensorsFile>(path.string());
      const auto parameters = embedded_parameters(file);
      CpuExec exec;
      const ParameterReader<CpuExec> all(*parameters, exec);
      const Value configs = parse_config(file->metadata().at("config"), "the golden's config");
      if (configs.array() == nullptr)
        throw Error("InvalidConfig", "golden: its config is not a list of layers");
      for (const Value& config : *configs.array()) {
        const std::string cls = config.get_string("cls", "");
        const auto kind = std::find_if(layer_kinds().begin(), layer_kinds().end(),
                                       [&](const LayerKind& k) { return cls == k.cls; });
        if (kind == layer_kinds().end())
          report.skip("linear-layers", concat(config.get_string("tag", ""), " ", cls));
        else
          check_layer(config, *file, all, *kind, report, exec);
      }
    }};
const Registration kRegistered(kLinearLayers);

}  // namespace
}  // namespace ashlar::golden
