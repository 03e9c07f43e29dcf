// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/conv2d_weight.hpp"
#include "ashlar/core/reparam.hpp"
#include "ashlar/ops/conv2d.hpp"
#include "ashlar/ops/map_norm.hpp"
#include "tests/golden_check/vision_primitives.hpp"

namespace ashlar::golden {
namespace {

// A number for both axes, or one each.
std::array<Index, 2> pair(const Value& config, const char* key, Index otherwise) {
  const Value* value = config.find(key);
  if (value == nullptr || value->array() == nullptr) {
    const Index both = config.get_integer(key, otherwise);
    return {both, both};
  }
  return {*value->array()->at(0).integer(), *value->array()->at(1).integer()};
}

Tensor<float, 1> optional_floats(const Parameters& file, const std::string& name) {
  return file.contains(name) ? floats(file, name) : Tensor<float, 1>();
}

Tensor<float, 4> convolved(const Tensor<float, 4>& x, const Tensor<float, 4>& w, const Tensor<float, 1>& bias,
                           const Conv2dSteps& s, Index groups, CpuExec& exec) {
  const auto extent = [&](std::size_t axis) {
    return conv2d_extent(x.shape()[1 + axis], w.shape()[2 + axis], s.stride[axis], s.padding[axis],
                         s.dilation[axis]);
  };
  Tensor<float, 4> out({x.shape()[0], extent(0), extent(1), w.shape()[0]});
  conv2d({x.view(), Conv2dWeight(w.view(), groups, exec), bias.view(), out.view(), s}, exec);
  return out;
}

// A batch norm with its memory.
struct Norm {
  Norm(const VisionCase& c, const std::string& prefix, double eps)
      : weight(floats(c.file, prefix + "gamma")),
        bias(floats(c.file, prefix + "beta")),
        mean(floats(c.file, prefix + "mean")),
        var(floats(c.file, prefix + "var")),
        statistics{weight.view(), bias.view(), mean.view(), var.view(), eps} {}
  Tensor<float, 1> weight, bias, mean, var;
  BatchNormStatistics statistics;
};

void compare_filters(const VisionCase& c, const std::string& of, const Filters& f) {
  c.compare(of + ".w", f.weight.data(), f.weight.size());
  if (c.file.contains(concat("output.", of, ".b"))) c.compare(of + ".b", f.bias.data(), f.bias.size());
}

// output.<of>.y, of input.<from>.x, when it is there; the padding keeps its size.
void compare_convolved(const VisionCase& c, const std::string& of, const std::string& from, const Filters& f,
                       Index groups) {
  if (!c.file.contains(concat("output.", of, ".y"))) return;
  const Tensor<float, 4> x = image(c.file, concat("input.", from, ".x"));
  const auto s = f.weight.shape();
  const Tensor<float, 1> y =
      channels_first(convolved(x, f.weight, f.bias, {{1, 1}, {s[2] / 2, s[3] / 2}}, groups, c.exec));
  c.compare(of + ".y", y.data(), y.size());
}

// "name" of "name.w" or "name.y"
std::string stem(const std::string& name) { return name.substr(0, name.find('.')); }

void check_reparam(const VisionCase& c, const std::string& of) {
  const double eps = c.config.get_number("eps");
  const Tensor<float, 4> w3 = filters(c.file, c.input("w3")), w1 = filters(c.file, c.input("w1"));
  const Norm bn3(c, c.input("bn3."), eps), bn1(c, c.input("bn1."), eps), bni(c, c.input("bni."), eps);
  const Index groups = c.config.get_integer("groups", 1);
  const ReparamBranch branches[] = {{w3.view(), {}, groups, bn3.statistics},
                                    {w1.view(), {}, groups, bn1.statistics},
                                    {{}, {}, 1, bni.statistics}};
  const auto s = w3.shape();
  const Filters f = reparam(branches, s[1] * groups, s[0], {s[2], s[3]}, groups);
  compare_filters(c, of, f);
  compare_convolved(c, of, c.name, f, groups);
}

void check_grouped(const VisionCase& c, const std::string& of) {
  std::vector<Tensor<float, 4>> weights;
  std::vector<ReparamBranch> branches;
  Index inputs = 0, outputs = 0;
  std::array<Index, 2> kernel{1, 1};
  for (const Value& entry : *c.config.find("groups")->array()) {
    const Index groups = *entry.integer();
    weights.push_back(filters(c.file, concat("input.", c.name, ".w_g", groups)));
    const auto s = weights.back().shape();
    inputs = s[1] * groups, outputs = s[0];
    kernel = {std::max(kernel[0], s[2]), std::max(kernel[1], s[3])};
    branches.push_back({{}, {}, groups, {}});
  }
  for (std::size_t i = 0; i < weights.size(); ++i) branches[i].weight = weights[i].view();
  const Filters f = reparam(branches, inputs, outputs, kernel);
  compare_filters(c, of, f);
  compare_convolved(c, of, c.name, f, 1);
}

}  // namespace

bool check_convolution(const VisionCase& c) {
  if (!c.name.starts_with("conv") && !c.name.starts_with("patch")) return false;
  const Conv2dSteps steps{pair(c.config, "stride", 1), pair(c.config, "padding", 0),
                          pair(c.config, "dilation", 1)};
  c.compare(convolved(image(c.file, c.input("x")), filters(c.file, c.input("w")),
                      optional_floats(c.file, c.input("b")), steps, c.config.get_integer("groups", 1),
                      c.exec));
  return true;
}

bool check_folding(const VisionCase& c) {
  const std::string of = stem(c.name);
  if (of == "batchnorm_eval") {
    const Norm norm(c, c.input(""), c.config.get_number("eps"));
    const ChannelScales affine = channel_scales(norm.statistics);
    const Tensor<float, 4> x = image(c.file, c.input("x"));
    Tensor<float, 4> out(x.shape());
    channel_affine({x.view(), affine.scale.view(), affine.shift.view(), out.view()}, c.exec);
    c.compare(out);
  } else if (of == "fold_post_bn" || of == "fold_pre_bn") {
    const Norm norm(c, c.input(""), c.config.get_number("eps"));
    const Tensor<float, 4> w = filters(c.file, c.input("w"));
    const Tensor<float, 1> b = optional_floats(c.file, c.input("b"));
    const Filters f = of == "fold_post_bn" ? fold_norm_after(w.view(), b.view(), norm.statistics)
                                           : fold_norm_before(norm.statistics, w.view(), b.view());
    compare_filters(c, of, f);
    compare_convolved(c, of, of, f, 1);
  } else if (of == "reparam") {
    check_reparam(c, of);
  } else if (of == "grouped_to_dense") {
    check_grouped(c, of);
  } else {
    return false;
  }
  return true;
}

}  // namespace ashlar::golden
