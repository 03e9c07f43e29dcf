// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "ashlar/core/tensor.hpp"

namespace ashlar {
inline namespace v0 {
namespace detail {

// Host memory of a scratch stack.
struct HostBlock : Tensor<std::byte, 1> {
  static constexpr std::size_t kAlign = 64;
  explicit HostBlock(std::size_t bytes) : Tensor({static_cast<Index>(bytes)}) {}
};

// A stack of blocks of memory, for scratch of an execution context: after the first pass through a program it
// is one block, and nothing is allocated. Memory(bytes) owns so many bytes at least, aligned to
// Memory::kAlign.
template <class Memory>
class ScratchStack {
 public:
  // Where the stack stands, given back by leave().
  struct Mark {
    std::size_t block = 0, used = 0;
  };

  Mark enter() {
    if (blocks_.empty()) blocks_.emplace_back(kMinBlock);
    ++depth_;
    return {current_, blocks_[current_].used};
  }

  void leave(const Mark& mark) {
    for (std::size_t i = mark.block + 1; i < blocks_.size(); ++i) blocks_[i].used = 0;
    current_ = mark.block;
    blocks_[current_].used = mark.used;
    if (--depth_ != 0 || blocks_.size() == 1) return;
    // One block of the whole size, so that the next pass stays in it.
    std::size_t total = 0;
    for (const Block& b : blocks_) total += b.size();
    blocks_.clear();
    try {
      blocks_.emplace_back(total);
    } catch (const Error&) {  // the next enter() tries again
    }
    current_ = 0;
  }

  void* bytes(Index n) {
    const std::size_t need = (static_cast<std::size_t>(n) + kAlign - 1) / kAlign * kAlign;
    while (blocks_[current_].used + need > blocks_[current_].size()) {
      if (current_ + 1 == blocks_.size()) blocks_.emplace_back(std::max(need, 2 * blocks_.back().size()));
      ++current_;
    }
    Block& block = blocks_[current_];
    std::byte* p = block.memory.data() + block.used;
    block.used += need;
    return p;
  }

 private:
  static constexpr std::size_t kAlign = Memory::kAlign, kMinBlock = std::size_t{1} << 20;
  struct Block {
    explicit Block(std::size_t bytes) : memory(bytes) {}
    std::size_t size() const { return static_cast<std::size_t>(memory.size()); }
    Memory memory;
    std::size_t used = 0;
  };
  std::vector<Block> blocks_;
  std::size_t current_ = 0;
  int depth_ = 0;
};

}  // namespace detail
}  // namespace v0
}  // namespace ashlar
