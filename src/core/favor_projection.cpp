// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

#include "ashlar/ops/favor.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

// Normal numbers from splitmix64 (Steele, Lea and Flood, 2014) by the Box-Muller transform: the same on every
// machine, which std::normal_distribution is not.
class Normal {
 public:
  explicit Normal(std::uint64_t seed) : state_(seed) {}
  double operator()() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  // In (0, 1].
  double uniform() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (static_cast<double>((z ^ z >> 31) >> 11) + 1) * 0x1p-53;
  }
  std::uint64_t state_;
};

using Row = std::vector<double>;

double dot(const Row& a, const Row& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

}  // namespace

Tensor<float, 2> favor_projection(Index features, Index dim, std::uint64_t seed, FavorScaling scaling) {
  if (features < 1 || dim < 1)
    refuse("favor_projection", "a projection of ", features, " features of ", dim,
           " channels, expected 1 or more");
  Tensor<float, 2> projection({features, dim});
  Normal normal(seed);
  auto draw = [&] {
    Row row(static_cast<std::size_t>(dim));
    for (double& e : row) e = normal();
    return row;
  };
  std::vector<Row> block;
  for (Index i = 0; i < features; ++i) {
    if (i % dim == 0) block.clear();
    Row row = draw();
    // Twice: what rounding leaves the first time is gone the second time.
    for (int pass = 0; pass < 2; ++pass)
      for (const Row& other : block) {
        const double along = dot(row, other);
        for (std::size_t c = 0; c < row.size(); ++c) row[c] -= along * other[c];
      }
    const double norm = std::sqrt(dot(row, row));
    for (double& e : row) e /= norm;
    double length = std::sqrt(static_cast<double>(dim));
    if (scaling == FavorScaling::gaussian) {
      const Row other = draw();
      length = std::sqrt(dot(other, other));
    }
    for (Index c = 0; c < dim; ++c)
      projection.view()(i, c) = static_cast<float>(length * row[static_cast<std::size_t>(c)]);
    block.push_back(std::move(row));
  }
  return projection;
}

}  // namespace v0
}  // namespace ashlar
