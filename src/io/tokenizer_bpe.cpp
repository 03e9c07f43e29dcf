// SPDX-License-Identifier: Apache-2.0
#include "src/io/tokenizer_bpe.hpp"

#include <algorithm>
#include <bit>
#include <functional>

#include "src/io/tokenizer_text.hpp"

namespace ashlar {
inline namespace v0 {
namespace tok {
namespace {

constexpr std::size_t kFew = 32;           // up to so many symbols a scan beats a heap
constexpr std::size_t kLookUpBytes = 128;  // longer tokens are not worth finding by their own text
constexpr std::uint64_t kFree = ~std::uint64_t{0};

std::uint64_t key_of(std::uint32_t a, std::uint32_t b) { return std::uint64_t{a} << 32 | b; }
std::size_t mixed(std::uint64_t x) {
  x = (x ^ x >> 32) * 0x9e3779b97f4a7c15u;
  return static_cast<std::size_t>(x ^ x >> 29);
}
// At most half of the slots are used.
std::size_t slots_for(std::size_t n) { return std::bit_ceil(2 * n + 2); }

}  // namespace

Vocabulary::Vocabulary(std::string bytes, const std::vector<TokenizerFile::Token>& tokens)
    : bytes_(std::move(bytes)) {
  entries_.reserve(tokens.size());
  slots_.assign(slots_for(tokens.size()), 0);
  for (const auto& t : tokens) {
    const Entry e{t.text.offset, t.text.size, t.id, false};
    std::size_t i = std::hash<std::string_view>()(text(e)) & (slots_.size() - 1);
    for (; slots_[i]; i = (i + 1) & (slots_.size() - 1))
      if (text(entries_[slots_[i] - 1]) == text(e))
        invalid("the token \"", brief(text(e)), "\" is in model.vocab twice");
    entries_.push_back(e);
    slots_[i] = static_cast<std::uint32_t>(entries_.size());
  }
}

const Vocabulary::Entry* Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return nullptr;
  std::size_t i = std::hash<std::string_view>()(token) & (slots_.size() - 1);
  for (; slots_[i]; i = (i + 1) & (slots_.size() - 1))
    if (const Entry& e = entries_[slots_[i] - 1]; text(e) == token) return &e;
  return nullptr;
}

Bpe::Bpe(TokenizerFile file, BpeOptions options) : options_(std::move(options)) {
  affixes_ = !options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty();
  vocabulary_ = Vocabulary(std::move(file.vocab_bytes), file.vocab);
  add_merges(file);
  if (!options_.unk_token.empty()) unk_ = vocabulary_.id_of(options_.unk_token);
  std::string one;
  for (char32_t c = 0; c < kNear; ++c) {
    one.clear();
    append_utf8(one, c);
    near_ids_[c] = vocabulary_.id_of(one);
  }
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (int b = 0; b < 256; ++b) {
    const char name[] = {'<', '0', 'x', kDigits[b >> 4], kDigits[b & 15], '>'};
    byte_ids_[static_cast<std::size_t>(b)] = vocabulary_.id_of({name, sizeof name});
  }
  if (affixes_) return;
  Scratch scratch;
  std::vector<std::int32_t> ids;
  for (Vocabulary::Entry& e : vocabulary_.entries()) {
    longest_ = std::max<std::size_t>(longest_, e.size);
    if (e.size == 0 || e.size > kLookUpBytes) continue;
    ids.clear();
    try {
      encode_chunks(vocabulary_.text(e), scratch, ids, false);
    } catch (const Error&) {  // an unknown character, and an unk_token that is not in the vocabulary
      continue;
    }
    e.whole = ids.size() == 1 && ids[0] == e.id;
  }
}

void Bpe::add_merges(const TokenizerFile& file) {
  if (file.merges.size() >= kNone) invalid("too many merges");
  pairs_.resize(slots_for(file.merges.size()));
  merged_.reserve(file.merges.size());
  near_junctions_.assign(kNear * kNear, false);
  far_junctions_.assign(slots_for(file.merges.size()), kFree);
  std::string joined;
  for (std::size_t rank = 0; rank < file.merges.size(); ++rank) {
    const std::string_view left = file.merges[rank].left.in(file.merge_bytes);
    const std::string_view right = file.merges[rank].right.in(file.merge_bytes);
    const auto id_of = [&](std::string_view token) {
      const std::int32_t id = vocabulary_.id_of(token);
      if (id < 0)
        invalid("merge ", rank, " (\"", brief(left), "\", \"", brief(right), "\") needs the token \"",
                brief(token), "\", which is not in model.vocab");
      return static_cast<std::uint32_t>(id);
    };
    const std::string& prefix = options_.continuing_subword_prefix;
    joined.assign(left).append(right.substr(right.starts_with(prefix) ? prefix.size() : 0));
    const std::uint64_t key = key_of(id_of(left), id_of(right));
    merged_.push_back(static_cast<std::int32_t>(id_of(joined)));
    std::size_t i = mixed(key) & (pairs_.size() - 1);
    while (pairs_[i].key != kFree && pairs_[i].key != key) i = (i + 1) & (pairs_.size() - 1);
    pairs_[i] = {key, static_cast<std::uint32_t>(rank)};  // of a merge that is there twice, the later one
    if (left.empty() || right.empty()) invalid("merge ", rank, " has an empty token");
    std::size_t end = left.size(), begin = 0;
    const char32_t last = previous_char(left, end);
    add_junction(last, next_char(right, begin));
  }
}

void Bpe::add_junction(char32_t left, char32_t right) {
  if (left < kNear && right < kNear) {
    near_junctions_[left * kNear + right] = true;
    return;
  }
  const std::uint64_t key = key_of(left, right);
  std::size_t i = mixed(key) & (far_junctions_.size() - 1);
  while (far_junctions_[i] != kFree && far_junctions_[i] != key) i = (i + 1) & (far_junctions_.size() - 1);
  far_junctions_[i] = key;
}

bool Bpe::junction(char32_t left, char32_t right) const {
  if (left < kNear && right < kNear) return near_junctions_[left * kNear + right];
  const std::uint64_t key = key_of(left, right);
  std::size_t i = mixed(key) & (far_junctions_.size() - 1);
  while (far_junctions_[i] != kFree && far_junctions_[i] != key) i = (i + 1) & (far_junctions_.size() - 1);
  return far_junctions_[i] == key;
}

std::uint32_t Bpe::rank_of(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = key_of(static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right));
  std::size_t i = mixed(key) & (pairs_.size() - 1);
  while (pairs_[i].key != kFree && pairs_[i].key != key) i = (i + 1) & (pairs_.size() - 1);
  return pairs_[i].key == key ? pairs_[i].rank : kNone;
}

// The token of one character of a piece, or -1.
std::int32_t Bpe::char_id(std::string_view text, char32_t c, bool first, bool last, Scratch& s) const {
  if (!affixes_) return c < kNear ? near_ids_[c] : vocabulary_.id_of(text);
  s.affixed.assign(first ? "" : options_.continuing_subword_prefix).append(text);
  if (last) s.affixed += options_.end_of_word_suffix;
  return vocabulary_.id_of(s.affixed);
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (piece.empty()) return;
  if (piece.size() <= longest_ || options_.ignore_merges) {
    const Vocabulary::Entry* e = vocabulary_.find(piece);
    if (e && (e->whole || options_.ignore_merges)) return ids.push_back(e->id);
  }
  encode_chunks(piece, scratch, ids, !affixes_);
}

void Bpe::encode_chunks(std::string_view piece, Scratch& s, std::vector<std::int32_t>& ids,
                        bool look_up) const {
  s.symbols.clear();
  std::size_t chunk = 0;     // where the chunk begins
  bool plain = true;         // its symbols are all of its characters
  bool left_known = false;   // the last symbol is the character `left`
  bool unk_pending = false;  // an unk that may yet grow
  char32_t left = 0;
  for (std::size_t i = 0; i < piece.size();) {
    const std::size_t at = i;
    const char32_t c = next_char(piece, i);
    const std::int32_t id = char_id(piece.substr(at, i - at), c, at == 0, i == piece.size(), s);
    if (id >= 0) {
      if (left_known && !affixes_ && !junction(left, c)) {
        emit(piece.substr(chunk, at - chunk), s, ids, look_up && plain);
        chunk = at, plain = true;
      }
      s.symbols.push_back(id);
      left = c, left_known = true, unk_pending = false;
      continue;
    }
    plain = left_known = false;
    const std::string_view bytes = affixes_ ? std::string_view(s.affixed) : piece.substr(at, i - at);
    const auto byte_id = [&](char b) { return byte_ids_[static_cast<unsigned char>(b)]; };
    if (options_.byte_fallback &&
        std::all_of(bytes.begin(), bytes.end(), [&](char b) { return byte_id(b) >= 0; })) {
      for (char b : bytes) s.symbols.push_back(byte_id(b));
      unk_pending = false;
    } else if (!options_.unk_token.empty()) {
      if (unk_ < 0)
        invalid("unk_token \"", brief(options_.unk_token), "\" is not in model.vocab, and a text needs it");
      if (!unk_pending || !options_.fuse_unk) s.symbols.push_back(unk_);
      unk_pending = true;
    }
  }
  emit(piece.substr(chunk), s, ids, look_up && plain && chunk > 0);
}

// Merges scratch.symbols, appends them to ids and clears them.
void Bpe::emit(std::string_view chunk, Scratch& s, std::vector<std::int32_t>& ids, bool look_up) const {
  if (s.symbols.size() > 1) {
    if (look_up && chunk.size() <= longest_) {
      const Vocabulary::Entry* e = vocabulary_.find(chunk);
      if (e && e->whole) {
        s.symbols.clear();
        return ids.push_back(e->id);
      }
    }
    s.symbols.size() <= kFew ? merge_few(s) : merge_many(s);
  }
  ids.insert(ids.end(), s.symbols.begin(), s.symbols.end());
  s.symbols.clear();
}

void Bpe::merge_few(Scratch& s) const {
  auto& x = s.symbols;
  auto& ranks = s.ranks;  // of (x[i], x[i + 1])
  ranks.resize(x.size());
  ranks.back() = kNone;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) ranks[i] = rank_of(x[i], x[i + 1]);
  for (;;) {
    const auto lowest = std::min_element(ranks.begin(), ranks.end());
    if (*lowest == kNone) return;
    const auto i = static_cast<std::size_t>(lowest - ranks.begin());
    x[i] = merged_[*lowest];
    x.erase(x.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    ranks.erase(lowest + 1);
    ranks[i] = i + 1 < x.size() ? rank_of(x[i], x[i + 1]) : kNone;
    if (i > 0) ranks[i - 1] = rank_of(x[i - 1], x[i]);
  }
}

// A heap of (rank, position). An entry is stale when the pair at its position has another rank by now: ranks
// and pairs are one to one, and a symbol that was merged away has none.
void Bpe::merge_many(Scratch& s) const {
  auto& list = s.list;
  auto& heap = s.heap;
  const auto n = static_cast<std::int32_t>(s.symbols.size());
  list.resize(s.symbols.size());
  heap.clear();
  for (std::int32_t i = 0; i < n; ++i) {
    const std::uint32_t rank = i + 1 < n ? rank_of(s.symbols[i], s.symbols[i + 1]) : kNone;
    list[i] = {s.symbols[i], i - 1, i + 1 < n ? i + 1 : -1, rank};
    if (rank != kNone) heap.push_back(key_of(rank, static_cast<std::uint32_t>(i)));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto renew = [&](std::int32_t i) {
    const std::uint32_t rank = list[i].next < 0 ? kNone : rank_of(list[i].id, list[list[i].next].id);
    list[i].rank = rank;
    if (rank == kNone) return;
    heap.push_back(key_of(rank, static_cast<std::uint32_t>(i)));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    const std::uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const auto rank = static_cast<std::uint32_t>(top >> 32);
    const auto i = static_cast<std::int32_t>(top & 0xffffffffu);
    Symbol& symbol = list[i];
    if (symbol.rank != rank) continue;
    Symbol& gone = list[symbol.next];
    symbol.id = merged_[rank];
    symbol.next = gone.next;
    gone.rank = kNone;
    if (gone.next >= 0) list[gone.next].previous = i;
    renew(i);
    if (symbol.previous >= 0) renew(symbol.previous);
  }
  s.symbols.clear();
  for (std::int32_t i = 0; i >= 0; i = list[i].next) s.symbols.push_back(list[i].id);
}

}  // namespace tok
}  // namespace v0
}  // namespace ashlar
