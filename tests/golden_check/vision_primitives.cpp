// SPDX-License-Identifier: Apache-2.0
#include "tests/golden_check/vision_primitives.hpp"

#include "ashlar/io/huggingface.hpp"
#include "ashlar/nn/squeeze_excite.hpp"
#include "ashlar/ops/map_norm.hpp"
#include "ashlar/ops/norm.hpp"
#include "ashlar/ops/pixel_shuffle.hpp"
#include "ashlar/ops/pool2d.hpp"
#include "ashlar/ops/resize.hpp"

namespace ashlar::golden {

Tensor<float, 4> filters(const Parameters& file, const std::string& name) {
  const Tensor<float, 1> values = floats(file, name);
  const auto shape = file.at(name).shape;
  Tensor<float, 4> out({shape.at(0), shape.at(1), shape.at(2), shape.at(3)});
  std::copy_n(values.data(), values.size(), out.data());
  return out;
}

Tensor<float, 4> image(const Parameters& file, const std::string& name) {
  const Tensor<float, 1> values = floats(file, name);
  auto s = file.at(name).shape;
  if (s.size() == 3) s.push_back(1);
  Tensor<float, 4> out({s.at(0), s.at(2), s.at(3), s.at(1)});
  for (Index i = 0; i < values.size(); ++i) {
    const Index w = i % s[3], h = i / s[3] % s[2], c = i / (s[3] * s[2]) % s[1], n = i / (s[3] * s[2] * s[1]);
    out.view()(n, h, w, c) = values.data()[i];
  }
  return out;
}

Tensor<float, 1> channels_first(const Tensor<float, 4>& image) {
  const auto [images, height, width, channels] = image.shape();
  Tensor<float, 1> out({image.size()});
  float* to = out.data();
  for (Index n = 0; n < images; ++n)
    for (Index c = 0; c < channels; ++c)
      for (Index h = 0; h < height; ++h)
        for (Index w = 0; w < width; ++w) *to++ = image.view()(n, h, w, c);
  return out;
}

void VisionCase::compare(const std::string& output, const float* got, Index count) const {
  constexpr double kBound = 2e-5;
  report.compare("vision-primitives", output, got, count, floats(file, concat("output.", output)), kBound);
}

void VisionCase::compare(const Tensor<float, 4>& got) const {
  const Tensor<float, 1> flat = channels_first(got);
  compare(name, flat.data(), flat.size());
}

namespace {

bool begins(const std::string& name, const char* with) { return name.starts_with(with); }

// The output, of the golden's own shape.
Tensor<float, 4> expected_image(const VisionCase& c) { return image(c.file, concat("output.", c.name)); }

bool check_pool(const VisionCase& c) {
  const bool line = begins(c.name, "avgpool1d"), most = begins(c.name, "maxpool");
  if (!most && !begins(c.name, "avgpool")) return false;
  const Tensor<float, 4> x = image(c.file, c.input("x"));
  const Index k = c.config.get_integer("k"), s = c.config.get_integer("s", k),
              p = c.config.get_integer("p", 0);
  const Pool2dWindow window{{k, line ? 1 : k},
                            {s, line ? 1 : s},
                            {p, line ? 0 : p},
                            c.config.get_boolean("ceil", false),
                            c.config.get_boolean("include_pad", true)};
  const auto extent = [&](int axis) {
    return pool2d_extent(x.shape()[static_cast<std::size_t>(1 + axis)], window.kernel[axis],
                         window.stride[axis], window.padding[axis], window.ceil_mode);
  };
  Tensor<float, 4> out({x.shape()[0], extent(0), extent(1), x.shape()[3]});
  pool2d(Pool2d{x.view(), out.view(), most ? PoolMode::max : PoolMode::average, window}, c.exec);
  c.compare(out);
  return true;
}

bool check_resize(const VisionCase& c) {
  const auto is = [&](const char* mode) {
    const Value* given = c.config.find("mode");
    return given != nullptr ? *given->string() == mode : begins(c.name, mode);
  };
  const ResizeMode modes[] = {ResizeMode::nearest, ResizeMode::nearest_exact, ResizeMode::bilinear,
                              ResizeMode::bicubic};
  const char* const names[] = {"nearest", "nearest-exact", "bilinear", "bicubic"};
  const Value *size = c.config.find("size"), *factor = c.config.find("scale_factor");
  if (size == nullptr && factor == nullptr) return false;
  for (std::size_t i = 0; i < 4; ++i) {
    if (!is(names[i])) continue;
    const Tensor<float, 4> x = image(c.file, c.input("x"));
    Resize args{x.view(), {}, modes[i]};
    args.align_corners = c.config.get_boolean("align_corners", false);
    args.antialias = c.config.get_boolean("antialias", c.name.ends_with("_aa"));
    std::array<Index, 2> extent{};
    for (std::size_t axis : {0, 1}) {
      if (factor != nullptr) args.scale_factor[axis] = *factor->array()->at(axis).number();
      extent[axis] = size != nullptr ? *size->array()->at(axis).integer()
                                     : resized_extent(x.shape()[1 + axis], args.scale_factor[axis]);
    }
    Tensor<float, 4> out({x.shape()[0], extent[0], extent[1], x.shape()[3]});
    args.out = out.view();
    resize(args, c.exec);
    c.compare(out);
    return true;
  }
  return false;
}

bool check_shuffle(const VisionCase& c) {
  const bool back = begins(c.name, "pixel_unshuffle"), depth = begins(c.name, "space_to_depth");
  if (!back && !depth && !begins(c.name, "pixel_shuffle")) return false;
  const Tensor<float, 4> x = image(c.file, c.input("x"));
  const auto s = x.shape();
  const Index r = c.config.get_integer("r");
  if (back || depth) {
    Tensor<float, 4> out({s[0], s[1] / r, s[2] / r, s[3] * r * r});
    pixel_unshuffle({x.view(), out.view(), depth ? BlockOrder::pixel_first : BlockOrder::channel_first},
                    c.exec);
    c.compare(out);
  } else {
    Tensor<float, 4> out({s[0], s[1] * r, s[2] * r, s[3] / (r * r)});
    pixel_shuffle({x.view(), out.view()}, c.exec);
    c.compare(out);
  }
  return true;
}

bool check_activation(const VisionCase& c) {
  constexpr std::pair<const char*, Activation> kNames[] = {{"act.gelu_erf", Activation::gelu},
                                                           {"act.gelu_tanh", Activation::gelu_tanh},
                                                           {"act.silu", Activation::silu},
                                                           {"act.hardswish", Activation::hardswish},
                                                           {"act.hardsigmoid", Activation::hardsigmoid},
                                                           {"act.relu6", Activation::relu6}};
  for (const auto& [name, f] : kNames) {
    if (c.name != name) continue;
    const Tensor<float, 1> x = floats(c.file, c.input("x"));
    Tensor<float, 1> out(x.shape());
    activate({{x.data(), {1, x.size()}}, {}, {out.data(), {1, x.size()}}, f}, c.exec);
    c.compare(c.name, out.data(), out.size());
    return true;
  }
  return false;
}

bool check_squeeze_excite(const VisionCase& c) {
  const auto named = [&](const char* key, const char* otherwise) {
    const std::string f = c.config.get_string(key, otherwise);
    return f == "relu"          ? Activation::relu
           : f == "silu"        ? Activation::silu
           : f == "hardsigmoid" ? Activation::hardsigmoid
                                : Activation::sigmoid;
  };
  ParameterMap layers;
  layers.set("fc1.weight", c.file.at(c.input("w1"))), layers.set("fc1.bias", c.file.at(c.input("b1")));
  layers.set("fc2.weight", c.file.at(c.input("w2"))), layers.set("fc2.bias", c.file.at(c.input("b2")));
  const Tensor<float, 4> x = image(c.file, c.input("x"));
  const SqueezeExcite<CpuExec> gate(ParameterReader<CpuExec>(layers, c.exec), "fc1", "fc2", x.shape()[3],
                                    c.file.at(c.input("w1")).shape.at(0), named("act", "relu"),
                                    named("gate", "sigmoid"));
  Tensor<float, 4> out(x.shape());
  gate(x.view(), out.view(), c.exec);
  c.compare(out);
  return true;
}

}  // namespace

bool check_map_operation(const VisionCase& c) {
  if (check_pool(c) || check_resize(c) || check_shuffle(c) || check_activation(c)) return true;
  if (begins(c.name, "squeeze_excite")) return check_squeeze_excite(c);
  const bool known = begins(c.name, "adaptive_avg") || begins(c.name, "layernorm2d") ||
                     begins(c.name, "groupnorm") || begins(c.name, "grn") || begins(c.name, "dyrelu");
  if (!known) return false;
  const Tensor<float, 4> x = image(c.file, c.input("x"));
  const Index pixels = x.shape()[0] * x.shape()[1] * x.shape()[2], channels = x.shape()[3];
  Tensor<float, 4> out(expected_image(c).shape());
  if (begins(c.name, "adaptive_avg")) {
    adaptive_pool2d({x.view(), out.view()}, c.exec);
  } else if (begins(c.name, "dyrelu")) {
    Tensor<float, 2> slopes({x.shape()[0], 2 * channels});
    const Tensor<float, 1> a = floats(c.file, c.input("a"));
    const float scale = static_cast<float>(c.config.get_number("scale", 2));
    for (Index i = 0; i < a.size(); ++i)  // the first piece is the identity where a is 1/2, the second is 0
      slopes.data()[i] = scale * (a.data()[i] - 0.5f) + (i % (2 * channels) < channels ? 1 : 0);
    dynamic_relu({x.view(), slopes.view(), out.view()}, c.exec);
  } else {
    const Tensor<float, 1> w = floats(c.file, c.input("w")), b = floats(c.file, c.input("b"));
    const float eps = static_cast<float>(c.config.get_number("eps"));
    if (begins(c.name, "layernorm2d"))
      layer_norm(
          {{x.data(), {pixels, 1, channels}}, w.view(), b.view(), {out.data(), {pixels, 1, channels}}, eps},
          c.exec);
    else if (begins(c.name, "groupnorm"))
      group_norm2d({x.view(), w.view(), b.view(), out.view(), c.config.get_integer("groups", 1), eps},
                   c.exec);
    else
      global_response_norm({x.view(), w.view(), b.view(), out.view(), eps}, c.exec);
  }
  c.compare(out);
  return true;
}

namespace {

const Runner kRunner{"vision-primitives", "vision-primitives*.safetensors, bare operations on images",
                     [](const Path& path) {
                       return path.stem().string().starts_with("vision-primitives") &&
                              path.extension() == ".safetensors";
                     },
                     [](const Path& path, Report& report) {
                       const SafetensorsFile file(path.string());
                       const Value config = parse_config(file.metadata().at("config"), "the golden's config");
                       CpuExec exec;
                       for (const auto& [name, entry] : *config.object()) {
                         const VisionCase c{file, name, entry, report, exec};
                         if (!check_convolution(c) && !check_folding(c) && !check_map_operation(c))
                           report.skip("vision-primitives", name);
                       }
                     }};
const Registration kRegistered(kRunner);

}  // namespace
}  // namespace ashlar::golden
