// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/short_convolution.hpp"

namespace ashlar {
inline namespace v0 {

// Queries, keys and values of a linear-attention layer: q, k, v = f(conv(W_q x)), f(conv(W_k x)), f'(conv(W_v
// x)), with or without the convolutions. Reads {q,k,v}_proj and {q,k,v}_conv1d.
template <class Exec>
class QkvProjection {
 public:
  struct Widths {
    Index q, k, v;
  };
  struct Outputs {
    View<float, 2> q, k, v;  // packed
  };

  QkvProjection(const ParameterReader<Exec>& r, Index hidden, const Widths& widths, const ConvConfig& conv,
                Activation qk, Activation v)
      : q_(r, "q", hidden, widths.q, conv, qk),
        k_(r, "k", hidden, widths.k, conv, qk, widths.q),
        v_(r, "v", hidden, widths.v, conv, v, widths.q + widths.k),
        conv_(conv) {}

  // LayerState::inputs
  InputTail<Exec> new_inputs() const {
    return new_conv_inputs<Exec>(conv_, q_.channels() + k_.channels() + v_.channels());
  }

  // In memory of `scratch`.
  Outputs operator()(View<const float, 2> x, const SequenceBatch<Exec>& batch,
                     typename Exec::Scratch& scratch, Exec& exec) const {
    const Index tokens = x.shape[0];
    const Outputs out{scratch.floats(tokens, q_.channels()), scratch.floats(tokens, k_.channels()),
                      scratch.floats(tokens, v_.channels())};
    q_(x, out.q, batch, exec);
    k_(x, out.k, batch, exec);
    v_(x, out.v, batch, exec);
    return out;
  }

 private:
  ConvolvedLinear<Exec> q_, k_, v_;
  ConvConfig conv_;
};

}  // namespace v0
}  // namespace ashlar
