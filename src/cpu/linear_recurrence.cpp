// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/linear_recurrence.hpp"

#include <cmath>
#include <cstring>

#include "ashlar/ref/linear_recurrence.hpp"
#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/linear_recurrence.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/linear_recurrence-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

template <class F>
HWY_INLINE void with_policy(bool decay, bool delta, F&& f) {
  if (decay && delta) return f(RecurrencePolicy<true, true>());
  if (delta) return f(RecurrencePolicy<false, true>());
  if (decay) return f(RecurrencePolicy<true, false>());
  f(RecurrencePolicy<false, false>());
}

void run_recurrence(bool decay, bool delta, const RecurrenceTask& task) {
  with_policy(decay, delta, [&](auto policy) { recur<decltype(policy)>(task); });
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
HWY_EXPORT(run_recurrence);
}  // namespace kernels
namespace {

constexpr std::string_view kOp = "linear_recurrence";

void check(const LinearRecurrence& a) {
  const auto [tokens, heads, dv] = a.out.shape;
  const Index dk = a.k.shape[2], rows = tokens * a.substeps;
  if (heads == 0 || dk == 0 || dv == 0)
    refuse(kOp, "k has shape ", to_string(a.k.shape), " and out ", to_string(a.out.shape),
           ", expected heads and channels");
  a.offsets.check(kOp, tokens);
  (void)rows;
}

// The tokens of one sequence and value columns [column, column + columns) of head h.
kernels::RecurrenceTask task_of(const LinearRecurrence& a, Index n, Index h, Index column, Index columns) {
  const Index t = a.offsets.begin(n), key_head = h / (a.v.shape[1] / a.k.shape[1]);
  kernels::RecurrenceTask task{};
  task.q = a.q.at(t, key_head), task.k = a.k.at(t, key_head);
  task.v = a.v.at(t, h, column), task.out = a.out.at(t, h, column);
  task.g = a.g ? a.g.at(t, h) : nullptr, task.beta = a.beta ? a.beta.at(t, h) : nullptr;
  task.q_stride = a.q.strides[0], task.k_stride = a.k.strides[0], task.v_stride = a.v.strides[0];
  task.g_stride = a.g.strides[0], task.beta_stride = a.beta.strides[0], task.out_stride = a.out.strides[0];
  task.tokens = a.offsets.end(n, a.v.shape[0]) - t;
  task.key_dim = a.k.shape[2], task.columns = columns;
  task.scale = a.scale != 0 ? a.scale : 1 / std::sqrt(static_cast<float>(task.key_dim));
  return task;
}

}  // namespace

void linear_recurrence(const LinearRecurrence& a, CpuExec& exec) {
  check(a);
  for (Index n = 0; n < static_cast<Index>(a.states.size()); ++n)
    a.states[static_cast<std::size_t>(n)]->advance(a.offsets.end(n, a.out.shape[0]) - a.offsets.begin(n));
  if (a.gk || a.a || a.bonus || a.substeps != 1 || a.normalize || a.out.shape[1] != a.v.shape[1] ||
      a.q.shape[1] != a.k.shape[1]) {
    const Index columns = a.out.shape[2] + (a.normalize ? 1 : 0);
    Tensor<float, 4> states({a.offsets.count(), a.out.shape[1], a.k.shape[2], columns});
    for (std::size_t n = 0; n < a.states.size(); ++n)
      a.states[n]->export_to(states.view()[static_cast<Index>(n)]);
    ref::linear_recurrence(a, states.view());
    for (std::size_t n = 0; n < a.states.size(); ++n)
      a.states[n]->import_from(states.view()[static_cast<Index>(n)], a.states[n]->position());
    return;
  }
  const Index tokens = a.v.shape[0], heads = a.v.shape[1], dv = a.v.shape[2];
  const Index sequences = a.offsets.count(), dk = a.k.shape[2];
  const bool decay = static_cast<bool>(a.g), delta = static_cast<bool>(a.beta);
  // A head's panels share the copies of its keys and queries; they are spread over the threads when heads are
  // few.
  const Index panels = (dv + RecurrentState::kPanel - 1) / RecurrentState::kPanel;
  const Index parts = sequences * heads >= 2 * exec.threads() ? 1 : panels;
  const Index width = parts == 1 ? dv : RecurrentState::kPanel,
              state_size = dk * (panels / parts) * RecurrentState::kPanel;
  trace(exec, kOp, tokens <= sequences ? "step" : "recurrent (blocks of 4 tokens)", "k", to_string(a.k.shape),
        " v", to_string(a.v.shape), " sequences=", sequences, decay ? " decay" : "", delta ? " delta" : "");

  CpuScratch scratch(exec);
  const auto work = scratch.floats(exec.threads(), kernels::RecurrenceTask::scratch_size(width));
  const auto zero_state = scratch.floats(exec.threads(), a.states.empty() ? state_size : 0);
  auto run = [&](Index i, int worker) {
    const Index part = i % parts, h = i / parts % heads, n = i / parts / heads;
    auto task = task_of(a, n, h, part * width, std::min(width, dv - part * width));
    if (task.tokens == 0) return;
    task.scratch = work.at(worker);
    if (a.states.empty()) {
      task.state = zero_state.at(worker);
      std::memset(task.state, 0, sizeof(float) * static_cast<std::size_t>(state_size));
    } else {
      task.state = static_cast<float*>(a.states[static_cast<std::size_t>(n)]->panel(h, part));
    }
    ASHLAR_DISPATCH(exec, run_recurrence)(decay, delta, task);
  };
  // Neighbours in memory go to one worker, which fetches the next state while it updates one.
  const Index items = sequences * heads * parts, together = std::max<Index>(1, items / (8 * exec.threads()));
  exec.parallel_for((items + together - 1) / together, [&](Index first, int worker) {
    for (Index i = first * together; i < std::min(items, (first + 1) * together); ++i) run(i, worker);
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
