// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <limits>
#include <memory>
#include <optional>

#include "ashlar/nn/mlp.hpp"
#include "ashlar/ops/moe.hpp"

namespace ashlar {
inline namespace v0 {

// How a checkpoint keeps all experts in one tensor: experts.gate_up_proj [E, 2 width, hidden], gate rows
// first, and experts.down_proj [E, hidden, width]; or (gpt-oss) as [E, hidden, 2 width], gate in the even
// columns and up in the odd ones, and [E, width, hidden].
enum class FusedExperts : std::uint8_t { rows, interleaved_columns };

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
  FusedExperts fused = FusedExperts::rows;
  bool biased = false;  // router and fused experts
  // An expert's unit is activation(slope min(gate, limit)) / slope (clip(up) + up_offset), as in Activate.
  float slope = 1, limit = std::numeric_limits<float>::infinity(), up_offset = 0;
};

// A sparse mixture of gated MLPs (Shazeer et al., 2017; Mixtral, Jiang et al., 2024; DeepSeek-MoE, Dai et
// al., 2024):
//   experts, weights = route(W_gate x)                                        (moe_route)
//   out = sum_j weights_j expert_j(x) + shared(x), or + sigmoid(w x) shared(x)
// Only the chosen experts' weights are read, and in prefill once for all the tokens that chose them. A
// token's result does not depend on the other tokens of the call.
//
// Keys: gate.weight [E, hidden] or router.weight, gate.e_score_correction_bias [E] where there is one;
// experts.<e>.{gate,up,down}_proj.weight or experts.<e>.{w1,w3,w2}.weight, or FusedExperts, and with biases
// experts.gate_up_proj_bias [E, 2 width] in the same order and experts.down_proj_bias [E, hidden];
// shared_expert or shared_experts; shared_expert_gate.weight [1, hidden]. Columns become rows when they are
// read, as a copy; rows stay where they are. Refused: biases of experts that are not fused, experts as MXFP4
// blocks.
template <class Exec>
class MixtureOfExperts {
 public:
  MixtureOfExperts(const ParameterReader<Exec>& r, const MoeConfig& c)
      : c_(c), router_(r, {"gate", "router"}, c.hidden, c.experts, c.biased) {
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
  using Vector = typename Backend<Exec>::Vector;
  using Dense = typename Backend<Exec>::Dense;
  // gate and up in one matrix, then `up` is empty, or each by itself.
  struct Expert {
    Matrix gate, up, down;
    Vector gate_bias, down_bias;  // of fused experts
  };
  static constexpr Index kRows = 32768;

  void read_experts(const ParameterReader<Exec>& r) {
    const ParameterCount before = r.count();
    if (c_.fused == FusedExperts::interleaved_columns || r.contains("experts.gate_up_proj")) {
      read_fused(r);
    } else {
      if (c_.biased)
        refuse("MixtureOfExperts", "biases of experts in tensors of their own, expected fused ones");
      for (Index e = 0; e < c_.experts; ++e) {
        const auto expert = r.scope(concat("experts.", e));
        experts_.push_back({expert.matrix(Names{"gate_proj.weight", "w1.weight"}, c_.width, c_.hidden),
                            expert.matrix(Names{"up_proj.weight", "w3.weight"}, c_.width, c_.hidden),
                            expert.matrix(Names{"down_proj.weight", "w2.weight"}, c_.hidden, c_.width),
                            {},
                            {}});
      }
    }
    ParameterCount& count = r.count();
    const Index idle = c_.experts - c_.chosen;
    count.idle_elements += (count.matrix_elements - before.matrix_elements) / c_.experts * idle;
    count.idle_bytes += (count.bytes - before.bytes) / c_.experts * idle;
  }

  void read_fused(const ParameterReader<Exec>& r) {
    constexpr const char *kBoth = "experts.gate_up_proj", *kDown = "experts.down_proj";
    const bool columns = c_.fused == FusedExperts::interleaved_columns;
    if (!r.contains(kBoth) && r.contains("experts.gate_up_proj_blocks"))
      throw Error("UnsupportedType", concat("checkpoint: \"", r.full(kBoth), "_blocks\" holds MXFP4 blocks, ",
                                            "expected \"", r.full(kBoth), "\" of f32, f16 or bf16"));
    const Index twice = 2 * c_.width;
    const Parameter both = columns ? r.tensor(kBoth, {c_.experts, c_.hidden, twice})
                                   : r.tensor(kBoth, {c_.experts, twice, c_.hidden});
    const Parameter down = columns ? r.tensor(kDown, {c_.experts, c_.width, c_.hidden})
                                   : r.tensor(kDown, {c_.experts, c_.hidden, c_.width});
    Parameter both_bias, down_bias;
    if (c_.biased) {
      both_bias = r.tensor("experts.gate_up_proj_bias", {c_.experts, twice});
      down_bias = r.tensor("experts.down_proj_bias", {c_.experts, c_.hidden});
    }
    std::vector<Index> order;  // gate and up as they are kept
    for (Index i = 0; i < twice; ++i)
      order.push_back(!columns ? i : i < c_.width ? 2 * i : 2 * (i - c_.width) + 1);
    for (Index e = 0; e < c_.experts; ++e) {
      auto of_this = [&](const Parameter& all) {
        Parameter part = slice(all, e, e + 1);
        part.shape.erase(part.shape.begin());
        return part;
      };
      auto rows = [&](const Parameter& all) { return columns ? transpose(of_this(all)) : of_this(all); };
      Expert expert;
      expert.gate = r.matrix(take(rows(both), order), twice, c_.hidden);
      expert.down = r.matrix(rows(down), c_.hidden, c_.width);
      if (c_.biased) {
        expert.gate_bias = r.vector(to_floats(take(of_this(both_bias), order)));
        expert.down_bias = r.vector(to_floats(of_this(down_bias)));
      }
      experts_.push_back(std::move(expert));
    }
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
    auto add = [&](const Matrix& weight, const Vector& bias, View<const float, 2> from, View<float, 2> to,
                   Index e) {
      const Index begin = offsets(e), end = offsets(e + 1);
      std::construct_at(layers.at(count++), Dense{from.slice(0, begin, end), weight, bias.view(),
                                                  to.slice(0, begin, end), phase});
    };
    auto each_chosen = [&](auto&& f) {
      count = 0;
      for (Index e = 0; e < c_.experts; ++e)
        if (offsets(e) != offsets(e + 1)) f(experts_[static_cast<std::size_t>(e)], e);
      dense(std::span<const Dense>(layers.data, static_cast<std::size_t>(count)), exec);
    };
    each_chosen([&](const Expert& expert, Index e) {
      add(expert.gate, expert.gate_bias, gathered, expert.up ? gate : both, e);
      if (expert.up) add(expert.up, {}, gathered, up, e);
    });
    activate(Activate{gate, up, activated, c_.activation, 1 / c_.slope, c_.slope, c_.limit, c_.up_offset},
             exec);
    each_chosen([&](const Expert& expert, Index e) { add(expert.down, expert.down_bias, activated, y, e); });

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
