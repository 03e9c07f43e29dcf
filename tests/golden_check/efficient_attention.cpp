// SPDX-License-Identifier: Apache-2.0
#include "tests/golden_check/efficient_attention.hpp"

#include "ashlar/io/huggingface.hpp"

namespace ashlar::golden {

std::vector<ZooCheck>& zoo_checks() {
  static std::vector<ZooCheck> all;
  return all;
}

namespace {

constexpr double kBound = 2e-5;

const Runner kRunner{
    "efficient-attention-zoo",
    "efficient-attention-zoo*.safetensors, the attentions of Long Range Arena; what has no module is skipped",
    [](const Path& path) {
      return path.stem().string().starts_with("efficient-attention-zoo") &&
             path.extension() == ".safetensors";
    },
    [](const Path& path, Report& report) {
      Zoo zoo(std::make_shared<const SafetensorsFile>(path.string()), path.stem().string(), report);
      for (const ZooCheck check : zoo_checks()) check(zoo);
      zoo.skip_the_rest();
    }};
const Registration kRegistered(kRunner);

}  // namespace

Zoo::Zoo(std::shared_ptr<const SafetensorsFile> file, std::string slug, Report& report)
    : file_(std::move(file)),
      slug_(std::move(slug)),
      report_(report),
      config_(parse_config(file_->metadata().at("config"), "the golden's config")) {}

ZooTensor Zoo::tensor(const std::string& name) const {
  const Parameter p = file_->at(name);
  return {to_floats(p), p.shape};
}

std::vector<Index> Zoo::offsets(Index sequences, Index length) {
  std::vector<Index> starts;
  for (Index n = 0; n <= sequences; ++n) starts.push_back(n * length);
  return starts;
}

void Zoo::compare(const std::string& name, const float* got, Index count) {
  done_.insert(name);
  report_.compare(slug_, name, got, count, floats(*file_, "output." + name), kBound);
}

void Zoo::run(const std::string& name, const EfficientAttention<CpuExec>& attention, const ZooTensor& q,
              const ZooTensor& k, const ZooTensor& v, const ZooTensor& x) {
  const std::vector<Index> starts = offsets(v.extent(0), v.extent(1));
  HeadBatch heads;
  heads.v = v.tokens_heads(), heads.offsets = starts;
  if (q) heads.q = q.tokens_heads();
  if (k) heads.k = k.tokens_heads();
  if (x) heads.x = x.tokens();
  Tensor<float, 3> out(heads.v.shape);
  heads.out = out.view();
  attention(heads, exec);
  compare(name, out.data(), out.size());
}

void Zoo::skip_the_rest() {
  constexpr std::string_view kPrefix = "output.";
  for (const std::string& name : file_->names())
    if (name.starts_with(kPrefix) && !done_.contains(name.substr(kPrefix.size())))
      report_.skip(slug_, name.substr(kPrefix.size()));
}

}  // namespace ashlar::golden
