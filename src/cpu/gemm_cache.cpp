// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <map>

#include "src/cpu/conv2d_library.hpp"
#include "src/cpu/gemm.hpp"

namespace ashlar {
inline namespace v0 {

struct GemmCache::Table {
  std::map<std::array<Index, 3>, std::shared_ptr<const Gemm>> products;
  std::map<ConvolutionShape, std::shared_ptr<const Convolution>> convolutions;
};

GemmCache::GemmCache() : table_(std::make_unique<Table>()) {}
GemmCache::~GemmCache() = default;

const Gemm& GemmCache::get(Index m, Index k, Index n) {
  auto& product = table_->products[{m, k, n}];
  if (!product) product = Gemm::make(m, k, n);
  return *product;
}

const Convolution* GemmCache::get(const ConvolutionShape& shape) {
  const auto [at, fresh] = table_->convolutions.try_emplace(shape);
  if (fresh) at->second = Convolution::make(shape);
  return at->second.get();
}

}  // namespace v0
}  // namespace ashlar
