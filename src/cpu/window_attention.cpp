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

// Where the slots of a group are in two images, in elements behind an item's first.
template <class T, class U>
void place_slots(const GroupMap& map, Index group, const View<T, 4>& x, Index* x_places, const View<U, 4>& y,
                 Index* y_places) {
  const GroupAxis &rows = map.rows(), &columns = map.columns();
  for (Index i = 0; i < rows.slots; ++i)
    for (Index j = 0; j < columns.slots; ++j) {
      const Index row = rows.at(group / columns.groups, i), column = columns.at(group % columns.groups, j);
      for (Index v = 0; v < map.views(); ++v, ++x_places, ++y_places) {
        *x_places = *y_places = WindowGroup::kOutside;
        if (row < 0 || column < 0) continue;
        *x_places = v * x.strides[0] + row * x.strides[1] + column * x.strides[2];
        *y_places = v * y.strides[0] + row * y.strides[1] + column * y.strides[2];
      }
    }
}

// A call: tasks are some groups that follow one another, or a head of one; each head as it would be alone.
class Plan {
 public:
  Plan(const WindowAttention& a, CpuExec& exec, CpuScratch& scratch)
      : a_(a), key_map_(a.key_map ? a.key_map : a.map), queries_(a.map.slots()), keys_(key_map_.slots()) {
    dim_ = a.q.shape[3] / a.heads, value_dim_ = a.v.shape[3] / a.heads;
    groups_ = a.q.shape[0] / a.map.views() * a.map.groups();
    const Index threads = exec.threads();
    // Heads share cache lines: a thread takes all of a group, where there are groups enough.
    const bool many = groups_ >= 4 * threads;
    heads_ = many ? a.heads : 1, run_ = many ? std::clamp<Index>(groups_ / (8 * threads), 1, 8) : 1;
    scale_ = a.scale != 0 ? a.scale : 1 / std::sqrt(static_cast<float>(std::max<Index>(1, dim_)));
    bias_ = a.bias;
    if (a.bias && queries_ > 1 && a.bias.strides[1] != 1) bias_ = turned(scratch);
    places_ = scratch.get<Index>(threads, 2, 2 * (queries_ + keys_));
    regions_ = scratch.get<std::uint8_t>(threads, queries_);
    work_ = scratch.floats(threads, WindowGroup::scratch_size(keys_, dim_, value_dim_));
  }

  Index tasks() const { return (groups_ + run_ - 1) / run_ * (a_.heads / heads_); }
  template <class F>
  void run(Index task, int worker, F&& attend) const {
    const Index parts = a_.heads / heads_, first = task / parts * run_, end = std::min(groups_, first + run_);
    Group group(*this, first, places_.at(worker, 0));
    for (Index i = first; i < end; ++i) {
      const bool last = i + 1 == end;
      const Group next = last ? group : Group(*this, i + 1, places_.at(worker, (i + 1 - first) % 2));
      std::uint8_t* regions = regions_.at(worker);
      const bool masked = a_.shift_mask != 0 && a_.map.mixed(group.number);
      for (Index n = 0; n < queries_ && masked; ++n)
        regions[n] = static_cast<std::uint8_t>(a_.map.region(group.number, n));
      const Index from = task % parts * heads_, to = from + heads_;
      for (Index h = from; h < to; ++h) {
        WindowGroup g = describe(group, h);
        if (h + 1 < to)
          fetch(g, describe(group, h + 1));
        else if (!last)
          fetch(g, describe(next, from));
        if (masked) g.regions = regions, g.mask = a_.shift_mask;
        g.scratch = work_.at(worker);
        attend(g);
      }
      group = next;
    }
  }

 private:
  struct Group {
    Group(const Plan& p, Index i, Index* places)
        : number(i % p.a_.map.groups()), image(i / p.a_.map.groups() * p.a_.map.views()) {
      q = places, out = q + p.queries_, k = out + p.queries_, v = k + p.keys_;
      place_slots(p.a_.map, number, p.a_.q, q, p.a_.out, out);
      place_slots(p.key_map_, number, p.a_.k, k, p.a_.v, v);
    }
    Index number, image;
    Index *q, *out, *k, *v;
  };

  WindowGroup describe(const Group& group, Index h) const {
    WindowGroup g;
    g.queries = queries_, g.keys = keys_, g.dim = dim_, g.value_dim = value_dim_;
    g.q = a_.q.at(group.image, 0, 0, h * dim_), g.k = a_.k.at(group.image, 0, 0, h * dim_);
    g.v = a_.v.at(group.image, 0, 0, h * value_dim_), g.out = a_.out.at(group.image, 0, 0, h * value_dim_);
    g.q_places = group.q, g.k_places = group.k, g.v_places = group.v, g.out_places = group.out;
    if (bias_) g.bias = bias_.at(h), g.bias_pitch = bias_.strides[2];
    g.cosine = static_cast<bool>(a_.tau), g.scale = g.cosine ? a_.tau(h) : scale_;
    return g;
  }
  static void fetch(WindowGroup& g, const WindowGroup& next) {
    g.next_q = next.q, g.next_k = next.k, g.next_v = next.v, g.next_out = next.out;
    g.next_q_places = next.q_places, g.next_k_places = next.k_places;
    g.next_v_places = next.v_places, g.next_out_places = next.out_places;
  }

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
  Index queries_, keys_, dim_ = 0, value_dim_ = 0, groups_ = 0, heads_ = 1, run_ = 1;
  float scale_ = 1;
  View<const float, 3> bias_;
  View<Index, 3> places_;
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
