// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ashlar/nn/attention_patterns.hpp"
#include "ashlar/nn/mixers/efficient_attention.hpp"

namespace ashlar {
inline namespace v0 {

struct BigBirdAttentionConfig {
  Index block = 64, random = 3;  // tokens of a block, random blocks of a row of blocks
  std::uint64_t seed = 0;        // of the random blocks
  Index random_among = 0;        // positions from whose blocks they are drawn; 0: all; 1024 as released
  // Sequences have the blocks of one of so many tokens, as if they were padded to it; 0: their own. The last
  // block is global: where a batch was padded, the padded length matters.
  Index length = 0;
};

// BigBird's softmax attention to global, neighbouring and random blocks (Zaheer et al., 2020), O(T (r + 5)
// block). Random blocks are drawn from the seed, or given as a table (see bigbird_pattern). Refused:
// sequences beyond the length that was given, or beyond the table.
template <class Exec>
class BigBirdAttention final : public EfficientAttention<Exec> {
 public:
  explicit BigBirdAttention(const BigBirdAttentionConfig& c) : c_(c) { check(); }
  // `table` [H or 1, blocks - 2, r] for sequences of up to `blocks` blocks, whose last is the global one.
  BigBirdAttention(const BigBirdAttentionConfig& c, Tensor<Index, 3> table)
      : c_(c), table_(std::move(table)) {
    check();
    if (!table_)
      refuse("BigBirdAttention", "the table of random blocks is empty, expected [H, blocks - 2, r]");
    const Index blocks = table_.shape()[1] + 2;
    if (c.length > blocks * c.block || (c.length > 0 && c.length <= (blocks - 1) * c.block))
      refuse("BigBirdAttention", "the table has rows for ", blocks, " blocks of ", c.block,
             ", expected as many as a length of ", c.length, " has");
    bigbird_pattern(c.block, blocks, table_.view(), blocks * c.block);
  }

  void operator()(const HeadBatch& heads, Exec& exec) const override {
    heads.check("BigBirdAttention");
    const Index sequences = heads.offsets.count(), count = heads.v.shape[1];
    Tensor<Index, 3> drawn;
    for (Index n = 0; n < sequences; ++n) {
      const HeadBatch one = heads.sequence(n);
      const Index tokens = one.v.shape[0],
                  blocks = table_ ? table_.shape()[1] + 2
                                  : ((c_.length > 0 ? c_.length : tokens) + c_.block - 1) / c_.block;
      if (!table_ && (!drawn || drawn.shape()[1] != std::max<Index>(0, blocks - 2)))
        drawn = random_blocks(count, blocks, c_.random, c_.seed, c_.random_among / c_.block);
      const auto& table = table_ ? table_ : drawn;
      attend(one, bigbird_pattern(c_.block, blocks, table.view(), tokens).pattern(), exec);
    }
  }

 private:
  void check() const {
    if (c_.block < 1 || c_.random < 0 || c_.length < 0 || c_.random_among < 0)
      refuse("BigBirdAttention", "block is ", c_.block, ", random ", c_.random, ", length ", c_.length,
             " and random_among ", c_.random_among, ", expected a block of 1 or more, the others 0 or more");
  }

  BigBirdAttentionConfig c_;
  Tensor<Index, 3> table_;
};

}  // namespace v0
}  // namespace ashlar
