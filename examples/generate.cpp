// SPDX-License-Identifier: Apache-2.0
// Continues a text with a language model in Hugging Face's format: generate MODEL_DIR --prompt "Once upon a
// time"
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "ashlar/io/huggingface.hpp"
#include "ashlar/io/tokenizer.hpp"
#include "ashlar/models/load.hpp"
#include "ashlar/ops/sampling.hpp"
#include "examples/place.hpp"

namespace {

using namespace ashlar;

struct Options {
  std::string model = ASHLAR_BUNDLED_MODEL, prompt, device = "cpu";
  bool prompt_given = false;
  Index max_tokens = 200;
  int threads = 0;
  SamplingOptions sampling{.temperature = 0.8f, .top_p = 0.95f};
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Long prompts go through in parts, so that a terminal can show how far it is.
template <class Exec>
void read_prompt(const DecoderLm<Exec>& model, std::span<const std::int32_t> ids, DecoderCache<Exec>& cache,
                 View<float, 2> logits, Exec& exec) {
  constexpr std::size_t kPart = 2048;
  const bool show = ids.size() > kPart && isatty(STDERR_FILENO);
  DecoderCache<Exec>* const caches[] = {&cache};
  for (std::size_t begin = 0; begin < ids.size(); begin += kPart) {
    if (show) std::fprintf(stderr, "\rreading the prompt: %zu of %zu tokens", begin, ids.size());
    model.prefill(ids.subspan(begin, std::min(kPart, ids.size() - begin)), {}, caches, logits, exec);
  }
  if (show) std::fprintf(stderr, "\r\033[K");
}

template <class Place>
void generate(const Options& options) {
  using Exec = typename Place::Exec;
  Place place(options.threads);
  Exec& exec = place.exec;
  const HuggingFaceModel files = load_huggingface(options.model);
  const Tokenizer tokenizer = Tokenizer::from_directory(options.model);
  const auto model = load_decoder_lm(files.config, *files.parameters, exec);
  const std::vector<std::int32_t> stop = end_of_text_ids(files);
  const Index vocab = model->vocab_size();
  Sampler sampler(options.sampling, vocab);

  std::vector<std::int32_t> ids = tokenizer.encode(options.prompt);
  const Index prompt_tokens = static_cast<Index>(ids.size());
  if (options.prompt.empty() || ids.empty()) throw Error("InvalidArgument", "The prompt is empty.");
  if (prompt_tokens >= model->max_positions())
    throw Error("InvalidArgument",
                concat("The prompt has ", prompt_tokens, " tokens, and the model's context of ",
                       model->max_positions(), " leaves no room to continue it."));
  const Index most = std::min(options.max_tokens, model->max_positions() - prompt_tokens);
  auto cache = model->new_cache(prompt_tokens + most, Place::kKeyValues);
  typename Backend<Exec>::template Array<float, 2> logits({1, vocab});
  ids.reserve(static_cast<std::size_t>(prompt_tokens + most));

  print(options.prompt);
  const auto start = std::chrono::steady_clock::now();
  read_prompt(*model, ids, cache, logits.view(), exec);
  place.wait();
  const double prompt_seconds = seconds_since(start);

  const auto first = std::chrono::steady_clock::now();
  TokenStream text(tokenizer, true);
  DecoderCache<Exec>* const caches[] = {&cache};
  Index generated = 0, decoded = 0;
  while (generated < most) {
    std::int32_t next = 0;
    const std::span<const std::int32_t> history = ids;
    sample(
        {std::as_const(logits).view(), std::span(&sampler, 1), std::span(&history, 1), std::span(&next, 1)},
        exec);
    if (std::find(stop.begin(), stop.end(), next) != stop.end()) break;
    ids.push_back(next);
    print(text.push(next));
    if (++generated == most) break;
    place.step([&] { model->decode(std::span(&next, 1), caches, logits.view(), exec); });
    ++decoded;
  }
  const double seconds = seconds_since(first);
  print(text.finish() + "\n");

  const double rate = decoded > 0 ? static_cast<double>(decoded) / seconds : 0;
  const double bytes = static_cast<double>(model->size().bytes_per_token);
  std::fprintf(stderr, "\nprompt: %td tokens, %.1f tokens/s; generated: %td tokens, %.1f tokens/s; ",
               prompt_tokens, static_cast<double>(prompt_tokens) / prompt_seconds, generated, rate);
  std::fprintf(stderr, "%.1f MB of weights a token, %.0f %% of memory's bandwidth (%s)\n", bytes / 1e6,
               100 * rate * bytes / place.bandwidth(), place.name().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Continues a text with a language model. Without --prompt the text is read from standard input.");
  app.add_option("MODEL_DIR", options.model,
                 "directory with config.json, model.safetensors and tokenizer.json")
      ->capture_default_str();
  auto* prompt = app.add_option("--prompt", options.prompt, "the text to continue");
  app.add_option("--max-tokens", options.max_tokens, "tokens to generate")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("--temperature", options.sampling.temperature, "0 takes the likeliest token")
      ->capture_default_str();
  app.add_option("--top-k", options.sampling.top_k, "keep the k likeliest tokens, 0: all")
      ->capture_default_str();
  app.add_option("--top-p", options.sampling.top_p, "keep the likeliest tokens that make up p")
      ->capture_default_str();
  app.add_option("--min-p", options.sampling.min_p, "keep tokens at least p times as likely as the first")
      ->capture_default_str();
  app.add_option("--repetition-penalty", options.sampling.repetition_penalty,
                 "above 1: repeats get less likely")
      ->capture_default_str();
  app.add_option("--seed", options.sampling.seed, "of the random numbers")->capture_default_str();
  app.add_option("--device", options.device, "cpu or cuda")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--threads", options.threads, "0: one a physical core")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  try {
    app.parse(argc, argv);
    if (prompt->count() == 0) options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    options.device == "cuda" ? generate<OnCuda>(options) : generate<OnCpu>(options);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "generate: %s\n", e.what());
    return 1;
  }
}
