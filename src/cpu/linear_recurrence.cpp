// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/linear_recurrence.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "src/cpu/recurrence.hpp"
#include "src/cpu/rows.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

using kernels::RecurrenceTask;
using kernels::StateCopy;

constexpr Index kPanel = RecurrentState::kPanel;
// The rule for the form, measured (docs/numerics-and-determinism.md): up to 256 key channels the recurrent
// form is faster on every instruction set, or as fast; from 512 on, where a panel of the state leaves the
// near caches, the chunk form is.
constexpr Index kChunkKeyDim = 512, kChunk = 32;

// A call, cut into tasks: (sequence, head, part of the panels).
class Recurrence {
 public:
  Recurrence(const LinearRecurrence& args, CpuExec& exec) : a_(args), exec_(exec) {
    const Index tasks = a_.offsets.count() * heads();
    // A head's panels share the preparation of its blocks; they are spread over the threads when heads are
    // few.
    parts_ = tasks >= 2 * exec.threads() ? 1 : panels();
    const bool chunks = a_.form == RecurrenceForm::chunk ||
                        (a_.form == RecurrenceForm::automatic && a_.k.shape[2] >= kChunkKeyDim);
    const Index rows = std::max<Index>(1, a_.out.shape[0] * a_.substeps);
    if (chunks) chunk_ = std::min(a_.chunk != 0 ? a_.chunk : kChunk, rows);
  }

  Index heads() const { return a_.out.shape[1]; }
  Index columns() const { return a_.out.shape[2]; }
  Index panels() const { return (columns() + (a_.normalize ? 1 : 0) + kPanel - 1) / kPanel; }
  Index tasks() const { return a_.offsets.count() * heads() * parts_; }
  Index parts() const { return parts_; }
  Index chunk() const { return chunk_; }  // 0: the recurrent form

  // For the trace: what runs, and why not the other form.
  std::string form() const {
    if (a_.out.shape[0] <= a_.offsets.count()) return "step (one token a sequence)";
    const std::string why = a_.form == RecurrenceForm::automatic
                                ? concat(" (chunks pay from ", kChunkKeyDim, " key channels on)")
                                : " (asked for)";
    return chunk_ == 0 ? concat("recurrent", why) : concat("chunks of ", chunk_, why);
  }

  // Where the divisors of the normalised form go, [T, H].
  void set_divisors(View<float, 2> divisors) { divisors_ = divisors; }
  View<const float, 2> divisors() const { return divisors_; }

  RecurrenceTask task(Index n, Index h, Index part) const {
    const Index t = a_.offsets.begin(n), i = t * a_.substeps, from = part * kPanel;
    RecurrenceTask p;
    p.q = rows(a_.q, t, h), p.gk = rows(a_.gk, t, h), p.g = rows(a_.g, t, h);
    p.k = rows(a_.k, i, h), p.v = rows(a_.v, i, h), p.beta = rows(a_.beta, i, h);
    p.a = rows(a_.a, i, h), p.b = rows(a_.b, i, h);
    p.v.data += from;
    if (a_.bonus) p.bonus = a_.bonus.at(h / (heads() / a_.bonus.shape[0]));
    p.out = a_.out.at(t, h, from), p.out_stride = a_.out.strides[0];
    if (divisors_) p.divisors = divisors_.at(t, h), p.divisor_stride = divisors_.strides[0];
    p.tokens = a_.offsets.end(n, a_.out.shape[0]) - t;
    p.substeps = a_.substeps, p.key_dim = a_.k.shape[2];
    p.columns = parts_ == 1 ? columns() : std::min(kPanel, columns() - from);
    p.ones = a_.normalize && part + 1 == parts_;
    p.scale = a_.scale != 0 ? a_.scale : 1 / std::sqrt(static_cast<float>(p.key_dim));
    p.chunk = chunk_;
    p.first_column = from, p.update_columns = panels() * kPanel;
    return p;
  }

  // The state that the task reads and updates, and what of its history it keeps.
  void take_state(RecurrentState& s, Index h, Index part, RecurrenceTask& p) const {
    p.state = s.panel(h, part);
    p.narrow = s.dtype() == DType::bf16;
    const RecurrentState::History& history = s.history();
    if (history.keep == 0) return;
    const UpdatePlan plan = plan_updates(history, p.tokens);
    p.recorded = plan.recorded;
    p.updates = s.update(0, h), p.update_stride = heads() * s.update_size(), p.update_slots = history.slots();
    p.first_update = history.first + plan.folded, p.folded = plan.checkpoint_moves ? 0 : plan.folded;
    p.kept = plan.kept;
    p.checkpoint = s.checkpoint_panel(h, part);
    p.low_updates = history.low_rank && !plan.checkpoint_moves;
  }

  // After all tasks, which ran on `isa`.
  void advance(Isa isa) const {
    for (std::size_t n = 0; n < a_.states.size(); ++n) {
      RecurrentState& s = *a_.states[n];
      const Index tokens =
          a_.offsets.end(static_cast<Index>(n), a_.out.shape[0]) - a_.offsets.begin(static_cast<Index>(n));
      s.advance(tokens);
      RecurrentState::History& history = s.history();
      if (history.keep == 0 || tokens == 0) continue;
      const UpdatePlan plan = plan_updates(history, tokens);
      history.first = (history.first + plan.folded) % history.slots();
      history.isa = isa, history.low_rank = history.low_rank || a_.a;
      history.count = plan.kept + (tokens - plan.recorded) * a_.substeps;
    }
  }

  void run(const RecurrenceTask& p, std::span<const StateCopy> copies) const {
    if (a_.beta) return detail::run_delta(exec_.isa(), p, copies);
    if (a_.a) return detail::run_low_rank(exec_.isa(), p, copies);
    detail::run_none(exec_.isa(), p, copies);
  }

 private:
  // What happens to a history when `tokens` tokens come: the first `recorded` of them leave no updates,
  // `folded` of the old updates go into the checkpoint (or are dropped, when that is taken anew behind the
  // recorded tokens) and `kept` stay.
  struct UpdatePlan {
    Index recorded = 0, folded = 0, kept = 0;
    bool checkpoint_moves = false;
  };
  UpdatePlan plan_updates(const RecurrentState::History& history, Index tokens) const {
    const Index keep = history.keep;
    if (tokens >= keep) return {tokens - keep, history.count, 0, true};
    const Index kept = history.count + tokens * a_.substeps > 2 * keep * a_.substeps
                           ? std::min(history.count, (keep - tokens) * a_.substeps)
                           : history.count;
    return {0, history.count - kept, kept, false};
  }

  template <int Rank>
  kernels::TokenRows rows(const View<const float, Rank>& x, Index t, Index h) const {
    if (!x) return {};
    return {x.at(t, h / (heads() / x.shape[1])), x.strides[0]};
  }

  const LinearRecurrence& a_;
  CpuExec& exec_;
  Index parts_ = 1, chunk_ = 0;
  View<float, 2> divisors_;
};

// Requests by sequence and position.
std::span<const StateRequest> sorted(std::span<const StateRequest> requests, CpuScratch& scratch) {
  const auto list = scratch.get<StateRequest>(static_cast<Index>(requests.size()));
  std::copy(requests.begin(), requests.end(), list.data);
  std::sort(list.data, list.data + requests.size(), [](const StateRequest& x, const StateRequest& y) {
    return x.sequence != y.sequence ? x.sequence < y.sequence : x.tokens < y.tokens;
  });
  return {list.data, requests.size()};
}

void divide(const View<float, 3>& out, View<const float, 2> divisors, float eps, CpuExec& exec) {
  const auto [tokens, heads, dv] = out.shape;
  parallel_rows(exec, tokens, heads * dv, [&, heads = heads, dv = dv](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index h = 0; h < heads; ++h) {
        const float divisor = divisors(t, h) + eps;
        float* row = out.at(t, h);
        for (Index j = 0; j < dv; ++j) row[j] /= divisor;
      }
  });
}

}  // namespace

void linear_recurrence(const LinearRecurrence& a, CpuExec& exec) {
  detail::check_recurrence(a, exec);
  Recurrence recurrence(a, exec);
  const Index tokens = a.out.shape[0], sequences = a.offsets.count(), heads = recurrence.heads();
  if (exec.verbose())
    trace(exec, "linear_recurrence", recurrence.form(), "k", to_string(a.k.shape), " out",
          to_string(a.out.shape), " sequences=", sequences,
          a.g    ? " decay"
          : a.gk ? " decay=channels"
                 : "",
          a.beta ? " delta"
          : a.a  ? " low-rank"
                 : "",
          a.bonus ? " bonus" : "");

  CpuScratch scratch(exec);
  const auto requests = sorted(a.requests, scratch);
  if (a.normalize) recurrence.set_divisors(scratch.floats(tokens, heads));
  const RecurrenceTask any = recurrence.task(0, 0, 0);
  const Index state_size = any.key_dim * any.panels() * kPanel;
  const auto work = scratch.floats(exec.threads(), detail::recurrence_scratch(exec.isa(), any));
  const auto zero_states = scratch.floats(exec.threads(), a.states.empty() ? state_size : 0);
  const auto copies = scratch.get<StateCopy>(exec.threads(), static_cast<Index>(requests.size()));

  auto run = [&](Index i, int worker) {
    const Index part = i % recurrence.parts(), h = i / recurrence.parts() % heads,
                n = i / recurrence.parts() / heads;
    RecurrenceTask p = recurrence.task(n, h, part);
    p.scratch = work.at(worker);
    if (a.states.empty()) {
      p.state = zero_states.at(worker);
      std::memset(p.state, 0, sizeof(float) * static_cast<std::size_t>(state_size));
    } else {
      recurrence.take_state(*a.states[static_cast<std::size_t>(n)], h, part, p);
    }
    Index count = 0;
    for (const StateRequest& r : requests)
      if (r.sequence == n)
        copies(worker, count++) = {r.tokens, r.state->panel(h, part), r.state->dtype() == DType::bf16};
    if (p.tokens != 0 || count != 0) recurrence.run(p, {copies.at(worker), static_cast<std::size_t>(count)});
  };
  // Neighbours in memory go to one worker, which fetches the next state while it updates one.
  const Index tasks = recurrence.tasks(), together = std::max<Index>(1, tasks / (8 * exec.threads()));
  exec.parallel_for((tasks + together - 1) / together, [&](Index first, int worker) {
    for (Index i = first * together; i < std::min(tasks, (first + 1) * together); ++i) run(i, worker);
  });

  if (a.normalize) divide(a.out, recurrence.divisors(), a.normalizer_eps, exec);
  for (const StateRequest& r : requests)
    r.state->begin_history(
        r.tokens + (a.states.empty() ? 0 : a.states[static_cast<std::size_t>(r.sequence)]->position()));
  recurrence.advance(exec.isa());
}

}  // namespace v0
}  // namespace ashlar
