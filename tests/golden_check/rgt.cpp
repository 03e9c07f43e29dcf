// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/rgt.hpp"

#include "ashlar/io/checkpoint.hpp"
#include "tests/golden_check/images.hpp"

namespace ashlar::golden {
namespace {

constexpr double kOpBound = 2e-5, kModelBound = 1e-4;

// "a.b_pth" is the golden of a checkpoint "a.b.pth" beside it.
Path checkpoint_of(const Path& path) {
  const std::string stem = path.stem().string();
  return path.parent_path() / (stem.substr(0, stem.size() - 4) + ".pth");
}

void check_parts(const std::string& slug, const Value& config, const Parameters& weights,
                 const Parameters& golden, Report& report) {
  CpuExec exec;
  const auto net = load_rgt(config, weights, exec);
  const Tensor<float, 4> image = image_of(golden, "input.lq");
  const auto [images, height, width, channels] = image.shape();
  const Index dim = RgtConfig::from(config, weights).channels;
  Tensor<float, 4> x(image.shape()), t({images, height, width, dim});
  net->normalize(image.view(), x.view(), exec);
  net->parts().first(x.view(), t.view(), exec);
  net->parts().embed_norm(as_tokens(t.view()), as_tokens(t.view()), exec);
  for (std::size_t g = 0; g < net->parts().groups.size(); ++g) {
    const auto& group = dynamic_cast<const RgtGroup<CpuExec>&>(*net->parts().groups[g]);
    Tensor<float, 4> y = t, n(t.shape());
    for (std::size_t i = 0; i < group.blocks().size(); ++i) {
      const RgtBlock<CpuExec>& block = group.blocks()[i];
      block.norm1()(as_tokens(y.view()), as_tokens(n.view()), exec);
      block.attend(n.view(), n.view(), exec);
      if (const std::string name = concat("mid.layer", g, ".block", i, ".attn"); golden.contains(name))
        compare_image(slug, name, n.view(), golden, kModelBound, report);
      block(y.view(), exec);
    }
    group.forward(t.view(), exec);
  }
}

std::array<Index, 2> pair_of(const Value& config, const char* key) {
  const Value::Array* list = config.find(key) != nullptr ? config.find(key)->array() : nullptr;
  if (list == nullptr || list->size() != 2 || (*list)[0].integer() == nullptr ||
      (*list)[1].integer() == nullptr)
    throw Error("InvalidConfig", concat("golden: \"", key, "\" is no pair of integers"));
  return {static_cast<Index>(*(*list)[0].integer()), static_cast<Index>(*(*list)[1].integer())};
}

// input.x through a layer, against output.y.
template <class Layer>
void check_layer(const std::string& slug, const Value& config, const Parameters& golden, const Layer& layer,
                 Report& report) {
  CpuExec exec;
  const Tensor<float, 4> x = tokens_of(golden, "input.x", {config.get_integer("H"), config.get_integer("W")});
  Tensor<float, 4> y(x.shape());
  layer(x.view(), y.view(), exec);
  compare_image(slug, "output.y", y.view(), golden, kOpBound, report);
}

void check_local(const std::string& slug, const Value& c, const Parameters& weights, const Parameters& golden,
                 Report& report) {
  CpuExec exec;
  const ParameterReader<CpuExec> r(weights, exec);
  const std::array<Index, 2> split = pair_of(c, "split_size");
  WindowAttentionConfig windows =
      RgtConfig::windows(c.get_integer("dim"), c.get_integer("heads"), split, c.get_boolean("shifted", false),
                         weights.contains("qkv.bias"));
  for (std::size_t b = 0; b < 2; ++b) {
    if (c.find("shift") != nullptr && c.get_boolean("shifted", false))
      windows.branches[b].shift = {pair_of(c, "shift")[b], pair_of(c, "shift")[1 - b]};
    const std::string name = concat("mid.pos_table_branch", b);
    const WindowBranch& branch = windows.branches[b];
    const Tensor<float, 2> table = dynamic_position_table(r.scope(branch.scope), branch.window, branch.heads);
    if (golden.contains(name))
      report.compare(slug, name, table.data(), table.size(), floats(golden, name), kOpBound);
  }
  check_layer(slug, c, golden, WindowSelfAttention<CpuExec>(r, windows), report);
}

void check_recursive(const std::string& slug, const Value& c, const Parameters& weights,
                     const Parameters& golden, Report& report) {
  CpuExec exec;
  RecursiveAttentionConfig a{.dim = c.get_integer("dim"), .heads = c.get_integer("heads")};
  a.ratio = c.get_number("c_ratio"), a.biased = weights.contains("q.bias");
  a.reduced = weights.at("q.weight").shape.at(0);
  check_layer(slug, c, golden, RecursiveAttention<CpuExec>({weights, exec}, a), report);
}

const Runner kRgt{
    "rgt",
    "rgt*.safetensors: an RGT network, param.* inside, or X.pth beside X_pth.safetensors; its L-SA "
    "and RG-SA alone, rgt_lsa*, rgt_rgsa*",
    [](const Path& path) {
      return path.extension() == ".safetensors" && path.stem().string().starts_with("rgt");
    },
    [](const Path& path, Report& report) {
      const auto file = std::make_shared<const SafetensorsFile>(path.string());
      const std::string slug = path.stem().string();
      const Value config = config_of(*file);
      const auto weights =
          slug.ends_with("_pth") ? open_checkpoint(checkpoint_of(path).string()) : embedded_parameters(file);
      if (slug.starts_with("rgt_lsa")) return check_local(slug, config, *weights, *file, report);
      if (slug.starts_with("rgt_rgsa")) return check_recursive(slug, config, *weights, *file, report);
      check_restoration(slug, "RGT", config, *weights, *file, report);
      check_parts(slug, config, *weights, *file, report);
    }};
const Registration kRegistered(kRgt);

}  // namespace
}  // namespace ashlar::golden
