// SPDX-License-Identifier: Apache-2.0
// golden_check compares what this library computes with files of what others computed. A runner is one
// translation unit that holds a Registration; the first whose `accepts` takes a path runs it.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/tensor.hpp"
#include "ashlar/core/value.hpp"
#include "ashlar/io/safetensors.hpp"

namespace ashlar::golden {

using Path = std::filesystem::path;

// Prints a line an output and counts.
class Report {
 public:
  // max |got - want| / max |want| against the bound; a NaN or a wrong size fails.
  void compare(const std::string& slug, const std::string& output, const float* got, Index count,
               const Tensor<float, 1>& want, double bound);
  // A check with an outcome of its own.
  void check(const std::string& slug, const std::string& what, bool ok, const std::string& note = "");
  // Something this version has no code for.
  void skip(const std::string& slug, const std::string& what);
  // "N passed, N failed"; the exit status.
  int finish() const;

 private:
  int passed_ = 0, failed_ = 0, skipped_ = 0;
};

struct Runner {
  const char* name;
  const char* files;  // what it takes, for --list
  bool (*accepts)(const Path& path);
  void (*run)(const Path& path, Report& report);
  bool on_cuda = false;  // it has a way to run on the device
};

// Where runners compute what can be computed there: the program's --device.
enum class Device { cpu, cuda };
Device& device();

std::vector<const Runner*>& runners();

struct Registration {
  explicit Registration(const Runner& runner) { runners().push_back(&runner); }
};

// Of a golden file.
Tensor<float, 1> floats(const Parameters& file, const std::string& name);
std::vector<std::int32_t> integers(const Parameters& file, const std::string& name);

// The tensors "param.<name>" of a golden file as a checkpoint.
std::shared_ptr<const Parameters> embedded_parameters(std::shared_ptr<const SafetensorsFile> file);

// A golden of a language model: input.ids [B, T], output.logits [B, T, V], and, when they are there,
// output.gen_ids [B, G], greedily decoded with a cache, and output.gen_logits [B, G, V], which chose them.
void check_decoder_lm(const std::string& slug, const Value& config, const Parameters& weights,
                      const Parameters& golden, Report& report);

}  // namespace ashlar::golden
