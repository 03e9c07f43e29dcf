// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/window_attention.hpp"

#include <cmath>

#include "ashlar/core/tiles.hpp"
#include "ashlar/io/huggingface.hpp"
#include "ashlar/ops/window_bias.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

constexpr double kBound = 2e-5;

using Size = GroupMap::Size;

// A number, or two.
Size pair_of(const Value& config, const char* key) {
  const Value* v = config.find(key);
  if (v != nullptr && v->array() != nullptr && v->array()->size() == 2)
    return {Index{*v->array()->at(0).integer()}, Index{*v->array()->at(1).integer()}};
  const Index n = config.get_integer(key);
  return {n, n};
}
Size half(Size s) { return {s[0] / 2, s[1] / 2}; }
Size swapped(Size s) { return {s[1], s[0]}; }

// output.<name> beside what this library says.
class Tables {
 public:
  Tables(const Parameters& file, std::string slug, Report& report)
      : file_(file), slug_(std::move(slug)), report_(report) {}

  bool has(const char* name) const { return file_.contains(concat("output.", name)); }
  template <class F>
  void integers(const char* name, F&& make) const {
    if (!has(name)) return;
    const std::vector<std::int32_t> want = golden::integers(file_, concat("output.", name)), got = make();
    report_.check(slug_, name, got == want, concat(want.size(), " integers"));
  }
  void values(const char* name, const float* got, Index size) const {
    report_.compare(slug_, name, got, size, floats(file_, concat("output.", name)), kBound);
  }
  template <class F>
  void values(const char* name, F&& make) const {
    if (!has(name)) return;
    const auto got = make();
    values(name, got.data(), static_cast<Index>(got.size()));
  }

 private:
  const Parameters& file_;
  std::string slug_;
  Report& report_;
};

std::vector<std::int32_t> tokens(const GroupMap& map) {
  std::vector<std::int32_t> all;
  for (Index g = 0; g < map.groups(); ++g)
    for (Index n = 0; n < map.slots(); ++n) all.push_back(static_cast<std::int32_t>(map.token(g, n)));
  return all;
}

std::vector<float> mask(const GroupMap& map) {
  std::vector<float> all;
  for (Index g = 0; g < map.groups(); ++g)
    for (Index n = 0; n < map.slots(); ++n)
      for (Index m = 0; m < map.slots(); ++m) all.push_back(map.region(g, n) == map.region(g, m) ? 0 : -100);
  return all;
}

template <class T>
std::vector<std::int32_t> list(const T& all) {
  return {all.data(), all.data() + all.size()};
}

void check_tables(const Tables& t, const Parameters& file, const Value& c) {
  const Size image{c.get_integer("H"), c.get_integer("W")}, window = pair_of(c, "window"),
                                                            shift = pair_of(c, "shift");
  const GroupMap shifted = GroupMap::window(image, window, shift);
  t.integers("perm_noshift", [&] { return tokens(GroupMap::window(image, window)); });
  t.integers("perm_shift", [&] { return tokens(shifted); });
  t.values("mask_shift", [&] { return mask(shifted); });
  t.integers("rpi_square", [&] { return list(window_position_index(window)); });
  const Size rect = pair_of(c, "rect"), rect_image = pair_of(c, "rect_hw");
  t.values("mask_rect0", [&] { return mask(GroupMap::window(rect_image, rect, half(rect))); });
  t.values("mask_rect1",
           [&] { return mask(GroupMap::window(rect_image, swapped(rect), half(swapped(rect)))); });
  t.integers("rpi_rect0", [&] { return list(window_position_index(rect)); });
  t.integers("rpi_rect1", [&] { return list(window_position_index(swapped(rect))); });
  t.values("rpe_biases_rect0", [&] { return position_offsets(rect); });
  t.values("rpe_biases_rect1", [&] { return position_offsets(swapped(rect)); });
  const Index over = c.get_integer("oca_window");
  t.integers("rpi_oca_raw", [&] { return list(overlapping_position_index(window[0], over, false)); });
  t.integers("rpi_oca_wrapped", [&] { return list(overlapping_position_index(window[0], over)); });
  t.values("v2_coords_table", [&] { return log_position_coordinates(window); });
  t.values("v2_coords_table_pretrained", [&] {
    // The configuration does not say for which window: the first coordinate does.
    const float first = floats(file, "output.v2_coords_table_pretrained").data()[0];
    const double distance = std::exp2(3 * std::abs(first)) - 1;
    const Index pretrained = std::lround(8 * static_cast<double>(window[0] - 1) / distance) + 1;
    return log_position_coordinates(window, {pretrained, pretrained});
  });
  t.integers("grid_groups", [&] {
    return tokens(GroupMap::grid({c.get_integer("grid_h"), c.get_integer("grid_w")}, c.get_integer("grid_g"),
                                 c.get_integer("grid_views")));
  });
  const auto starts = [&](const char* side) {
    const std::vector<Index> s = tile_starts(c.get_integer(side), c.get_integer("tlc_kernel"));
    return std::vector<std::int32_t>(s.begin(), s.end());
  };
  t.integers("tlc_rows", [&] { return starts("tlc_h"); });
  t.integers("tlc_cols", [&] { return starts("tlc_w"); });
}

void check_ops(const Tables& t, const Parameters& file, const Value& c) {
  const Parameter shape = file.at("input.q");
  const std::array<Index, 4> extents{shape.shape.at(0), shape.shape.at(1), shape.shape.at(2),
                                     shape.shape.at(3)};
  const Tensor<float, 1> q = floats(file, "input.q"), k = floats(file, "input.k"),
                         v = floats(file, "input.v");
  const Size image{extents[1], extents[2]}, window = pair_of(c, "window"), shift = pair_of(c, "shift");
  const Index heads = c.get_integer("heads");
  CpuExec exec;
  const auto run = [&](const char* name, const Tensor<float, 3>& bias, auto&& change) {
    if (!t.has(name)) return;
    Tensor<float, 4> out(extents);
    WindowAttention a{{q.data(), extents}, {k.data(), extents}, {v.data(), extents}, out.view(), heads};
    a.bias = queries_first(bias.view());
    change(a);
    window_attention(a, exec);
    t.values(name, out.data(), out.size());
  };
  const auto bias = [&](Tensor<float, 1> table, const Tensor<std::int32_t, 2>& index) {
    return gather_window_bias({table.data(), {table.size() / heads, heads}}, index.view());
  };
  const Tensor<float, 3> v1 = bias(floats(file, "input.table"), window_position_index(window));
  run("v1_noshift", v1, [&](auto& a) { a.map = GroupMap::window(image, window); });
  run("v1_shift", v1, [&](auto& a) { a.map = GroupMap::window(image, window, shift); });
  Tensor<float, 1> through = floats(file, "input.table"), tau = floats(file, "input.logit_scale");
  for (Index i = 0; i < through.size(); ++i) through.data()[i] = 16 / (1 + std::exp(-through.data()[i]));
  for (Index i = 0; i < heads; ++i) tau.data()[i] = std::exp(std::min(tau.data()[i], std::log(100.0f)));
  run("v2_shift", bias(through, window_position_index(window)),
      [&](auto& a) { a.map = GroupMap::window(image, window, shift), a.tau = tau.view(); });
  const Index over = c.get_integer("oca_window");
  run("oca", bias(floats(file, "input.table_oca"), overlapping_position_index(window[0], over)),
      [&](auto& a) {
        a.map = GroupMap::window(image, window), a.key_map = GroupMap::overlapping(image, window[0], over);
      });
}

const Runner kRunner{"window-attention",
                     "window-attention-family*.safetensors: maps, masks, position indices, bare attention",
                     [](const Path& path) {
                       return path.extension() == ".safetensors" &&
                              path.stem().string().starts_with("window-attention-family");
                     },
                     [](const Path& path, Report& report) {
                       const SafetensorsFile file(path.string());
                       const Tables tables(file, path.stem().string(), report);
                       const Value config = parse_config(file.metadata().at("config"), "the golden's config");
                       check_tables(tables, file, config);
                       check_ops(tables, file, config);
                     }};
const Registration kRegistered(kRunner);

}  // namespace
}  // namespace ashlar::golden
