// SPDX-License-Identifier: Apache-2.0
#include "ashlar/ops/window_attention.hpp"

#include "ashlar/ref/window_attention.hpp"
#include "src/cpu/dispatch.hpp"

namespace ashlar {
inline namespace v0 {
namespace {

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

}  // namespace

void window_attention(const WindowAttention& a, CpuExec& exec) {
  check(a);
  trace(exec, kOp, "equation", to_string(a.q.shape));
  ref::window_attention(a);
}

}  // namespace v0
}  // namespace ashlar
