// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <map>

#include "src/cpu/gemm.hpp"

namespace ashlar {
inline namespace v0 {

struct GemmCache::Table {
  std::map<std::array<Index, 3>, std::shared_ptr<const Gemm>> products;
};

GemmCache::GemmCache() : table_(std::make_unique<Table>()) {}
GemmCache::~GemmCache() = default;

const Gemm& GemmCache::get(Index m, Index k, Index n) {
  auto& product = table_->products[{m, k, n}];
  if (!product) product = Gemm::make(m, k, n);
  return *product;
}

}  // namespace v0
}  // namespace ashlar
