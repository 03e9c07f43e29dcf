// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "ashlar/core/cpu_exec.hpp"
#include "ashlar/core/dtype.hpp"
#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {

// The state S [H, Dk, Dv] of a linear recurrence over one sequence: a value, f32, or bf16 to halve its memory
// (sums are f32 all the same). f16 is refused: sums of thousands of updates do not fit it. Kept inside as
// panels of 64 value columns, [H][ceil(Dv / 64)][Dk][64], zeros behind Dv.
class RecurrentState {
 public:
  static constexpr Index kPanel = 64;

  RecurrentState() = default;
  RecurrentState(Index heads, Index key_dim, Index value_dim, DType dtype = DType::f32);

  Index heads() const { return heads_; }
  Index key_dim() const { return key_dim_; }
  Index value_dim() const { return value_dim_; }
  DType dtype() const { return dtype_; }
  Index position() const { return position_; }  // tokens seen
  Index panels() const { return (value_dim_ + kPanel - 1) / kPanel; }
  Index bytes() const {
    return data_.size() + history_.checkpoint.size() + history_.updates.size() * Index{sizeof(float)};
  }

  // [H, Dk, Dv] as f32. An import begins a history: nothing before it can be taken back.
  void import_from(View<const float, 3> s, Index position = 0);
  void export_to(View<float, 3> s) const;

  // From here on up to `tokens` of the last tokens can be taken back: speculative decoding. Costs a second
  // state and 3 `tokens` rank-1 updates of memory, a pass over the state every `tokens` tokens, and that the
  // last `tokens` of a prefill run one by one. `substeps`: of the recurrence. 0 tokens: no longer.
  void keep_updates(Index tokens, Index substeps = 1);
  Index kept_tokens() const;  // how many can be taken back now
  // Takes the last `tokens` back, exactly: the bits of before they came. Refused: more than kept_tokens().
  void rollback(Index tokens);

  // Little-endian bytes: shape, type, position, S; not the kept updates. restore() makes this state the saved
  // one, and throws Error("InvalidState"), the state unchanged, for bytes that save() did not write.
  std::vector<std::byte> save() const;
  void restore(std::span<const std::byte> saved);

  // What the kernels work on: a panel [Dk][64] of a head, in the state's type, and everything as bytes.
  void* panel(Index head, Index p) { return data_.data() + (head * panels() + p) * panel_bytes(); }
  const void* panel(Index head, Index p) const {
    return data_.data() + (head * panels() + p) * panel_bytes();
  }
  std::span<std::byte> raw() { return {data_.data(), static_cast<std::size_t>(data_.size())}; }
  std::span<const std::byte> raw() const { return {data_.data(), static_cast<std::size_t>(data_.size())}; }
  Index panel_bytes() const { return key_dim_ * kPanel * bits(dtype_) / 8; }

  // The last updates, for taking tokens back: `count` of the slots from `first` on are in use, oldest first,
  // and `checkpoint` is S before them. One kind of updates, made on one instruction set. Updates of a state
  // [1, 1, D] that are not of rank 1 (hgrn's): each slot has S before its token instead, and there is no
  // checkpoint.
  struct History {
    Index keep = 0, substeps = 1, first = 0, count = 0;
    bool low_rank = false, whole = false;  // whole: slots of S
    Isa isa = Isa::scalar;
    Tensor<std::byte, 1> checkpoint;
    Tensor<float, 1> updates;
    Index slots() const { return 3 * keep * substeps; }
  };
  const History& history() const { return history_; }
  History& history() { return history_; }
  // A head's update in a slot: decay [Dk], k [Dk], b [Dk], u [panels 64], w [panels 64] of S = decay S + k
  // u^T + b w^T.
  Index update_size() const { return 3 * key_dim_ + 2 * panels() * kPanel; }
  float* update(Index slot, Index head) {
    return history_.updates.data() + (slot * heads_ + head) * update_size();
  }
  // Records S [D] before a token, as `whole` slots have it.
  void record(const float* s);
  void* checkpoint_panel(Index head, Index p) {
    return history_.checkpoint.data() + (head * panels() + p) * panel_bytes();
  }
  void advance(Index tokens) { position_ += tokens; }
  // S was written as the state after `position` tokens: nothing before can be taken back.
  void begin_history(Index position);

 private:
  bool padding_is_zero() const;

  Index heads_ = 0, key_dim_ = 0, value_dim_ = 0, position_ = 0;
  DType dtype_ = DType::f32;
  Tensor<std::byte, 1> data_;
  History history_;
};

}  // namespace v0
}  // namespace ashlar
