// SPDX-License-Identifier: Apache-2.0
#include "ashlar/io/huggingface.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

constexpr std::string_view kPrefix = "param.";

class EmbeddedParameters : public Parameters {
 public:
  explicit EmbeddedParameters(std::shared_ptr<const SafetensorsFile> file) : file_(std::move(file)) {}
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const std::string& name : file_->names())
      if (name.starts_with(kPrefix)) names.push_back(name.substr(kPrefix.size()));
    return names;
  }
  bool find(std::string_view name, Parameter* into) const override {
    return file_->find(concat(kPrefix, name), into);
  }

 private:
  std::shared_ptr<const SafetensorsFile> file_;
};

const Runner kEmbedded{
    "embedded", "olmo-hybrid*.safetensors, fla-*.safetensors with param.* and the config inside",
    [](const Path& path) {
      const std::string stem = path.stem().string();
      return path.extension() == ".safetensors" &&
             (stem.starts_with("olmo-hybrid") || stem.starts_with("fla-"));
    },
    [](const Path& path, Report& report) {
      const auto file = std::make_shared<const SafetensorsFile>(path.string());
      const auto config = file->metadata().find("config");
      if (config == file->metadata().end())
        throw Error("InvalidConfig", "golden: its metadata has no config");
      check_decoder_lm(path.stem().string(), parse_config(config->second, "the golden's config"),
                       *embedded_parameters(file), *file, report);
    },
    true};
const Registration kRegistered(kEmbedded);

}  // namespace

std::shared_ptr<const Parameters> embedded_parameters(std::shared_ptr<const SafetensorsFile> file) {
  return std::make_shared<EmbeddedParameters>(std::move(file));
}

}  // namespace ashlar::golden
