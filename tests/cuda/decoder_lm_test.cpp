// SPDX-License-Identifier: Apache-2.0
// Language models on a device beside the same models on the CPU.
#include "ashlar/cuda/graph.hpp"
#include "ashlar/cuda/load.hpp"
#include "tests/cuda/support.hpp"
#include "tests/models/support.hpp"

namespace ashlar {
namespace {

using namespace test;

using CudaModel = DecoderLm<CudaExec>;
using CudaCache = CudaModel::Cache;

constexpr double kSameModel = 1e-4;  // f32, sums in another order
// Activations of bf16 in models of 30 channels, in the Frobenius norm: some 2^-9 a rounding, several of them
// in each of four layers. What must be right to the last bits is compared in full precision.
constexpr double kRoundedModel = 8e-2;

std::unique_ptr<CudaModel> on_device(const Architecture& a, CudaExec& exec, DType dtype = DType::f32) {
  return load_decoder_lm(parse_json(a.config, "config"), ModelParameters(a, dtype), exec);
}

std::span<const float> all_of(const Tensor<float, 2>& t) {
  return {t.data(), static_cast<std::size_t>(t.size())};
}

// Three sequences of different lengths on their way through the same steps on both.
class Beside {
 public:
  Beside(const Architecture& a, CudaExec& exec, DType weights = DType::f32)
      : exec_(exec), model_(on_device(a, exec, weights)), cpu_model_(random_model(a, cpu_exec_, weights)) {}

  CudaModel& model() { return *model_; }
  Model& cpu_model() { return *cpu_model_; }

  template <class MakeCache>
  void make_caches(Index count, MakeCache&& make) {
    for (Index n = 0; n < count; ++n)
      caches_.push_back(make()), cpu_caches_.push_back(cpu_model_->new_cache(cpu_model_->max_positions()));
    for (auto& cache : caches_) pointers_.push_back(&cache);
    for (auto& cache : cpu_caches_) cpu_pointers_.push_back(&cache);
  }
  // The error of the last tokens' logits.
  double prefill(std::span<const Index> lengths) {
    std::vector<Index> starts{0};
    for (Index n : lengths) starts.push_back(starts.back() + n);
    const Ids ids = random_ids(*cpu_model_, starts.back(), ++seed_);
    return both(static_cast<Index>(lengths.size()), [&](auto& model, auto& caches, auto logits, auto& exec) {
      model.prefill(ids, starts, caches, logits, exec);
    });
  }
  double decode() {
    const Ids ids = random_ids(*cpu_model_, static_cast<Index>(pointers_.size()), ++seed_);
    return both(static_cast<Index>(ids.size()), [&](auto& model, auto& caches, auto logits, auto& exec) {
      auto step = [&] { model.decode(ids, caches, logits, exec); };
      if constexpr (std::is_same_v<decltype(exec), CudaExec&>)
        graph_.run(exec, step);
      else
        step();
    });
  }
  CudaGraph& graph() { return graph_; }
  std::vector<CudaCache>& caches() { return caches_; }
  std::vector<Cache>& cpu_caches() { return cpu_caches_; }

 private:
  template <class F>
  double both(Index rows, F&& run) {
    Tensor<float, 2> want({rows, cpu_model_->vocab_size()});
    run(*cpu_model_, cpu_pointers_, want.view(), cpu_exec_);
    if (logits_.shape() != want.shape()) logits_ = DeviceTensor<float, 2>(want.shape());
    run(*model_, pointers_, logits_.view(), exec_);
    exec_.synchronize();
    const Tensor<float, 2> got = logits_.to_host();
    return exec_.precision() == Precision::full ? error(all_of(got), all_of(want)) : distance(got, want);
  }
  // In the Frobenius norm, relative.
  static double distance(const Tensor<float, 2>& got, const Tensor<float, 2>& want) {
    double difference = 0, norm = 0;
    for (Index i = 0; i < want.size(); ++i) {
      const double d = static_cast<double>(got.data()[i]) - static_cast<double>(want.data()[i]);
      difference += d * d, norm += static_cast<double>(want.data()[i]) * static_cast<double>(want.data()[i]);
    }
    return std::isnan(difference) ? INFINITY : std::sqrt(difference / norm);
  }

  CudaExec& exec_;
  CpuExec cpu_exec_{{.threads = 2}};
  std::unique_ptr<CudaModel> model_;
  std::unique_ptr<Model> cpu_model_;
  std::vector<CudaCache> caches_;
  std::vector<CudaCache*> pointers_;
  std::vector<Cache> cpu_caches_;
  std::vector<Cache*> cpu_pointers_;
  DeviceTensor<float, 2> logits_;
  CudaGraph graph_;
  unsigned seed_ = 0;
};

bool has_experts(const Architecture& a) {
  return std::string_view(a.config).find("experts") != std::string_view::npos;
}

class CudaDecoderLm : public CudaTest, public testing::WithParamInterface<Architecture> {};

TEST_P(CudaDecoderLm, EveryTokenAsOnTheCpu) {
  CudaExec exec({.precision = Precision::full});
  CpuExec cpu({.threads = 2});
  const auto model = on_device(GetParam(), exec);
  const auto cpu_model = random_model(GetParam(), cpu);
  const Ids ids = random_ids(*cpu_model, 37, 3);
  DeviceTensor<float, 2> logits({37, model->vocab_size()});
  model->prefill(ids, {}, {}, logits.view(), exec);
  exec.synchronize();
  EXPECT_LE(error(all_of(logits.to_host()), full_forward(*cpu_model, ids, cpu)), kSameModel);
}

TEST_P(CudaDecoderLm, ContinuesPackedSequences) {
  CudaExec exec({.precision = Precision::full});
  Beside both(GetParam(), exec);
  both.make_caches(3, [&] { return both.model().new_cache(both.model().max_positions()); });
  EXPECT_LE(both.prefill(std::array<Index, 3>{7, 1, 20}), kSameModel);
  for (int i = 0; i < 5; ++i) ASSERT_LE(both.decode(), kSameModel) << i;
  EXPECT_LE(both.prefill(std::array<Index, 3>{1, 9, 2}), kSameModel);  // on top
  for (int i = 0; i < 5; ++i) ASSERT_LE(both.decode(), kSameModel) << i;
  EXPECT_EQ(both.graph().last(), has_experts(GetParam()) ? CudaGraph::Run::eager : CudaGraph::Run::replayed);
}

// Not those with experts: which are chosen may change with the last bits.
class CudaRoundedLm : public CudaTest, public testing::WithParamInterface<Architecture> {};

TEST_P(CudaRoundedLm, IsClose) {
  CudaExec exec;
  Beside both(GetParam(), exec, DType::bf16);
  both.make_caches(2, [&] { return both.model().new_cache(both.model().max_positions(), DType::bf16); });
  EXPECT_LE(both.prefill(std::array<Index, 2>{11, 18}), kRoundedModel);
  for (int i = 0; i < 4; ++i) ASSERT_LE(both.decode(), kRoundedModel) << i;
}

// What was saved on one is restored on the other.
TEST_P(CudaDecoderLm, CachesTravel) {
  CudaExec exec({.precision = Precision::full});
  Beside both(GetParam(), exec);
  both.make_caches(1, [&] { return both.model().new_cache(both.model().max_positions()); });
  both.prefill(std::array<Index, 1>{13});
  both.decode();
  const auto there = both.caches()[0].save();
  const auto here = both.cpu_caches()[0].save();
  ASSERT_EQ(there.size(), here.size());
  both.caches()[0].restore(here);
  both.cpu_caches()[0].restore(there);
  for (int i = 0; i < 3; ++i) ASSERT_LE(both.decode(), kSameModel);
  EXPECT_EQ(both.caches()[0].position(), both.cpu_caches()[0].position());
}

TEST_P(CudaDecoderLm, KeysAndValuesInPages) {
  CudaExec exec({.precision = Precision::full});
  Beside both(GetParam(), exec);
  const auto pages = both.model().new_pages(40, 4);
  both.make_caches(2, [&] { return both.model().new_cache(60, pages); });
  EXPECT_LE(both.prefill(std::array<Index, 2>{11, 18}), kSameModel);
  for (int i = 0; i < 7; ++i) ASSERT_LE(both.decode(), kSameModel) << i;
}

INSTANTIATE_TEST_SUITE_P(Architectures, CudaDecoderLm,
                         testing::Values(kLlama, kOlmo3, kOlmoHybrid, kQwen3Next, kQwen3_5, kQwen3_5Moe,
                                         kLfm2, kMiniMax, kGemma2, kGemma3, kGptOss, kKimiLinear, kMamba2,
                                         kFlaMamba2, kRwkv6, kRwkv6Hybrid, kRwkv7, kDeltaNet, kDeltaNetSum,
                                         kGatedDeltaNet, kGatedDeltaNetBare, kGatedDeltaProduct, kGla, kKda,
                                         kHgrn, kHgrn2, kRetNet),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Architectures, CudaRoundedLm,
                         testing::Values(kLlama, kOlmo3, kOlmoHybrid, kQwen3_5, kLfm2, kGemma2, kGemma3),
                         name_of);

class CudaDecoderLmTest : public CudaTest {};

// A ring of 64 rows that is gone round.
TEST_F(CudaDecoderLmTest, WindowsAreForgotten) {
  CudaExec exec({.precision = Precision::full});
  Beside both(kOlmo3Long, exec);
  both.make_caches(2, [&] { return both.model().new_cache(300); });
  EXPECT_LE(both.prefill(std::array<Index, 2>{90, 3}), kSameModel);
  for (int i = 0; i < 70; ++i) ASSERT_LE(both.decode(), kSameModel) << i;
  EXPECT_LE(both.prefill(std::array<Index, 2>{65, 80}), kSameModel);
  for (int i = 0; i < 5; ++i) ASSERT_LE(both.decode(), kSameModel) << i;
}

TEST_F(CudaDecoderLmTest, Refuses) {
  CudaExec exec;
  const auto model = on_device(kLlama, exec);
  DeviceTensor<float, 2> logits({1, model->vocab_size()});
  EXPECT_THROW(model->prefill(Ids{1, 2, 1000}, {}, {}, logits.view(), exec), Error);
  CudaCache cache = model->new_cache(2);
  CudaCache* const caches[] = {&cache};
  EXPECT_THROW(model->prefill(Ids{1, 2, 3}, {}, caches, logits.view(), exec), Error);
  EXPECT_EQ(cache.position(), 0);
  auto hybrid = on_device(kOlmoHybrid, exec)->new_cache(9);
  EXPECT_THROW(hybrid.keep_updates(2), Error);
  EXPECT_THROW(load_decoder_lm(parse_json(R"({"model_type": "vit"})", "config"),
                               ModelParameters(kLlama, DType::f32), exec),
               Error);
}

}  // namespace
}  // namespace ashlar
