// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "ashlar/cuda/graph.hpp"
#include "ashlar/cuda/load.hpp"
#include "ashlar/io/huggingface.hpp"
#include "ashlar/models/load.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

// Of logits: of f32 sums in whatever order a library for products on a device takes.
double bound(const CpuExec&) { return 1e-4; }
double bound(const CudaExec&) { return 1e-3; }

const Tensor<float, 2>& on_host(const Tensor<float, 2>& t) { return t; }
Tensor<float, 2> on_host(const DeviceTensor<float, 2>& t) { return t.to_host(); }

// Steps of decoding, on a device as a graph.
struct Steps {
  template <class F>
  void run(CpuExec&, F&& step) {
    step();
  }
  template <class F>
  void run(CudaExec& exec, F&& step) {
    graph.run(exec, step);
  }
  CudaGraph graph;
};

Index extent(const Parameters& golden, const std::string& name, std::size_t axis) {
  const Parameter p = golden.at(name);
  if (p.shape.size() <= axis) throw Error("InvalidShape", concat("golden: \"", name, "\" has too few axes"));
  return p.shape[axis];
}

// All prompts at once, packed, without caches: every token's logits.
template <class Exec>
void check_full_forward(const std::string& slug, const DecoderLm<Exec>& model, const Parameters& golden,
                        Report& report, Exec& exec) {
  const auto ids = integers(golden, "input.ids");
  const Index batch = extent(golden, "input.ids", 0), length = extent(golden, "input.ids", 1);
  std::vector<Index> starts;
  for (Index n = 0; n <= batch; ++n) starts.push_back(n * length);
  typename Backend<Exec>::template Array<float, 2> logits({batch * length, model.vocab_size()});
  model.prefill(ids, starts, {}, logits.view(), exec);
  const auto& got = on_host(logits);
  report.compare(slug, "logits", got.data(), got.size(), floats(golden, "output.logits"), bound(exec));
}

// Prefill and greedy decoding with caches, all sequences in one batch.
template <class Exec>
void check_generation(const std::string& slug, const DecoderLm<Exec>& model, const Parameters& golden,
                      Report& report, Exec& exec) {
  using Cache = typename DecoderLm<Exec>::Cache;
  const auto ids = integers(golden, "input.ids"), want = integers(golden, "output.gen_ids");
  const Index batch = extent(golden, "input.ids", 0), length = extent(golden, "input.ids", 1);
  const Index steps = extent(golden, "output.gen_ids", 1), vocab = model.vocab_size();
  std::vector<Cache> caches(static_cast<std::size_t>(batch), model.new_cache(length + steps));
  std::vector<Cache*> pointers;
  std::vector<Index> starts{0};
  for (auto& cache : caches) pointers.push_back(&cache), starts.push_back(starts.back() + length);

  Tensor<float, 3> all({batch, steps, vocab});
  typename Backend<Exec>::template Array<float, 2> logits({batch, vocab});
  Steps steps_of_decoding;
  std::vector<std::int32_t> got(want.size()), next(static_cast<std::size_t>(batch));
  for (Index step = 0; step < steps; ++step) {
    if (step == 0)
      model.prefill(ids, starts, pointers, logits.view(), exec);
    else
      steps_of_decoding.run(exec, [&] { model.decode(next, pointers, logits.view(), exec); });
    const auto& now = on_host(logits);
    for (Index n = 0; n < batch; ++n) {
      const float* row = now.view().at(n);
      std::copy(row, row + vocab, all.view().at(n, step));
      next[static_cast<std::size_t>(n)] = static_cast<std::int32_t>(std::max_element(row, row + vocab) - row);
      got[static_cast<std::size_t>(n * steps + step)] = next[static_cast<std::size_t>(n)];
    }
  }
  report.check(slug, "gen_ids", got == want, concat(got.size(), " tokens"));
  if (golden.contains("output.gen_logits"))
    report.compare(slug, "gen_logits", all.data(), all.size(), floats(golden, "output.gen_logits"),
                   bound(exec));
}

// hf-<model>.safetensors with the weights in the directory hf/<model> beside it.
std::string model_of(const Path& path) { return path.stem().string().substr(3); }

const Runner kHuggingFace{
    "hf", "hf-<model>.safetensors, of a known language model, beside hf/<model>/",
    [](const Path& path) {
      if (path.extension() != ".safetensors" || !path.stem().string().starts_with("hf-")) return false;
      const auto types = decoder_lm_types();
      // hf-llama, also hf-llama-b: the directory says the type.
      return std::any_of(types.begin(), types.end(),
                         [&](const std::string& t) { return model_of(path).starts_with(t); });
    },
    [](const Path& path, Report& report) {
      const HuggingFaceModel model = load_huggingface((path.parent_path() / "hf" / model_of(path)).string());
      check_decoder_lm(path.stem().string(), model.config, *model.parameters, SafetensorsFile(path.string()),
                       report);
    },
    true};
const Registration kRegisteredHuggingFace(kHuggingFace);

// <name>.golden.safetensors of a bundled model.
Path bundled_model(const Path& path) {
  const std::string name = path.stem().stem().string();
  const Path beside = path.parent_path() / name;
  return std::filesystem::is_directory(beside) ? beside : Path(ASHLAR_EXAMPLES) / "models" / name;
}

const Runner kBundled{
    "bundled", "<model>.golden.safetensors beside the directory <model>/, or of a model in examples/models/",
    [](const Path& path) {
      return path.string().ends_with(".golden.safetensors") &&
             std::filesystem::exists(bundled_model(path) / "config.json");
    },
    [](const Path& path, Report& report) {
      const HuggingFaceModel model = load_huggingface(bundled_model(path).string());
      check_decoder_lm(path.stem().stem().string(), model.config, *model.parameters,
                       SafetensorsFile(path.string()), report);
    },
    true};
const Registration kRegisteredBundled(kBundled);

}  // namespace

template <class Exec>
void check_on(Exec& exec, const std::string& slug, const Value& config, const Parameters& weights,
              const Parameters& golden, Report& report) {
  const auto model = load_decoder_lm(config, weights, exec);
  check_full_forward(slug, *model, golden, report, exec);
  if (golden.contains("output.gen_ids")) check_generation(slug, *model, golden, report, exec);
}

void check_decoder_lm(const std::string& slug, const Value& config, const Parameters& weights,
                      const Parameters& golden, Report& report) {
  if (device() == Device::cuda) {
    CudaExec exec({.precision = Precision::full});
    check_on(exec, slug, config, weights, golden, report);
  } else {
    CpuExec exec;
    check_on(exec, slug, config, weights, golden, report);
  }
}

}  // namespace ashlar::golden
