// SPDX-License-Identifier: Apache-2.0
#ifdef ASHLAR_HAS_ONEDNN
#include "src/cpu/gemm.hpp"
#include "src/cpu/onednn.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

class OneDnnGemm : public Gemm {
 public:
  OneDnnGemm(Index m, Index k, Index n)
      : a_({m, k}, kType, kRows), b_({k, n}, kType, kRows), c_({m, n}, kType, kRows) {
    const OneDnnOnOneThread guard;
    // The library's own scratchpad is one a thread that made a primitive: other threads may not use it.
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc descriptor(onednn_cpu(), a_, b_, c_, attributes);
#else
    const dnnl::matmul::primitive_desc descriptor(dnnl::matmul::desc(a_, b_, c_), attributes, onednn_cpu());
#endif
    scratch_ = descriptor.scratchpad_desc();
    matmul_ = dnnl::matmul(descriptor);
  }

  void multiply(const float* a, const float* b, float* c, void* scratch) const override {
    const OneDnnOnOneThread guard;
    dnnl::stream stream(onednn_cpu());
    matmul_.execute(stream, {{DNNL_ARG_SRC, {a_, onednn_cpu(), const_cast<float*>(a)}},
                             {DNNL_ARG_WEIGHTS, {b_, onednn_cpu(), const_cast<float*>(b)}},
                             {DNNL_ARG_DST, {c_, onednn_cpu(), c}},
                             {DNNL_ARG_SCRATCHPAD, {scratch_, onednn_cpu(), scratch}}});
    stream.wait();
  }
  Index scratch_bytes() const override { return static_cast<Index>(scratch_.get_size()); }

 private:
  static constexpr auto kType = dnnl::memory::data_type::f32;
  static constexpr auto kRows = dnnl::memory::format_tag::ab;
  dnnl::memory::desc a_, b_, c_, scratch_;
  dnnl::matmul matmul_;
};

}  // namespace

std::shared_ptr<const Gemm> Gemm::make(Index m, Index k, Index n) {
  try {
    return std::make_shared<OneDnnGemm>(m, k, n);
  } catch (const dnnl::error& e) {
    throw Error("BackendFailure", concat("dense: oneDNN refused a product of ", m, "x", k, "x", n, ": ",
                                         std::string_view(e.what())));
  }
}

std::string_view Gemm::library() { return "oneDNN"; }

}  // namespace v0
}  // namespace ashlar
#endif  // ASHLAR_HAS_ONEDNN
