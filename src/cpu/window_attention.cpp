// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/window_attention.hpp"

#include <algorithm>
#include <cmath>

#include "src/cpu/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/cpu/window_attention.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "ashlar/kernels/window_attention-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar {
inline namespace v0 {
namespace kernels {
namespace HWY_NAMESPACE {

void attend_window_group(const WindowGroup& g) { WindowGroupAttention(g).run(); }

}  // namespace HWY_NAMESPACE
}  // namespace kernels
}  // namespace v0
}  // namespace ashlar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
inline namespace v0 {
namespace kernels {
HWY_EXPORT(attend_window_group);
}  // namespace kernels
namespace {

using kernels::WindowGroup;

constexpr std::string_view kOp = "window_attention";

void check(const WindowAttention& a) {
  const GroupMap& key_map = a.key_map ? a.key_map : a.map;
  if (!a.map) refuse(kOp, "there is no map of the queries' groups");
  const auto [images, height, width, channels] = a.q.shape;
  if (a.heads < 1 || channels % a.heads != 0)
    refuse(kOp, "q has ", channels, " channels, expected a multiple of ", a.heads, " heads");
  if (a.v.shape[3] % a.heads != 0)
    refuse(kOp, "v has ", a.v.shape[3], " channels, expected a multiple of ", a.heads, " heads");
  const GroupMap::Size image = a.map.image(), key_image = key_map.image();
  if (images % a.map.views() != 0)
    refuse(kOp, "q has ", images, " images, expected a multiple of ", a.map.views(), " views");
  if (key_map.views() != a.map.views())
    refuse(kOp, "key_map has ", key_map.views(), " views, expected ", a.map.views());
  expect_shape(kOp, "q", a.q, {images, image[0], image[1], channels});
  expect_shape(kOp, "k", a.k, {images, key_image[0], key_image[1], channels});
  expect_shape(kOp, "v", a.v, {images, key_image[0], key_image[1], a.v.shape[3]});
  expect_shape(kOp, "out", a.out, {images, image[0], image[1], a.v.shape[3]});
  if (key_map.groups() != a.map.groups())
    refuse(kOp, "key_map has ", key_map.groups(), " groups, expected ", a.map.groups());
  if (a.map.shifted() && a.shift_mask != 0 && a.key_map && !(a.key_map == a.map))
    refuse(kOp, "key_map differs from map, which is shifted and masked, expected the same map");
  if (a.tau) expect_shape(kOp, "tau", a.tau, {a.heads});
  const std::array<Index, 3> want{a.heads, a.map.slots(), key_map.slots()};
  if (a.bias && a.bias.shape != want)
    refuse(kOp, "bias has shape ", to_string(a.bias.shape), ", expected ", to_string(want));
}

// Where the slots of a group are, in elements behind an item's first.
template <class T>
void place_slots(const GroupMap& map, Index group, const View<T, 4>& x, Index* places) {
  for (Index n = 0; n < map.slots(); ++n) {
    const GroupMap::Slot s = map.at(group, n);
    places[n] = s.inside() ? s.view * x.strides[0] + s.row * x.strides[1] + s.column * x.strides[2]
                           : WindowGroup::kOutside;
  }
}

// A call: tasks are some heads of a group, each head as it would be alone.
class Plan {
 public:
  Plan(const WindowAttention& a, CpuExec& exec, CpuScratch& scratch)
      : a_(a), key_map_(a.key_map ? a.key_map : a.map), queries_(a.map.slots()), keys_(key_map_.slots()) {
    dim_ = a.q.shape[3] / a.heads, value_dim_ = a.v.shape[3] / a.heads;
    groups_ = a.q.shape[0] / a.map.views() * a.map.groups();
    // All heads of a group, which share cache lines, where there are groups enough for every thread.
    heads_ = groups_ >= 4 * exec.threads() ? a.heads : 1;
    scale_ = a.scale != 0 ? a.scale : 1 / std::sqrt(static_cast<float>(std::max<Index>(1, dim_)));
    bias_ = a.bias;
    if (a.bias && queries_ > 1 && a.bias.strides[1] != 1) bias_ = turned(scratch);
    const Index threads = exec.threads();
    places_ = scratch.get<Index>(threads, 2 * (queries_ + keys_));
    regions_ = scratch.get<std::uint8_t>(threads, queries_);
    work_ = scratch.floats(threads, WindowGroup::scratch_size(keys_, dim_, value_dim_));
  }

  Index tasks() const { return groups_ * (a_.heads / heads_); }
  template <class F>
  void run(Index task, int worker, F&& attend) const {
    const Index parts = a_.heads / heads_, group = task / parts % a_.map.groups(),
                image = task / parts / a_.map.groups() * a_.map.views();
    Index *q = places_.at(worker), *out = q + queries_, *k = out + queries_, *v = k + keys_;
    place_slots(a_.map, group, a_.q, q), place_slots(a_.map, group, a_.out, out);
    place_slots(key_map_, group, a_.k, k), place_slots(key_map_, group, a_.v, v);
    const bool masked = a_.shift_mask != 0 && a_.map.mixed(group);
    std::uint8_t* regions = regions_.at(worker);
    for (Index n = 0; n < queries_ && masked; ++n)
      regions[n] = static_cast<std::uint8_t>(a_.map.region(group, n));
    const Index first = task % parts * heads_;
    for (Index h = first; h < first + heads_; ++h) {
      WindowGroup g;
      g.queries = queries_, g.keys = keys_, g.dim = dim_, g.value_dim = value_dim_;
      g.q = a_.q.at(image, 0, 0, h * dim_), g.k = a_.k.at(image, 0, 0, h * dim_);
      g.v = a_.v.at(image, 0, 0, h * value_dim_), g.out = a_.out.at(image, 0, 0, h * value_dim_);
      g.q_places = q, g.k_places = k, g.v_places = v, g.out_places = out;
      g.fetch_next = h + 1 < first + heads_;
      if (bias_) g.bias = bias_.at(h), g.bias_pitch = bias_.strides[2];
      if (masked) g.regions = regions, g.mask = a_.shift_mask;
      g.cosine = static_cast<bool>(a_.tau), g.scale = g.cosine ? a_.tau(h) : scale_;
      g.scratch = work_.at(worker);
      attend(g);
    }
  }

 private:
  // The bias as [heads, keys, queries].
  View<const float, 3> turned(CpuScratch& scratch) const {
    const auto to = scratch.floats(a_.heads, keys_, queries_);
    for (Index h = 0; h < a_.heads; ++h)
      for (Index m = 0; m < keys_; ++m)
        for (Index n = 0; n < queries_; ++n) to(h, m, n) = a_.bias(h, n, m);
    return {to.data, {a_.heads, queries_, keys_}, {keys_ * queries_, 1, queries_}};
  }

  const WindowAttention& a_;
  const GroupMap& key_map_;
  Index queries_, keys_, dim_ = 0, value_dim_ = 0, groups_ = 0, heads_ = 1;
  float scale_ = 1;
  View<const float, 3> bias_;
  View<Index, 2> places_;
  View<std::uint8_t, 2> regions_;
  View<float, 2> work_;
};

}  // namespace

void window_attention(const WindowAttention& a, CpuExec& exec) {
  check(a);
  if (a.q.shape[0] == 0 || a.v.shape[3] == 0) return;
  CpuScratch scratch(exec);
  const Plan plan(a, exec, scratch);
  trace(exec, kOp, "queries along the lanes", "q", to_string(a.q.shape), " heads=", a.heads,
        " groups=", a.map.groups(), " of ", a.map.slots());
  exec.parallel_for(plan.tasks(), [&](Index task, int worker) {
    plan.run(task, worker, [&](const WindowGroup& g) { ASHLAR_DISPATCH(exec, attend_window_group)(g); });
  });
}

}  // namespace v0
}  // namespace ashlar
#endif  // HWY_ONCE
