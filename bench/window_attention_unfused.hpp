// SPDX-License-Identifier: Apache-2.0
// Window attention as a composition of whole-image steps: roll (when shifted), partition, batched products,
// bias, mask, softmax, merge, roll back. Products and softmax are oneDNN's, the rest are loops over all
// threads.
#pragma once
#ifdef BENCH_HAS_ONEDNN
#include <dnnl.hpp>

#include <array>
#include <cmath>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "ashlar/ops/window_attention.hpp"

namespace ashlar::bench {

// Square windows of an image whose extents are multiples of them.
class UnfusedWindowAttention {
 public:
  UnfusedWindowAttention(const WindowAttention& a, CpuExec& exec)
      : a_(a), windows_(a.map.groups()), tokens_(a.map.slots()), dim_(a.q.shape[3] / a.heads) {
    const Index parts = windows_ * a.heads;
    rolled_ = Tensor<float, 4>({3, a.q.shape[1], a.q.shape[2], a.q.shape[3]});
    qkv_ = Tensor<float, 4>({3, parts, tokens_, dim_});
    scores_ = Tensor<float, 3>({parts, tokens_, tokens_});
    result_ = Tensor<float, 3>({parts, tokens_, dim_});
    merged_ = Tensor<float, 4>({1, a.q.shape[1], a.q.shape[2], a.q.shape[3]});
    bias_ = Tensor<float, 3>({a.heads, tokens_, tokens_});
    for (Index h = 0; h < a.heads; ++h)
      for (Index n = 0; n < tokens_; ++n)
        for (Index m = 0; m < tokens_; ++m) bias_.view()(h, n, m) = a.bias(h, n, m);
    if (a.map.shifted()) {
      mask_ = Tensor<float, 3>({windows_, tokens_, tokens_});
      exec.parallel_for(windows_, [&](Index g, int) {
        for (Index n = 0; n < tokens_; ++n)
          for (Index m = 0; m < tokens_; ++m)
            mask_.view()(g, n, m) = a.map.region(g, n) == a.map.region(g, m) ? 0 : a.shift_mask;
      });
    }
    using dnnl::memory;
    using Tag = memory::format_tag;
    const auto f32 = memory::data_type::f32;
    const memory::desc plain({parts, tokens_, dim_}, f32, Tag::abc),
        turned({parts, dim_, tokens_}, f32, Tag::acb), square({parts, tokens_, tokens_}, f32, Tag::abc);
    const auto at = [&](Tensor<float, 4>& t, Index i) { return t.data() + i * parts * tokens_ * dim_; };
    const memory q(plain, engine_, at(qkv_, 0)), k(turned, engine_, at(qkv_, 1)),
        v(plain, engine_, at(qkv_, 2)), s(square, engine_, scores_.data()), o(plain, engine_, result_.data());
    const auto multiply = [&](const memory& x, const memory& y, const memory& z, float scale) {
      dnnl::primitive_attr attributes;
      if (scale != 1) attributes.set_output_scales(0, {scale});
      const dnnl::matmul::desc d(x.get_desc(), y.get_desc(), z.get_desc());
      const dnnl::matmul::primitive_desc p(d, attributes, engine_);
      add(dnnl::matmul(p), {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, y}, {DNNL_ARG_DST, z}});
    };
    multiply(q, k, s, 1 / std::sqrt(static_cast<float>(dim_)));
    const dnnl::softmax_forward::desc d(dnnl::prop_kind::forward_inference, square, 2);
    add(dnnl::softmax_forward({d, engine_}), {{DNNL_ARG_SRC, s}, {DNNL_ARG_DST, s}});
    multiply(s, v, o, 1);
  }

  void run(CpuExec& exec) {
    std::array<View<const float, 4>, 3> from{a_.q, a_.k, a_.v};
    const Index height = a_.q.shape[1], width = a_.q.shape[2], channels = a_.q.shape[3];
    const Index down = a_.map.rows().shift, right = a_.map.columns().shift;
    const Index side = a_.map.rows().slots, across = width / side;
    // roll
    for (std::size_t i = 0; i < 3 && a_.map.shifted(); ++i) {
      const auto to = rolled_.view().slice(0, static_cast<Index>(i), static_cast<Index>(i) + 1);
      exec.parallel_for(height, [&](Index y, int) {
        for (Index x = 0; x < width; ++x)
          std::memcpy(to.at(0, y, x), from[i].at(0, (y + down) % height, (x + right) % width),
                      sizeof(float) * static_cast<std::size_t>(channels));
      });
      from[i] = to;
    }
    // partition: [windows, heads, tokens, dim]
    for (std::size_t i = 0; i < 3; ++i)
      exec.parallel_for(windows_, [&](Index g, int) {
        for (Index n = 0; n < tokens_; ++n)
          for (Index h = 0; h < a_.heads; ++h)
            std::memcpy(qkv_.view().at(static_cast<Index>(i), g * a_.heads + h, n),
                        from[i].at(0, g / across * side + n / side, g % across * side + n % side, h * dim_),
                        sizeof(float) * static_cast<std::size_t>(dim_));
      });
    execute(0);
    add_to_scores(
        bias_, [&](Index p) { return p % a_.heads; }, exec);
    if (mask_)
      add_to_scores(
          mask_, [&](Index p) { return p / a_.heads; }, exec);
    execute(1);
    execute(2);
    // merge, roll back
    const View<float, 4> merged = a_.map.shifted() ? merged_.view() : a_.out;
    exec.parallel_for(windows_, [&](Index g, int) {
      for (Index n = 0; n < tokens_; ++n)
        for (Index h = 0; h < a_.heads; ++h)
          std::memcpy(merged.at(0, g / across * side + n / side, g % across * side + n % side, h * dim_),
                      result_.view().at(g * a_.heads + h, n), sizeof(float) * static_cast<std::size_t>(dim_));
    });
    if (!a_.map.shifted()) return;
    exec.parallel_for(height, [&](Index y, int) {
      for (Index x = 0; x < width; ++x)
        std::memcpy(a_.out.at(0, (y + down) % height, (x + right) % width), merged.at(0, y, x),
                    sizeof(float) * static_cast<std::size_t>(channels));
    });
  }

 private:
  using Arguments = std::unordered_map<int, dnnl::memory>;
  void add(dnnl::primitive p, Arguments arguments) {
    steps_.emplace_back(std::move(p), std::move(arguments));
  }
  // scores[p] += x[which(p)]
  template <class F>
  void add_to_scores(const Tensor<float, 3>& x, F&& which, CpuExec& exec) {
    exec.parallel_for(windows_ * a_.heads, [&](Index p, int) {
      float* __restrict s = scores_.view().at(p);
      const float* __restrict y = x.view().at(which(p));
      for (Index i = 0; i < tokens_ * tokens_; ++i) s[i] += y[i];
    });
  }
  void execute(std::size_t step) {
    steps_[step].first.execute(stream_, steps_[step].second);
    stream_.wait();
  }

  const WindowAttention a_;
  Index windows_, tokens_, dim_;
  Tensor<float, 4> rolled_, qkv_, merged_;
  Tensor<float, 3> scores_, result_, bias_, mask_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::vector<std::pair<dnnl::primitive, Arguments>> steps_;
};

}  // namespace ashlar::bench
#endif
