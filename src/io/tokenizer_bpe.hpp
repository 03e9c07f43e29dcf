// SPDX-License-Identifier: Apache-2.0
// The BPE model of a tokenizer file.
#pragma once
#include <array>
#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/tokenizer_file.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {

// Token -> id. A hash table over packed strings.
class Vocabulary {
 public:
  struct Entry {
    std::uint32_t offset, size;
    std::int32_t id;
    bool whole;  // a piece of this text is this one token (see Bpe)
  };
  Vocabulary() = default;
  Vocabulary(std::string bytes,
             const std::vector<TokenizerFile::Token>& tokens);  // refuses a token that is twice

  const Entry* find(std::string_view token) const;
  std::int32_t id_of(std::string_view token) const {
    const Entry* e = find(token);
    return e ? e->id : -1;
  }
  std::string_view text(const Entry& e) const { return {bytes_.data() + e.offset, e.size}; }
  const std::vector<Entry>& entries() const { return entries_; }
  std::vector<Entry>& entries() { return entries_; }

 private:
  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> slots_;  // 1 + the entry's index; 0 is free
};

struct BpeOptions {
  std::string unk_token, continuing_subword_prefix, end_of_word_suffix;
  bool fuse_unk = false, byte_fallback = false, ignore_merges = false;
};

// Encodes one piece: its characters (bytes or unk where the vocabulary has no such character) become symbols,
// and the neighbouring pair of the lowest merge rank, the leftmost of equals, is joined until none is left.
//
// Two things make it fast and change nothing. (1) Where no merge joins a token that ends in x with one that
// begins with y, nothing ever crosses x|y: such chunks are encoded one by one. This makes words of the
// undivided text that SentencePiece files ask for. (2) Tokens that are their own encoding are found once, at
// construction, so that a chunk that is one of them is a look-up.
class Bpe {
 public:
  struct Symbol {
    std::int32_t id, previous, next;
    std::uint32_t rank;  // of the pair (this, next)
  };
  // What one thread needs to encode.
  struct Scratch {
    std::vector<std::int32_t> symbols;
    std::vector<std::uint32_t> ranks;
    std::vector<Symbol> list;
    std::vector<std::uint64_t> heap;
    std::string affixed;
  };

  Bpe() = default;
  Bpe(TokenizerFile file, BpeOptions options);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  void encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& ids) const;

 private:
  static constexpr std::uint32_t kNone = 0xffffffffu;
  static constexpr char32_t kNear = 512;  // characters below it (all of a byte-level alphabet) have tables
  struct Pair {
    std::uint64_t key = ~std::uint64_t{0};  // left id << 32 | right id
    std::uint32_t rank = kNone;
  };

  void add_merges(const TokenizerFile& file);
  void add_junction(char32_t left, char32_t right);
  bool junction(char32_t left, char32_t right) const;
  std::uint32_t rank_of(std::int32_t left, std::int32_t right) const;
  std::int32_t char_id(std::string_view text, char32_t c, bool first, bool last, Scratch& scratch) const;
  void encode_chunks(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& ids,
                     bool look_up) const;
  void emit(std::string_view chunk, Scratch& scratch, std::vector<std::int32_t>& ids, bool look_up) const;
  void merge_few(Scratch& scratch) const;
  void merge_many(Scratch& scratch) const;

  BpeOptions options_;
  bool affixes_ = false;
  std::int32_t unk_ = -1;
  Vocabulary vocabulary_;
  std::vector<Pair> pairs_;           // open addressing
  std::vector<std::int32_t> merged_;  // rank -> id
  std::array<std::int32_t, kNear> near_ids_{};
  std::array<std::int32_t, 256> byte_ids_{};
  std::vector<bool> near_junctions_;          // [kNear * kNear]
  std::vector<std::uint64_t> far_junctions_;  // open addressing
  std::size_t longest_ = 0;                   // of the tokens
};

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
