// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/channel_attention.hpp"

#include <cmath>

#include "ashlar/ref/channel_attention.hpp"
#include "src/cpu/channel_attention.hpp"
#include "src/cpu/dispatch.hpp"
#include "src/cpu/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/channel_attention.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/matmul-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

// The largest magnitude of each channel.
void channel_tops(const ChannelRows& x, Index rows, Index columns, Index dim, float* tops) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  for (Index c = 0; c < dim; c += kLanes) {
    auto top = hn::Zero(d);
    for (Index y = 0; y < rows; ++y)
      for (Index p = 0; p < columns; ++p)
        top = hn::Max(top, hn::Abs(load_some(d, x.data + y * x.row + p * x.pixel + c, dim - c)));
    store_some(top, d, tops + c, dim - c);
  }
}

// to [pixels, pitch] = scale * x, zeros behind dim; squares += the squares of it.
void pack_channels(const float* x, Index step, Index pixels, Index dim, const float* scale, float* to,
                   Index pitch, float* squares) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  for (Index c = 0; c < dim; c += kLanes) {
    const auto s = load_some(d, scale + c, dim - c);
    auto sum = load_some(d, squares + c, dim - c);
    for (Index p = 0; p < pixels; ++p) {
      const auto y = hn::Mul(s, load_some(d, x + p * step + c, dim - c));
      sum = hn::MulAdd(y, y, sum);
      hn::StoreU(y, d, to + p * pitch + c);
    }
    store_some(sum, d, squares + c, dim - c);
  }
}

// Powers of two that bring the tops near one.
void powers_near_one(const float* tops, Index dim, float* scale) {
  for (Index c = 0; c < dim; ++c)
    scale[c] = tops[c] > 0 ? std::ldexp(1.0f, -std::clamp(std::ilogb(tops[c]), -126, 126)) : 1.0f;
}

void channel_products(const ChannelProducts& a) {
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  const Index dim = a.dim, pitch = a.pitch, columns = (dim + kLanes - 1) / kLanes * kLanes;
  const ChannelPart part(a.part, dim, pitch);
  channel_tops(a.q, a.rows, a.columns, dim, part.q_scale);
  channel_tops(a.k, a.rows, a.columns, dim, part.k_scale);
  powers_near_one(part.q_scale, dim, part.q_scale), powers_near_one(part.k_scale, dim, part.k_scale);
  std::fill_n(part.gram, dim * pitch, 0.0f);
  std::fill_n(part.q_squares, dim, 0.0f), std::fill_n(part.k_squares, dim, 0.0f);
  float *q = a.work, *k = a.work + kChannelBlock * pitch;
  for (Index y = 0; y < a.rows; ++y)
    for (Index x = 0; x < a.columns; x += kChannelBlock) {
      const Index pixels = std::min(kChannelBlock, a.columns - x);
      pack_channels(a.q.data + y * a.q.row + x * a.q.pixel, a.q.pixel, pixels, dim, part.q_scale, q, pitch,
                    part.q_squares);
      pack_channels(a.k.data + y * a.k.row + x * a.k.pixel, a.k.pixel, pixels, dim, part.k_scale, k, pitch,
                    part.k_squares);
      multiply_matrix<true, true>(dim, q, pitch, k, pitch, pixels, part.gram, pitch, columns, {}, [] {});
    }
}

void channel_mixture(const ChannelMixture& a) {
  const FloatTag d;
  constexpr Index kLanes = static_cast<Index>(HWY_LANES(float));
  const Index dim = a.dim, columns = (dim + kLanes - 1) / kLanes * kLanes;
  const float share = 1 / static_cast<float>(a.row_tiles * a.column_tiles);
  for (Index p = 0; p < a.pixels; p += kStripRows) {
    const Index rows = std::min<Index>(kStripRows, a.pixels - p);
    const float* v = a.v + p * a.v_pixel;
    for (Index i = 0; i < a.row_tiles; ++i)
      for (Index j = 0; j < a.column_tiles; ++j) {
        const float* weights = a.weights + i * a.row_step + j * a.column_step;
        if (i + j == 0)
          multiply_rows<false>(rows, v, a.v_pixel, weights, a.pitch, dim, a.work, a.pitch, columns);
        else
          multiply_rows<true>(rows, v, a.v_pixel, weights, a.pitch, dim, a.work, a.pitch, columns);
      }
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < dim; c += kLanes)
        store_some(hn::Mul(hn::Set(d, share), hn::LoadU(d, a.work + r * a.pitch + c)), d,
                   a.out + (p + r) * a.out_pixel + c, dim - c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(channel_products);
HWY_EXPORT(channel_mixture);
}  // namespace kernels
namespace {

using kernels::ChannelMixture;
using kernels::ChannelPart;
using kernels::ChannelProducts;

constexpr std::string_view kOp = "channel_attention";

// The tiles along one side.
struct Side {
  Index length, tile;
  std::vector<Index> starts;
  Side(Index side, Index wanted)
      : length(side), tile(wanted == 0 ? side : std::min(side, wanted)), starts(tile_starts(side, tile)) {}
  Index count() const { return static_cast<Index>(starts.size()); }

  // Tiles [first, end) cover the places [at, until).
  struct Run {
    Index first, end, until;
  };
  Run run(Index at) const {
    Run r{0, 0, length};
    while (starts[static_cast<std::size_t>(r.first)] + tile <= at) ++r.first;
    for (r.end = r.first; r.end < count() && starts[static_cast<std::size_t>(r.end)] <= at; ++r.end) {
    }
    r.until = starts[static_cast<std::size_t>(r.first)] + tile;
    if (r.end < count()) r.until = std::min(r.until, starts[static_cast<std::size_t>(r.end)]);
    return r;
  }
};

// Products of parts of each tile's rows, weights of each tile, then the pixels. Parts are always the same,
// and are added up in their order.
class Plan {
 public:
  Plan(const ChannelAttention& a, CpuExec& exec)
      : a_(a),
        exec_(exec),
        scratch_(exec),
        rows_(a.q.shape[1], a.tile[0]),
        columns_(a.q.shape[2], a.tile[1]),
        dim_(a.q.shape[3] / a.heads),
        pitch_((dim_ + kLargestVector - 1) / kLargestVector * kLargestVector),
        part_rows_(std::max<Index>(1, kPartPixels / columns_.tile)),
        parts_((rows_.tile + part_rows_ - 1) / part_rows_),
        tiles_(rows_.count() * columns_.count()) {
    products_ = scratch_.floats(a.q.shape[0], tiles_, parts_, a.heads, ChannelPart::size(dim_, pitch_));
    weights_ = scratch_.floats(a.q.shape[0], tiles_, a.heads, dim_, pitch_);
    work_ = scratch_.floats(Index{exec.threads()}, 2 * kernels::kChannelBlock * pitch_);
  }

  void run() {
    const Index images = a_.q.shape[0];
    exec_.parallel_for(images * tiles_ * parts_ * a_.heads, [&](Index i, int worker) {
      multiply(i / a_.heads / parts_ / tiles_, i / a_.heads / parts_ % tiles_, i / a_.heads % parts_,
               i % a_.heads, worker);
    });
    exec_.parallel_for(images * tiles_ * a_.heads, [&](Index i, int) {
      weigh(i / a_.heads / tiles_, i / a_.heads % tiles_, i % a_.heads);
    });
    parallel_rows(exec_, images * rows_.length, columns_.length * a_.q.shape[3],
                  [&](Index begin, Index end, int worker) {
                    for (Index i = begin; i < end; ++i) mix(i / rows_.length, i % rows_.length, worker);
                  });
  }

 private:
  static constexpr Index kLargestVector = 16;  // of any instruction set
  static constexpr Index kPartPixels = 2048;

  void multiply(Index n, Index tile, Index part, Index head, int worker) const {
    const Index top = rows_.starts[static_cast<std::size_t>(tile / columns_.count())];
    const Index left = columns_.starts[static_cast<std::size_t>(tile % columns_.count())];
    const Index first = part * part_rows_;
    const auto rows = [&](const View<const float, 4>& x) {
      return kernels::ChannelRows{x.at(n, top + first, left, head * dim_), x.strides[1], x.strides[2]};
    };
    ChannelProducts p;
    p.q = rows(a_.q), p.k = rows(a_.k);
    p.rows = std::min(part_rows_, rows_.tile - first), p.columns = columns_.tile;
    p.dim = dim_, p.pitch = pitch_;
    p.part = products_.at(n, tile, part, head), p.work = work_.at(worker);
    ASHLAR_DISPATCH(exec_, channel_products)(p);
  }

  // The weights of a tile, turned: [channels of v, channels of out].
  void weigh(Index n, Index tile, Index head) const {
    const std::size_t dim = static_cast<std::size_t>(dim_);
    std::vector<double> q(dim, 0.0), k(dim, 0.0), scores(dim);
    const auto each_part = [&](auto&& f) {
      for (Index i = 0; i < parts_; ++i) f(ChannelPart(products_.at(n, tile, i, head), dim_, pitch_));
    };
    each_part([&](const ChannelPart& p) {
      for (std::size_t c = 0; c < dim; ++c) {
        q[c] += p.q_squares[c] / (double{p.q_scale[c]} * double{p.q_scale[c]});
        k[c] += p.k_squares[c] / (double{p.k_scale[c]} * double{p.k_scale[c]});
      }
    });
    for (std::size_t c = 0; c < dim; ++c)
      q[c] = std::max(std::sqrt(q[c]), 1e-12), k[c] = std::max(std::sqrt(k[c]), 1e-12);
    const double temperature = a_.temperature ? a_.temperature(head) : 1;
    for (std::size_t c = 0; c < dim; ++c) {
      std::fill(scores.begin(), scores.end(), 0.0);
      each_part([&](const ChannelPart& p) {
        const float* gram = p.gram + static_cast<Index>(c) * pitch_;
        for (std::size_t i = 0; i < dim; ++i)
          scores[i] += gram[i] / (double{p.q_scale[c]} * double{p.k_scale[i]});
      });
      for (std::size_t i = 0; i < dim; ++i) scores[i] *= temperature / q[c] / k[i];
      ref::channel_weights(a_.weights, scores);
      for (std::size_t i = 0; i < dim; ++i) weights_(n, tile, head, i, c) = static_cast<float>(scores[i]);
    }
    for (Index i = 0; i < dim_; ++i)
      for (Index c = dim_; c < pitch_; ++c) weights_(n, tile, head, i, c) = 0;
  }

  void mix(Index n, Index y, int worker) const {
    const Side::Run above = rows_.run(y);
    ChannelMixture m;
    m.dim = dim_, m.pitch = pitch_, m.work = work_.at(worker);
    m.v_pixel = a_.v.strides[2], m.out_pixel = a_.out.strides[2];
    m.row_tiles = above.end - above.first, m.row_step = columns_.count() * weights_.strides[1];
    m.column_step = weights_.strides[1];
    for (Index x = 0; x < columns_.length;) {
      const Side::Run beside = columns_.run(x);
      m.pixels = beside.until - x, m.column_tiles = beside.end - beside.first;
      for (Index h = 0; h < a_.heads; ++h) {
        m.v = a_.v.at(n, y, x, h * dim_), m.out = a_.out.at(n, y, x, h * dim_);
        m.weights = weights_.at(n, above.first * columns_.count() + beside.first, h);
        ASHLAR_DISPATCH(exec_, channel_mixture)(m);
      }
      x = beside.until;
    }
  }

  const ChannelAttention& a_;
  CpuExec& exec_;
  CpuScratch scratch_;
  Side rows_, columns_;
  Index dim_, pitch_, part_rows_, parts_, tiles_;
  View<float, 5> products_, weights_;
  View<float, 2> work_;
};

}  // namespace

void channel_attention(const ChannelAttention& a, CpuExec& exec) {
  const Index channels = a.q.shape[3];
  if (a.heads < 1 || channels % a.heads != 0)
    refuse(kOp, a.heads, " heads do not divide ", channels, " channels");
  expect_shape(kOp, "q", a.q, a.q.shape);
  expect_shape(kOp, "k", a.k, a.q.shape);
  expect_shape(kOp, "v", a.v, a.q.shape);
  expect_shape(kOp, "out", a.out, a.q.shape);
  if (a.temperature) expect_shape(kOp, "temperature", a.temperature, {a.heads});
  if (a.tile[0] < 0 || a.tile[1] < 0)
    refuse(kOp, "tiles of ", a.tile[0], " x ", a.tile[1], ", expected no negative extent");
  if (a.q.size() == 0) return;
  trace(exec, kOp, "products of parts", "q", to_string(a.q.shape), " heads=", a.heads, " tile=", a.tile[0],
        "x", a.tile[1]);
  Plan(a, exec).run();
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
