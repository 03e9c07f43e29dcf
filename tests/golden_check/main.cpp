// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdio>
#include <cstring>

#include "ashlar/nn/backend.hpp"
#include "tests/golden_check/runner.hpp"

namespace ashlar::golden {

void Report::compare(const std::string& slug, const std::string& output, const float* got, Index count,
                     const Tensor<float, 1>& want, double bound) {
  double largest = 0, worst = 0;
  for (Index i = 0; i < std::min(count, want.size()); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(want.data()[i])));
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(want.data()[i]));
    worst = difference <= worst ? worst : difference;  // a NaN stays
    if (std::isnan(worst)) break;
  }
  const double error = largest > 0 ? worst / largest : worst;
  const bool ok = count == want.size() && error <= bound;
  std::printf("%s %s %.2e %.0e %s\n", slug.c_str(), output.c_str(), error, bound, ok ? "ok" : "FAIL");
  if (count != want.size()) std::printf("  %td elements, the golden has %td\n", count, want.size());
  ++(ok ? passed_ : failed_);
}

void Report::check(const std::string& slug, const std::string& what, bool ok, const std::string& note) {
  std::printf("%s %s%s%s %s\n", slug.c_str(), what.c_str(), note.empty() ? "" : " ", note.c_str(),
              ok ? "ok" : "FAIL");
  ++(ok ? passed_ : failed_);
}

void Report::skip(const std::string& slug, const std::string& what) {
  std::printf("%s %s skipped\n", slug.c_str(), what.c_str());
  ++skipped_;
}

int Report::finish() const {
  if (skipped_ != 0) std::printf("%d skipped\n", skipped_);
  std::printf("%d passed, %d failed\n", passed_, failed_);
  return failed_ == 0 ? 0 : 1;
}

Device& device() {
  static Device chosen = Device::cpu;
  return chosen;
}

std::vector<const Runner*>& runners() {
  static std::vector<const Runner*> all;
  return all;
}

Tensor<float, 1> floats(const Parameters& file, const std::string& name) { return to_floats(file.at(name)); }

std::vector<std::int32_t> integers(const Parameters& file, const std::string& name) {
  const Parameter p = file.at(name);
  std::vector<std::int32_t> out(static_cast<std::size_t>(p.size()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (p.dtype == DType::i32)
      out[i] = static_cast<const std::int32_t*>(p.data)[i];
    else if (p.dtype == DType::i64)
      out[i] = static_cast<std::int32_t>(static_cast<const std::int64_t*>(p.data)[i]);
    else
      throw Error("UnsupportedType",
                  concat("golden: \"", name, "\" is ", ashlar::name(p.dtype), ", expected i32 or i64"));
  }
  return out;
}

namespace {

int usage() {
  std::fputs(
      "golden_check [--list] [--device cpu|cuda] PATH...: compares with golden files; see --list for what it "
      "takes\n",
      stderr);
  return 1;
}

void run(const Path& path, Report& report) {
  if (!std::filesystem::exists(path)) return report.check(path.string(), "there is no such file", false);
  for (const Runner* runner : runners()) {
    if (!runner->accepts(path)) continue;
    if (device() == Device::cuda && !runner->on_cuda)
      return report.skip(path.stem().string(), "on the CPU alone");
    try {
      runner->run(path, report);
    } catch (const std::exception& e) {
      report.check(path.stem().string(), e.what(), false);
    }
    return;
  }
  report.check(path.stem().string(), "no runner takes this", false);
}

}  // namespace
}  // namespace ashlar::golden

int main(int argc, char** argv) {
  using namespace ashlar::golden;
  if (argc < 2) return usage();
  if (std::strcmp(argv[1], "--list") == 0) {
    for (const Runner* runner : runners()) std::printf("%s: %s\n", runner->name, runner->files);
    if (argc == 2) return 0;
  }
  Report report;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--list") == 0) continue;
    if (std::strcmp(argv[i], "--device") != 0) {
      run(argv[i], report);
      continue;
    }
    const char* const name = ++i < argc ? argv[i] : "";
    if (std::strcmp(name, "cpu") != 0 && std::strcmp(name, "cuda") != 0) return usage();
    device() = std::strcmp(name, "cuda") == 0 ? Device::cuda : Device::cpu;
  }
  return report.finish();
}
