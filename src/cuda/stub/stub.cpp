// SPDX-License-Identifier: Apache-2.0
// The CUDA layer of a build without it: the same functions, so that every configuration links. There is no
// CudaExec to be had, so that nothing else of it is ever called.
#include "ashlar/cuda/graph.hpp"
#include "ashlar/cuda/load.hpp"
#include "ashlar/cuda/peak.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

constexpr const char* kWhy = "this build has no CUDA layer, configure it with -DASHLAR_CUDA=ON";

[[noreturn]] void no_cuda(std::string_view who) { throw Error("NoCuda", concat(who, ": ", kWhy)); }

}  // namespace

bool cuda_available(std::string* why) {
  if (why != nullptr) *why = kWhy;
  return false;
}

CudaExec::CudaExec(const CudaOptions&) { no_cuda("CudaExec"); }
CudaExec::CudaExec(CudaExec&&) noexcept = default;
CudaExec& CudaExec::operator=(CudaExec&&) noexcept = default;
CudaExec::~CudaExec() = default;
void CudaExec::synchronize() { no_cuda("CudaExec"); }

namespace detail {
struct CudaResources {};
void* device_allocate(std::size_t) { no_cuda("DeviceTensor"); }
void device_release(void*) noexcept {}
void device_copy(void*, const void*, std::size_t, CopyKind) { no_cuda("DeviceTensor"); }
}  // namespace detail

CudaScratch::CudaScratch(CudaExec& exec) : resources_(exec.resources()) { no_cuda("CudaScratch"); }
CudaScratch::~CudaScratch() = default;
void* CudaScratch::bytes(Index) { no_cuda("CudaScratch"); }
CudaHostScratch::CudaHostScratch(CudaExec& exec) : resources_(exec.resources()) {
  no_cuda("CudaHostScratch");
}
CudaHostScratch::~CudaHostScratch() = default;
void* CudaHostScratch::bytes(Index) { no_cuda("CudaHostScratch"); }

struct CudaGraph::Impl {};
CudaGraph::CudaGraph() = default;
CudaGraph::CudaGraph(CudaGraph&&) noexcept = default;
CudaGraph& CudaGraph::operator=(CudaGraph&&) noexcept = default;
CudaGraph::~CudaGraph() = default;
CudaGraph::Run CudaGraph::last() const { return Run::none; }
void CudaGraph::run(CudaExec&, void (*)(void*), void*) { no_cuda("CudaGraph"); }

DeviceWeight::DeviceWeight(AnyView<2>, std::shared_ptr<const void>) { no_cuda("DeviceWeight"); }
void DeviceRecurrentState::import_from(View<const float, 3>, Index) { no_cuda("DeviceRecurrentState"); }
void DeviceRecurrentState::export_to(View<float, 3>) const { no_cuda("DeviceRecurrentState"); }
void DeviceRecurrentState::keep_updates(Index, Index) { no_cuda("DeviceRecurrentState"); }
void DeviceRecurrentState::rollback(Index) { no_cuda("DeviceRecurrentState"); }

using Cuda = Backend<CudaExec>;
Cuda::ResidualTarget::ResidualTarget(View<float, 2>, View<float, 2>, CudaExec&) { no_cuda("ResidualTarget"); }
Cuda::ResidualTarget::~ResidualTarget() = default;
View<float, 2> Cuda::ResidualTarget::take(View<float, 2>) { no_cuda("ResidualTarget"); }
DeviceWeight Cuda::matrix(const Parameter&, Index, Index, bool, CudaExec&) { no_cuda("matrix"); }
Cuda::Vector Cuda::vector(Tensor<float, 1>, CudaExec&) { no_cuda("vector"); }
void Cuda::copy(View<const float, 3>, View<float, 3>, CudaExec&) { no_cuda("copy"); }
void Cuda::copy(View<const float, 3>, View<bf16, 3>, CudaExec&) { no_cuda("copy"); }
void Cuda::copy(View<const bf16, 3>, View<float, 3>, CudaExec&) { no_cuda("copy"); }
void Cuda::copy(View<const bf16, 3>, View<bf16, 3>, CudaExec&) { no_cuda("copy"); }
void Cuda::fill(View<float, 3>, float, CudaExec&) { no_cuda("fill"); }
void Cuda::move(View<const float, 2>, View<float, 2>) { no_cuda("move"); }
void Cuda::move(View<const bf16, 2>, View<bf16, 2>) { no_cuda("move"); }
void Cuda::read(View<const float, 3>, void*) { no_cuda("read"); }
void Cuda::read(View<const bf16, 3>, void*) { no_cuda("read"); }
void Cuda::write(const void*, View<float, 3>) { no_cuda("write"); }
void Cuda::write(const void*, View<bf16, 3>) { no_cuda("write"); }

void dense(const DeviceDense&, CudaExec&) { no_cuda("dense"); }
void dense(std::span<const DeviceDense>, CudaExec&) { no_cuda("dense"); }
void gated_dense(const DeviceGatedDense&, CudaExec&) { no_cuda("gated_dense"); }
void activate(const Activate&, CudaExec&) { no_cuda("activate"); }
void decay_gate(const DecayGate&, CudaExec&) { no_cuda("decay_gate"); }
void embedding(const Embedding&, CudaExec&) { no_cuda("embedding"); }
void rms_norm(const RmsNorm&, CudaExec&) { no_cuda("rms_norm"); }
void layer_norm(const LayerNorm&, CudaExec&) { no_cuda("layer_norm"); }
void l2_norm(const L2Norm&, CudaExec&) { no_cuda("l2_norm"); }
void sum_norm(const SumNorm&, CudaExec&) { no_cuda("sum_norm"); }
void residual_add(const ResidualAdd&, CudaExec&) { no_cuda("residual_add"); }
void rope(const Rope&, CudaExec&) { no_cuda("rope"); }
void short_conv(const ShortConv&, CudaExec&) { no_cuda("short_conv"); }
void moe_route(const MoeRoute&, CudaExec&) { no_cuda("moe_route"); }
void moe_group(const MoeGroup&, CudaExec&) { no_cuda("moe_group"); }
void moe_gather(const MoeGather&, CudaExec&) { no_cuda("moe_gather"); }
void moe_combine(const MoeCombine&, CudaExec&) { no_cuda("moe_combine"); }
void softmax_attention(const SoftmaxAttention&, CudaExec&) { no_cuda("softmax_attention"); }
void softmax_attention(const SoftmaxAttentionArgs<float, bf16>&, CudaExec&) { no_cuda("softmax_attention"); }
void softmax_attention(const SoftmaxAttentionArgs<float, bf16, bf16>&, CudaExec&) {
  no_cuda("softmax_attention");
}
void softmax_attention(const SoftmaxAttentionArgs<float, bf16, bf16, bf16>&, CudaExec&) {
  no_cuda("softmax_attention");
}
void softmax_attention(const SoftmaxAttentionArgs<float, f16, f16, f16>&, CudaExec&) {
  no_cuda("softmax_attention");
}
void dpfp(const Dpfp&, CudaExec&) { no_cuda("dpfp"); }
void hedgehog(const Hedgehog&, CudaExec&) { no_cuda("hedgehog"); }
void hgrn(const DeviceGatedScan&, CudaExec&) { no_cuda("hgrn"); }
void rwkv7_keys(const Rwkv7Keys&, CudaExec&) { no_cuda("rwkv7_keys"); }
void rwkv7_output(const Rwkv7Output&, CudaExec&) { no_cuda("rwkv7_output"); }
void rwkv7_values(const Rwkv7Values&, CudaExec&) { no_cuda("rwkv7_values"); }
void scale_heads(const ScaleHeads&, CudaExec&) { no_cuda("scale_heads"); }
void token_shift(const TokenShift&, CudaExec&) { no_cuda("token_shift"); }
void merge_attention(const MergeAttention&, CudaExec&) { no_cuda("merge_attention"); }
void linear_recurrence(const DeviceLinearRecurrence&, CudaExec&) { no_cuda("linear_recurrence"); }
void sample(const Sample&, CudaExec&) { no_cuda("sample"); }

double measure_copy_bandwidth(CudaExec&) { no_cuda("measure_copy_bandwidth"); }
double measure_matrix_rate(CudaExec&) { no_cuda("measure_matrix_rate"); }

std::unique_ptr<DecoderLm<CudaExec>> load_decoder_lm(const Value&, const Parameters&, CudaExec&) {
  no_cuda("load_decoder_lm");
}
std::vector<std::string> cuda_decoder_lm_types() { return {}; }

}  // namespace v0
}  // namespace ashlar
