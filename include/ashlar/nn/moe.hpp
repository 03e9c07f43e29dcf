// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <optional>

#include "ashlar/nn/mlp.hpp"
#include "ashlar/ops/moe.hpp"

namespace ashlar {
inline namespace v0 {

struct MoeConfig {
  Index hidden = 0, width = 0;  // width: of an expert
  Index experts = 0, chosen = 0;
  RouterScore score = RouterScore::softmax;
  bool renormalize = true;
  float scale = 1;
  bool selection_bias = false;  // taken where the checkpoint has one
  Index groups = 1, chosen_groups = 1;
  Activation activation = Activation::silu;
  Index shared_width = 0;    // of the shared expert; 0: none
  bool shared_gate = false;  // shared expert times sigmoid(w x)
};

// A sparse mixture of gated MLPs (Shazeer et al., 2017; Mixtral, Jiang et al., 2024; DeepSeek-MoE, Dai et
// al., 2024):
//   experts, weights = route(W_gate x)                                        (moe_route)
//   out = sum_j weights_j expert_j(x) + shared(x), or + sigmoid(w x) shared(x)
// Only the chosen experts' weights are read, and in prefill once for all the tokens that chose them. A
// token's result does not depend on the other tokens of the call.
//
// Keys: gate.weight [E, hidden], gate.e_score_correction_bias [E] where there is one; experts.<e>.{gate,up,
// down}_proj.weight or experts.<e>.{w1,w3,w2}.weight, or all of them as experts.gate_up_proj [E, 2 width,
// hidden], gate rows first, and experts.down_proj [E, hidden, width]; shared_expert or shared_experts;
// shared_expert_gate.weight [1, hidden].
template <class Exec>
class MixtureOfExperts {
 public:
  MixtureOfExperts(const ParameterReader<Exec>& r, const MoeConfig& c)
      : c_(c), router_(r, "gate", c.hidden, c.experts) {
    const Names bias = {"gate.e_score_correction_bias", "e_score_correction_bias"};
    if (c.selection_bias && r.contains(bias)) selection_bias_ = r.vector(bias, c.experts);
    read_experts(r);
    if (c.shared_width == 0) return;
    const bool plural = r.contains("shared_experts.down_proj.weight");
    shared_.emplace(r.scope(plural ? "shared_experts" : "shared_expert"), c.hidden, c.shared_width,
                    c.activation);
    if (c.shared_gate) shared_gate_ = Linear<Exec>(r, "shared_expert_gate", c.hidden, 1);
  }

  // x, out [T, hidden]; `out` may be `x`.
  void operator()(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    // Bounds the memory of gathered rows; results do not depend on it.
    const Index tokens = x.shape[0], step = std::max<Index>(1, kRows / c_.chosen);
    for (Index t = 0; t < tokens; t += step) {
      const Index end = std::min(tokens, t + step);
      run(x.slice(0, t, end), out.slice(0, t, end), phase, exec);
    }
  }

 private:
  using Matrix = typename Backend<Exec>::Matrix;
  using Dense = typename Backend<Exec>::Dense;
  // gate and up in one matrix, then `up` is empty, or each by itself.
  struct Expert {
    Matrix gate, up, down;
  };
  static constexpr Index kRows = 32768;

  void read_experts(const ParameterReader<Exec>& r) {
    const ParameterCount before = r.count();
    if (r.contains("experts.gate_up_proj")) {
      const Parameter both = r.tensor("experts.gate_up_proj", {c_.experts, 2 * c_.width, c_.hidden});
      const Parameter down = r.tensor("experts.down_proj", {c_.experts, c_.hidden, c_.width});
      for (Index e = 0; e < c_.experts; ++e)
        experts_.push_back({r.matrix(slice(both, e, e + 1), 2 * c_.width, c_.hidden),
                            {},
                            r.matrix(slice(down, e, e + 1), c_.hidden, c_.width)});
    } else {
      for (Index e = 0; e < c_.experts; ++e) {
        const auto expert = r.scope(concat("experts.", e));
        experts_.push_back({expert.matrix(Names{"gate_proj.weight", "w1.weight"}, c_.width, c_.hidden),
                            expert.matrix(Names{"up_proj.weight", "w3.weight"}, c_.width, c_.hidden),
                            expert.matrix(Names{"down_proj.weight", "w2.weight"}, c_.hidden, c_.width)});
      }
    }
    ParameterCount& count = r.count();
    const Index idle = c_.experts - c_.chosen;
    count.idle_elements += (count.matrix_elements - before.matrix_elements) / c_.experts * idle;
    count.idle_bytes += (count.bytes - before.bytes) / c_.experts * idle;
  }

  void run(View<const float, 2> x, View<float, 2> out, Phase phase, Exec& exec) const {
    typename Exec::Scratch scratch(exec);
    typename Backend<Exec>::HostScratch lists(exec);
    const Index tokens = x.shape[0], pairs = tokens * c_.chosen;

    const auto logits = scratch.floats(tokens, c_.experts), weights = scratch.floats(tokens, c_.chosen);
    const auto ids = lists.template get<std::int32_t>(tokens, c_.chosen);
    const auto offsets = lists.template get<Index>(c_.experts + 1), owners = lists.template get<Index>(pairs);
    const auto rows = lists.template get<Index>(tokens, c_.chosen);
    router_(x, logits, phase, exec);
    moe_route(MoeRoute{logits, selection_bias_.view(), ids, weights, c_.score, c_.renormalize, c_.scale,
                       c_.groups, c_.chosen_groups},
              exec);
    moe_group(MoeGroup{ids, offsets, owners, rows}, exec);

    const auto y = scratch.floats(pairs, c_.hidden);
    // One token's rows are all the same row.
    View<const float, 2> gathered(x.data, {pairs, c_.hidden}, {0, 1});
    if (tokens != 1) {
      moe_gather(MoeGather{x, owners, y}, exec);
      gathered = y;
    }
    const auto both = scratch.floats(pairs, 2 * c_.width), activated = scratch.floats(pairs, c_.width);
    const auto gate = both.slice(1, 0, c_.width), up = both.slice(1, c_.width, 2 * c_.width);
    const auto layers = lists.template get<Dense>(2 * std::min(c_.experts, pairs));
    Index count = 0;
    auto add = [&](const Matrix& weight, View<const float, 2> from, View<float, 2> to, Index e) {
      const Index begin = offsets(e), end = offsets(e + 1);
      std::construct_at(layers.at(count++),
                        Dense{from.slice(0, begin, end), weight, {}, to.slice(0, begin, end), phase});
    };
    auto each_chosen = [&](auto&& f) {
      count = 0;
      for (Index e = 0; e < c_.experts; ++e)
        if (offsets(e) != offsets(e + 1)) f(experts_[static_cast<std::size_t>(e)], e);
      dense(std::span<const Dense>(layers.data, static_cast<std::size_t>(count)), exec);
    };
    each_chosen([&](const Expert& expert, Index e) {
      add(expert.gate, gathered, expert.up ? gate : both, e);
      if (expert.up) add(expert.up, gathered, up, e);
    });
    activate(Activate{gate, up, activated, c_.activation}, exec);
    each_chosen([&](const Expert& expert, Index e) { add(expert.down, activated, y, e); });

    View<float, 2> shared, shared_gate;
    if (shared_) {
      shared = scratch.floats(tokens, c_.hidden);
      (*shared_)(x, shared, phase, exec);
      if (c_.shared_gate) shared_gate = scratch.floats(tokens, 1), shared_gate_(x, shared_gate, phase, exec);
    }
    moe_combine(MoeCombine{y, weights, rows, out, shared, shared_gate}, exec);
  }

  MoeConfig c_;
  Linear<Exec> router_, shared_gate_;
  typename Backend<Exec>::Vector selection_bias_;
  std::vector<Expert> experts_;
  std::optional<GatedMlp<Exec>> shared_;
};

}  // namespace v0
}  // namespace ashlar
