// SPDX-License-Identifier: Apache-2.0
#include "ashlar/core/dense_weight.hpp"
#include "ashlar/io/huggingface.hpp"
#include "ashlar/nn/packed_key_values.hpp"
#include "ashlar/nn/parameter_reader.hpp"
#include "ashlar/ops/dense.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

constexpr double kBound = 2e-5;

// Causal attention of one head inside of a window, of q, k, v = h W_q, h W_k, h W_v, h [sequences, length,
// D].
Tensor<float, 2> short_window(const Parameters& golden, View<const float, 2> h, Index length, Index window,
                              CpuExec& exec) {
  auto project = [&](const char* name) {
    const Parameter w = golden.at(name);
    const DenseWeight weight =
        Backend<CpuExec>::matrix(transpose(w), w.shape.at(1), w.shape.at(0), false, exec);
    Tensor<float, 2> out({h.shape[0], w.shape.at(1)});
    dense(Dense{h, weight, {}, out.view()}, exec);
    return out;
  };
  auto one_head = [](const Tensor<float, 2>& x) { return x.view().split(1, x.shape()[1]); };
  const Tensor<float, 2> q = project("param.WQ"), k = project("param.WK"), v = project("param.WV");
  Tensor<float, 2> out(v.shape());
  std::vector<Index> starts;
  for (Index at = 0; at <= h.shape[0]; at += length) starts.push_back(at);
  const PackedKeyValues<CpuExec> sequences(one_head(k), one_head(v), starts, exec);
  softmax_attention(SoftmaxAttention{one_head(q), starts, sequences, out.view().split(1, v.shape()[1]),
                                     AttentionPattern::causal_window(window)},
                    exec);
  return out;
}

// to [columns, rows] of vectors from [rows, columns].
Tensor<float, 2> exchanged(const float* from, Index rows, Index columns, Index width) {
  Tensor<float, 2> to({rows * columns, width});
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j)
      std::copy_n(from + (i * columns + j) * width, width, to.view().at(j * rows + i));
  return to;
}

const Runner kRunner{
    "residual-stream-duality-shortswa",
    "residual-stream-duality-shortswa*.safetensors, one windowed attention over tokens and over layers",
    [](const Path& path) {
      return path.stem().string().starts_with("residual-stream-duality-shortswa") &&
             path.extension() == ".safetensors";
    },
    [](const Path& path, Report& report) {
      const SafetensorsFile file(path.string());
      const std::string slug = path.stem().string();
      const Value config = parse_config(file.metadata().at("config"), "the golden's config");
      const Index window = config.get_integer("K", 0);
      if (window < 1) throw Error("InvalidConfig", concat("golden: K is ", window, ", expected 1 or more"));
      const Tensor<float, 1> h = floats(file, "input.H");
      const auto shape = file.at("input.H").shape;
      const Index layers = shape.at(0), tokens = shape.at(1), width = shape.at(2);
      CpuExec exec;
      const Tensor<float, 2> by_token =
          short_window(file, {h.data(), {layers * tokens, width}}, tokens, window, exec);
      report.compare(slug, "sequence", by_token.data(), by_token.size(), floats(file, "output.sequence"),
                     kBound);
      const Tensor<float, 2> turned = exchanged(h.data(), layers, tokens, width);
      const Tensor<float, 2> by_layer = short_window(file, turned.view(), layers, window, exec);
      const Tensor<float, 2> back = exchanged(by_layer.data(), tokens, layers, by_layer.shape()[1]);
      report.compare(slug, "depth", back.data(), back.size(), floats(file, "output.depth"), kBound);
    }};
const Registration kRegistered(kRunner);

}  // namespace
}  // namespace ashlar::golden
