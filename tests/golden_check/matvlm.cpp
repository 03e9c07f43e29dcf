// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/matvlm.hpp"

#include "ashlar/io/huggingface.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

constexpr double kLayerBound = 2e-5;

// [B, T, D] through f(packed x, out, batch with fresh states), states left in `states`.
template <class F>
Tensor<float, 2> run(const Tensor<float, 1>& x, Index width, std::vector<LayerState<CpuExec>>& states,
                     F&& f) {
  const Index sequences = static_cast<Index>(states.size()), tokens = x.size() / width;
  std::vector<LayerState<CpuExec>*> pointers;
  std::vector<Index> starts{0};
  for (auto& s : states) pointers.push_back(&s), starts.push_back(starts.back() + tokens / sequences);
  SequenceBatch<CpuExec> batch;
  batch.offsets = starts, batch.states = pointers;
  Tensor<float, 2> out({tokens, width});
  f(View<const float, 2>(x.data(), {tokens, width}), out.view(), batch);
  return out;
}

const Runner kMatvlm{
    "matvlm", "matvlm-mamba2*.safetensors: a Phi layer with an attention-shaped Mamba-2, param.* inside",
    [](const Path& path) {
      return path.extension() == ".safetensors" && path.stem().string().starts_with("matvlm-mamba2");
    },
    [](const Path& path, Report& report) {
      const auto file = std::make_shared<const SafetensorsFile>(path.string());
      const auto parameters = embedded_parameters(file);
      const std::string slug = path.stem().string();
      const MatvlmConfig c =
          MatvlmConfig::from(parse_config(file->metadata().at("config"), "the golden's config"));
      CpuExec exec;
      const ParameterReader<CpuExec> r(*parameters, exec);
      const MatvlmBlock<CpuExec> block(c, r);
      r.expect_all_read([](std::string_view) { return false; });
      const auto norm = Norm<CpuExec>::layer(r, "input_layernorm", c.hidden, c.norm_eps);
      const Mamba2<CpuExec> mixer(r.scope("mamba"), c.mixer);

      const Tensor<float, 1> x = floats(*file, "input.x");
      const std::size_t sequences = static_cast<std::size_t>(file->at("input.x").shape[0]);
      std::vector<LayerState<CpuExec>> states(sequences, mixer.new_state(0));
      Tensor<float, 2> normed({x.size() / c.hidden, c.hidden});
      norm({x.data(), normed.shape()}, normed.view(), exec);
      auto compare = [&](const char* name, const float* got, Index size) {
        if (file->contains(name)) report.compare(slug, name, got, size, floats(*file, name), kLayerBound);
      };
      compare("mid.mamba_in", normed.data(), normed.size());
      const Tensor<float, 1> given =
          floats(*file, file->contains("mid.mamba_in") ? "mid.mamba_in" : "input.x");
      const auto mixed =
          run(given, c.hidden, states, [&](auto u, auto y, const auto& batch) { mixer(u, y, batch, exec); });
      compare("mid.mamba_out", mixed.data(), mixed.size());

      // Theirs is [B, H, P, N], ours [H, N, P]; they keep W columns of the convolution's inputs, we the last
      // W - 1.
      const Mamba2Config& m = c.mixer;
      const Index per_head = m.state_dim * m.head_dim, keep = m.conv_width - 1, channels = m.conv_channels();
      std::vector<float> ssm, conv;
      for (const auto& state : states) {
        Tensor<float, 3> s({m.heads, m.state_dim, m.head_dim});
        state.recurrent.export_to(s.view());
        for (Index i = 0; i < m.heads * per_head; ++i)
          ssm.push_back(s.view()(i / per_head, i % m.state_dim, i / m.state_dim % m.head_dim));
        for (Index ch = 0; ch < channels; ++ch)
          for (Index j = 0; j < keep; ++j) conv.push_back(state.inputs.view()(j, ch));
      }
      compare("mid.ssm_state", ssm.data(), static_cast<Index>(ssm.size()));
      if (file->contains("mid.conv_state")) {
        const Tensor<float, 1> theirs = floats(*file, "mid.conv_state");
        const Index width = file->at("mid.conv_state").shape[2];
        Tensor<float, 1> last({static_cast<Index>(conv.size())});
        for (Index i = 0; i < last.size(); ++i)
          last.data()[i] = theirs.data()[i / keep * width + width - keep + i % keep];
        report.compare(slug, "mid.conv_state", conv.data(), last.size(), last, kLayerBound);
      }

      for (auto& state : states) state = block.new_state(0);
      const auto y = run(x, c.hidden, states, [&](auto u, auto out, const auto& batch) {
        Backend<CpuExec>::copy(u.split(1, c.hidden), out.split(1, c.hidden), exec);
        block.forward(out, batch, exec);
      });
      compare("output.y", y.data(), y.size());
    }};
const Registration kRegistered(kMatvlm);

}  // namespace
}  // namespace ashlar::golden
