// SPDX-License-Identifier: Apache-2.0
#ifndef ASHLAR_HAS_ONEDNN
#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Core>

#include "src/cpu/gemm.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

class EigenGemm : public Gemm {
 public:
  EigenGemm(Index m, Index k, Index n) : m_(m), k_(k), n_(n) {}

  void multiply(const float* a, const float* b, float* c, void*) const override {
    using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const Matrix> x(a, m_, k_), w(b, k_, n_);
    Eigen::Map<Matrix>(c, m_, n_).noalias() = x * w;
  }

  Index scratch_bytes() const override { return 0; }

 private:
  Index m_, k_, n_;
};

}  // namespace

std::shared_ptr<const Gemm> Gemm::make(Index m, Index k, Index n) {
  return std::make_shared<EigenGemm>(m, k, n);
}

std::string_view Gemm::library() { return "Eigen (oneDNN is not in this build)"; }

}  // namespace v0
}  // namespace ashlar
#endif  // ASHLAR_HAS_ONEDNN
