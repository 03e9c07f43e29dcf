// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "ashlar/io/checkpoint.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {
namespace {

// The golden of the same weights: beside the file, or in the folder pth/ there.
Path twin_of(const Path& path) {
  const Path name = path.stem().concat(".safetensors");
  const Path beside = path.parent_path() / name;
  return std::filesystem::exists(beside) ? beside : path.parent_path() / "pth" / name;
}

bool equal(const Parameter& a, const Parameter& b) {
  const auto bytes = static_cast<std::size_t>(a.size() * bits(a.dtype) / 8);
  return a.dtype == b.dtype && a.shape == b.shape && (bytes == 0 || std::memcmp(a.data, b.data, bytes) == 0);
}

const Runner kPth{"pth", "X.pth, whose tensors must be those that X.safetensors holds as param.*",
                  [](const Path& path) { return path.extension() == ".pth"; },
                  [](const Path& path, Report& report) {
                    const std::string slug = path.stem().string();
                    const auto got = open_checkpoint(path.string());
                    report.check(slug, concat(path.filename().string(), " opens"), !got->names().empty());
                    if (std::filesystem::exists(path.parent_path() / path.stem().concat("_pth.safetensors")))
                      return report.skip(slug, "its weights are its own, which X_pth.safetensors looks at");
                    if (!std::filesystem::exists(twin_of(path)))
                      return report.skip(slug, "no golden beside it");
                    const auto golden = std::make_shared<const SafetensorsFile>(twin_of(path).string());
                    const auto want = embedded_parameters(golden);
                    std::size_t same = 0;
                    for (const std::string& name : want->names())
                      same += got->contains(name) && equal(got->at(name), want->at(name)) ? 1 : 0;
                    report.check(slug, concat(same, " of ", want->names().size(), " tensors are equal"),
                                 same == want->names().size());
                  }};
const Registration kRegistered(kPth);

}  // namespace
}  // namespace ashlar::golden
