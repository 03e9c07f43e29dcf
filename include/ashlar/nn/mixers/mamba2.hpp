// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <limits>

#include "ashlar/nn/linear.hpp"
#include "ashlar/nn/mixer.hpp"
#include "ashlar/nn/norm.hpp"
#include "ashlar/nn/short_convolution.hpp"
#include "ashlar/ops/decay_gate.hpp"
#include "ashlar/ops/linear_mixers.hpp"
#include "ashlar/ops/scale_heads.hpp"

namespace ashlar {
inline namespace v0 {

// x, B and C have widths of their own, so that every writer's layer is this one. Mamba-2: x has as many heads
// as the layer, B and C have G groups. Attention-shaped (MaTVLM): C has as many groups as the layer has
// heads, as queries do; x and B have fewer, as grouped values and keys do.
struct Mamba2Config {
  Index hidden = 0, heads = 0, head_dim = 0, state_dim = 0;
  Index x_heads = 0, b_groups = 0, c_groups = 0;
  Index conv_width = 0;
  bool biased = false, conv_bias = true;
  bool repeat_before_conv = false;  // heads of x and B are repeated before the convolution, not behind it
  bool skip_per_channel = false;    // D [heads head_dim] instead of [heads]
  bool normalised = true, norm_before_gate = false;
  Index norm_groups = 1;  // the norm is over d_inner / norm_groups channels: 1 Hugging Face, G the authors
  float norm_eps = 1e-5f;
  float min_step = 0, max_step = std::numeric_limits<float>::infinity();  // of dt
  Activation activation = Activation::silu;                               // of the convolution

  Index inner() const { return heads * head_dim; }
  Index x_width() const { return x_heads * head_dim; }
  Index b_width() const { return b_groups * state_dim; }
  Index c_width() const { return c_groups * state_dim; }
  Index xbc_width() const { return x_width() + b_width() + c_width(); }
  // Rows of in_proj: z, x, B, C, dt.
  Index projected() const { return inner() + xbc_width() + heads; }
  Index conv_channels() const {
    return repeat_before_conv ? inner() + heads * state_dim + c_width() : xbc_width();
  }
};

// Mamba-2 (Dao and Gu, 2024), and with grouped x and B its attention-shaped form (Li et al., 2025):
//   z, u, dt = W_in x;  x, B, C = silu(conv(u));  dt <- clamp(softplus(dt + dt_bias))
//   S_t = exp(-exp(a_log) dt_t) S_{t-1} + B_t (dt_t x_t)^T;  y_t = S_t^T C_t + D x_t
//   out = W_out rms_norm(y silu(z)), or W_out (rms_norm(y) silu(z)), or W_out (y silu(z))
// Reads in_proj, conv1d, A_log, D, dt_bias, norm and out_proj, the names that all its writers use.
template <class Exec>
class Mamba2 final : public Mixer<Exec> {
 public:
  Mamba2(const ParameterReader<Exec>& r, const Mamba2Config& c)
      : c_(c),
        in_(r, "in_proj", c.hidden, c.projected(), c.biased),
        out_(r, "out_proj", c.inner(), c.hidden, c.biased),
        conv_(r.vector(to_floats(r.tensor("conv1d.weight", {c.conv_channels(), 1, c.conv_width}))),
              c.conv_channels(), c.conv_width, c.activation,
              c.conv_bias ? r.vector("conv1d.bias", c.conv_channels()) : typename Backend<Exec>::Vector()),
        a_log_(r.vector("A_log", c.heads)),
        dt_bias_(r.vector("dt_bias", c.heads)),
        skip_(r.vector("D", c.skip_per_channel ? c.inner() : c.heads)) {
    if (c.normalised) norm_ = Norm<Exec>(r, "norm.weight", c.inner(), c.norm_eps);
  }

  LayerState<Exec> new_state(Index) const override {
    LayerState<Exec> state;
    state.inputs = conv_.new_inputs();
    state.recurrent = typename Backend<Exec>::RecurrentState(c_.heads, c_.state_dim, c_.head_dim);
    return state;
  }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, const SequenceBatch<Exec>& batch,
                  Exec& exec) const override {
    typename Exec::Scratch scratch(exec);
    const Index tokens = x.shape[0], inner = c_.inner();
    const auto projected = scratch.floats(tokens, c_.projected());
    in_(x, projected, batch.phase, exec);
    const auto z = projected.slice(1, 0, inner), xbc = projected.slice(1, inner, inner + c_.xbc_width()),
               raw = projected.slice(1, inner + c_.xbc_width(), c_.projected());

    const auto mixed = scratch.floats(tokens, c_.conv_channels());
    if (c_.repeat_before_conv) {
      const auto wide = scratch.floats(tokens, c_.conv_channels());
      repeat_heads(xbc, wide, exec);
      conv_(wide, mixed, batch, exec);
    } else {
      conv_(xbc, mixed, batch, exec);
    }
    const Index b = c_.repeat_before_conv ? inner : c_.x_width(), c = c_.conv_channels() - c_.c_width();
    const auto u = mixed.slice(1, 0, b).split(1, c_.head_dim);
    const auto k = mixed.slice(1, b, c).split(1, c_.state_dim);
    const auto q = mixed.slice(1, c, c_.conv_channels()).split(1, c_.state_dim);

    const auto g = scratch.floats(tokens, c_.heads), dt = scratch.floats(tokens, c_.heads);
    DecayGate gate{raw, a_log_.view(), dt_bias_.view(), g};
    gate.step = dt, gate.min_step = c_.min_step, gate.max_step = c_.max_step;
    decay_gate(gate, exec);
    const auto v = scratch.floats(tokens, inner), y = scratch.floats(tokens, inner);
    const auto values = v.split(1, c_.head_dim), heads = y.split(1, c_.head_dim);
    scale_heads(ScaleHeads{u, dt.split(1, 1), values}, exec);
    const RecurrentStates<Exec> states(batch, exec);
    mamba2_ssd(typename Backend<Exec>::LinearRecurrence{q, k, values, g, {}, heads, 1, batch.offsets, states},
               exec);
    const Index factors = c_.skip_per_channel ? c_.head_dim : 1;
    scale_heads(ScaleHeads{u, constant_scale(skip_.view(), tokens, factors), heads, heads}, exec);

    const Index group = inner / c_.norm_groups;
    if (c_.normalised && c_.norm_before_gate) {
      norm_(y.split(1, group), y.split(1, group), exec, z.split(1, group));
    } else {
      activate(Activate{z, y, y}, exec);
      if (c_.normalised) norm_(y.split(1, group), y.split(1, group), exec);
    }
    out_(y, out, batch.phase, exec);
  }

 private:
  // x, B, C as x and B with the layer's heads, and C as it is.
  void repeat_heads(View<const float, 2> xbc, View<float, 2> wide, Exec& exec) const {
    Index from = 0, to = 0;
    auto repeat = [&](Index heads, Index dim) {
      const auto x = xbc.slice(1, from, from + heads * dim).split(1, dim);
      const Index times = c_.heads / heads;
      for (Index i = 0; i < times; ++i) {
        const Index first = to + i * dim;
        Backend<Exec>::copy(x, {wide.at(0, first), x.shape, {wide.strides[0], times * dim, 1}}, exec);
      }
      from += heads * dim, to += c_.heads * dim;
    };
    repeat(c_.x_heads, c_.head_dim);
    repeat(c_.b_groups, c_.state_dim);
    Backend<Exec>::copy(xbc.slice(1, from, c_.xbc_width()).split(1, c_.state_dim),
                        wide.slice(1, to, c_.conv_channels()).split(1, c_.state_dim), exec);
  }

  Mamba2Config c_;
  Linear<Exec> in_, out_;
  ShortConvolution<Exec> conv_;
  typename Backend<Exec>::Vector a_log_, dt_bias_, skip_;
  Norm<Exec> norm_;
};

}  // namespace v0
}  // namespace ashlar
