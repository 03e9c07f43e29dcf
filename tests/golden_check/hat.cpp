// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/hat.hpp"

#include "tests/golden_check/images.hpp"

namespace ashlar::golden {
namespace {

constexpr double kModelBound = 1e-4;

// Pixels of an image in the order of its windows, [windows * w * w, C].
std::vector<float> windowed(View<const float, 4> x, Index window) {
  const GroupMap map = GroupMap::window({x.shape[1], x.shape[2]}, {window, window});
  std::vector<float> all;
  for (Index g = 0; g < map.groups(); ++g)
    for (Index n = 0; n < map.slots(); ++n) {
      const GroupMap::Slot s = map.at(g, n);
      all.insert(all.end(), x.at(0, s.row, s.column), x.at(0, s.row, s.column) + x.shape[3]);
    }
  return all;
}

// The checkpoint's own index of positions is the one that is worked out here.
void check_index(const std::string& slug, const char* name, const Tensor<std::int32_t, 2>& ours,
                 const Parameters& weights, Report& report) {
  if (!weights.contains(name)) return;
  const Parameter theirs = weights.at(name);
  bool same = theirs.dtype == DType::i64 && theirs.size() == ours.size();
  const auto* want = static_cast<const std::int64_t*>(theirs.data);
  for (Index i = 0; same && i < ours.size(); ++i) same = want[i] == ours.data()[i];
  report.check(slug, name, same, concat(ours.size(), " integers"));
}

void check_parts(const std::string& slug, const Value& config, const Parameters& weights,
                 const Parameters& golden, Report& report) {
  CpuExec exec;
  const HatConfig c = HatConfig::from(config, weights);
  const auto net = load_hat(config, weights, exec);
  check_index(slug, "relative_position_index_SA", window_position_index({c.window, c.window}), weights,
              report);
  check_index(slug, "relative_position_index_OCA", overlapping_position_index(c.window, c.overlap, false),
              weights, report);
  const auto same = [&](const std::string& name, View<const float, 4> got) {
    if (golden.contains(name)) compare_image(slug, name, got, golden, kModelBound, report);
  };
  const Tensor<float, 4> padded = image_of(golden, "mid.padded_input");
  const auto [images, height, width, channels] = padded.shape();
  Tensor<float, 4> x(padded.shape()), f({images, height, width, c.channels}), t(f.shape());
  net->normalize(padded.view(), x.view(), exec);
  net->parts().first(x.view(), f.view(), exec);
  same("mid.conv_first", f.view());
  net->parts().embed_norm(as_tokens(f.view()), as_tokens(t.view()), exec);
  const auto& group = dynamic_cast<const HatGroup<CpuExec>&>(*net->parts().groups.front());
  Tensor<float, 4> y = t;
  for (std::size_t i = 0; i < group.blocks().size(); ++i) {
    const HybridAttentionBlock<CpuExec>& block = group.blocks()[i];
    const std::string name = concat("mid.layer0.block", i);
    Tensor<float, 4> n(f.shape()), part(f.shape());
    block.norm1()(as_tokens(y.view()), as_tokens(n.view()), exec);
    std::fill_n(part.data(), part.size(), 0.0f);
    block.cab()(n.view(), part.view(), 1, exec);
    same(name + ".cab", part.view());
    if (golden.contains(name + ".attn_windows")) {
      block.attention()(n.view(), n.view(), exec);
      const std::vector<float> windows = windowed(n.view(), c.window);
      report.compare(slug, name + ".attn_windows", windows.data(), static_cast<Index>(windows.size()),
                     floats(golden, name + ".attn_windows"), kModelBound);
    }
    block(y.view(), exec);
    same(name, y.view());
  }
  group.overlapping()(y.view(), exec);
  same("mid.layer0.ocab", y.view());
  for (std::size_t g = 0; g < net->parts().groups.size(); ++g) {
    net->parts().groups[g]->forward(t.view(), exec);
    same(concat("mid.layer", g), t.view());
  }
  if (net->parts().after_body) {
    net->parts().norm(as_tokens(t.view()), as_tokens(t.view()), exec);
    Tensor<float, 4> body(f.shape()), zero(f.shape());
    net->parts().after_body(t.view(), zero.view(), body.view(), exec);
    same("mid.conv_after_body", body.view());
  }
  Tensor<float, 4> out({images, net->scale() * height, net->scale() * width, net->info().out_channels});
  net->forward(padded.view(), out.view(), exec);
  same("mid.model_output_uncropped", out.view());
}

const Runner kHat{"hat", "hat*.safetensors: a HAT network, param.* inside",
                  [](const Path& path) {
                    return path.extension() == ".safetensors" && path.stem().string().starts_with("hat");
                  },
                  [](const Path& path, Report& report) {
                    const auto file = std::make_shared<const SafetensorsFile>(path.string());
                    const auto weights = embedded_parameters(file);
                    const std::string slug = path.stem().string();
                    check_restoration(slug, "HAT", config_of(*file), *weights, *file, report);
                    if (file->contains("mid.padded_input"))
                      check_parts(slug, config_of(*file), *weights, *file, report);
                  }};
const Registration kRegistered(kHat);

}  // namespace
}  // namespace ashlar::golden
