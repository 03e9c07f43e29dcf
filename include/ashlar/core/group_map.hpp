// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>

#include "ashlar/core/error.hpp"
#include "ashlar/core/view.hpp"

namespace ashlar {
inline namespace v0 {

// One axis of an image cut into groups: slot i of group g is at offset + g * group_step + i * slot_step,
// modulo `period` unless that is 0. What is not in [0, length) is outside the image.
struct GroupAxis {
  Index length = 0;             // of the image
  Index groups = 1, slots = 1;  // a group has so many slots
  Index group_step = 0, slot_step = 1;
  Index offset = 0, period = 0;
  Index shift = 0;  // of the windows: where the last group wraps around

  // -1: outside the image.
  Index at(Index group, Index slot) const {
    Index x = offset + group * group_step + slot * slot_step;
    if (period != 0 && x >= period) x -= period;
    return x >= 0 && x < length ? x : -1;
  }
  // Whether a slot of the last group comes from the other side of the image.
  bool wrapped(Index group, Index slot) const {
    return shift != 0 && group == groups - 1 && slot >= slots - shift;
  }
  friend bool operator==(const GroupAxis&, const GroupAxis&) = default;
};

// How attention groups the tokens of an image [rows, columns], or of several views of one: which token is in
// slot n of group g. Nothing is moved: kernels gather by address. Groups are numbered by row, then column;
// slots by row, column, then view. Of a batch [N, H, W, C], `views` images that follow one another are one
// item.
class GroupMap {
 public:
  using Size = std::array<Index, 2>;  // rows, columns

  // A place of the image; rows outside have row and column -1.
  struct Slot {
    Index view, row, column;
    bool inside() const { return row >= 0; }
  };

  GroupMap() = default;

  // Windows side by side (Swin: Liu et al., 2021). `shift` moves them down and right, cyclically. An image
  // that is no multiple of the window is taken as if it ended there (or at the next multiple of `pad_to`, a
  // multiple of the window): what is missing is outside. Refused: shifts not in [0, window).
  static GroupMap window(Size image, Size window, Size shift = {0, 0}, Size pad_to = {0, 0});
  // Keys and values of HAT's overlapping cross-attention (Chen et al., 2023): for each window [w, w] the
  // larger window [over, over] with the same centre. Refused: over - w odd or negative.
  static GroupMap overlapping(Size image, Index window, Index over);
  // Every stride-th row and column (MaxViT, Tu et al., 2022); with views, the long-range groups of LRGT (Yang
  // et al., 2024). Refused: a stride that does not divide both extents.
  static GroupMap grid(Size image, Index stride, Index views = 1);
  // One group of all.
  static GroupMap global(Size image, Index views = 1);

  Size image() const { return {rows_.length, columns_.length}; }
  Index views() const { return views_; }
  Index groups() const { return rows_.groups * columns_.groups; }        // of an item
  Index slots() const { return rows_.slots * columns_.slots * views_; }  // of a group
  const GroupAxis& rows() const { return rows_; }
  const GroupAxis& columns() const { return columns_; }
  explicit operator bool() const { return rows_.length != 0 || columns_.length != 0; }

  Slot at(Index group, Index slot) const {
    const Index v = slot % views_, place = slot / views_;
    const Index row = rows_.at(group / columns_.groups, place / columns_.slots);
    const Index column = columns_.at(group % columns_.groups, place % columns_.slots);
    return row < 0 || column < 0 ? Slot{v, -1, -1} : Slot{v, row, column};
  }
  // Its number among the item's tokens [views, rows, columns]; -1: outside.
  Index token(Index group, Index slot) const {
    const Slot s = at(group, slot);
    return s.inside() ? (s.view * rows_.length + s.row) * columns_.length + s.column : -1;
  }

  bool shifted() const { return rows_.shift != 0 || columns_.shift != 0; }
  // Shifted windows at the lower and right border hold tokens of both sides of the image: two slots of such a
  // group are neighbours only if their regions are the same. 0 to 3.
  Index region(Index group, Index slot) const {
    const Index place = slot / views_;
    return 2 * Index{rows_.wrapped(group / columns_.groups, place / columns_.slots)} +
           Index{columns_.wrapped(group % columns_.groups, place % columns_.slots)};
  }
  // Whether a group has more than one region.
  bool mixed(Index group) const {
    return (rows_.shift != 0 && group / columns_.groups == rows_.groups - 1) ||
           (columns_.shift != 0 && group % columns_.groups == columns_.groups - 1);
  }
  friend bool operator==(const GroupMap&, const GroupMap&) = default;

 private:
  GroupMap(const GroupAxis& rows, const GroupAxis& columns, Index views)
      : rows_(rows), columns_(columns), views_(views) {}

  GroupAxis rows_, columns_;
  Index views_ = 1;
};

}  // namespace v0
}  // namespace ashlar
