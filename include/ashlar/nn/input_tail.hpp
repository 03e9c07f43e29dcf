// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include "ashlar/nn/backend.hpp"

namespace ashlar {
inline namespace v0 {

// The last inputs of one sequence, [R, C], oldest first, zeros before its beginning: what a short convolution
// of R + 1 taps or a token shift (R = 1) reads of earlier calls; a value. With keep_updates(n) the n rows
// before them stay, too, so that tokens can be taken back. Several ops share one, each with columns of its
// own.
template <class Exec>
class InputTail {
 public:
  InputTail() = default;
  InputTail(Index rows, Index channels) : rows_(rows), all_({rows, channels}) {}

  Index rows() const { return rows_; }
  Index channels() const { return all_.shape()[1]; }
  Index size() const { return rows_ * channels(); }
  explicit operator bool() const { return size() != 0; }
  Index bytes() const { return all_.size() * static_cast<Index>(sizeof(float)); }

  // [R, C], what the ops read, and update behind push().
  View<float, 2> view() { return all_.view().slice(0, keep_, keep_ + rows_); }
  View<const float, 2> view() const { return all_.view().slice(0, keep_, keep_ + rows_); }

  // From here on up to `tokens` tokens can be taken back; 0: no longer.
  void keep_updates(Index tokens) {
    if (!*this) return;
    Array all({tokens + rows_, channels()});
    Backend<Exec>::move(view(), all.view().slice(0, tokens, tokens + rows_));
    all_ = std::move(all), keep_ = tokens, kept_ = 0;
  }
  Index kept_tokens() const { return kept_; }

  // Before an op reads and updates columns [first, first + x's): x [T, .] are the inputs that come. The op of
  // the last columns counts the tokens.
  void push(View<const float, 2> x, Index first) {
    const auto [tokens, width] = x.shape;
    if (keep_ == 0 || tokens == 0) return;
    const View<float, 2> mine = all_.view().slice(1, first, first + width);
    const Index all = keep_ + rows_, moved = std::clamp<Index>(all - tokens, 0, keep_);
    Backend<Exec>::move(mine.slice(0, tokens, tokens + moved), mine.slice(0, 0, moved));
    if (moved < keep_)
      Backend<Exec>::move(x.slice(0, tokens - all + moved, tokens - rows_), mine.slice(0, moved, keep_));
    if (first + width == channels()) kept_ = std::min(keep_, kept_ + tokens);
  }
  // At most kept_tokens().
  void rollback(Index tokens) {
    const View<float, 2> all = all_.view();
    Backend<Exec>::move(all.slice(0, 0, all.shape[0] - tokens), all.slice(0, tokens, all.shape[0]));
    kept_ -= tokens;
  }
  // view() was written as a whole: nothing before can be taken back.
  void begin_history() { kept_ = 0; }

 private:
  using Array = typename Backend<Exec>::template Array<float, 2>;

  Index rows_ = 0, keep_ = 0, kept_ = 0;
  Array all_;  // [keep + R, C]
};

}  // namespace v0
}  // namespace ashlar
