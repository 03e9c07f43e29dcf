// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include "ashlar/nn/kv_pages.hpp"
#include "ashlar/ops/softmax_attention.hpp"

namespace ashlar {
inline namespace v0 {

struct KvCacheOptions {
  Index value_dim = -1;     // of a value row, where it is not the key row's
  Index window = 0;         // how many of the last positions a query sees, its own among them; 0: all
  DType type = DType::f32;  // or bf16
};

// Keys and values of one sequence in one attention layer; a value. Where position j is:
//   contiguous  row j of `capacity` rows
//   ring        row j mod rows, with a window shorter than the capacity: the last window() positions stay
//   paged       row pages[j / page] page + j mod page of a pool that sequences share (KvPagePool); pages of
//               before the window go back to it, and a copy shares them until one of the two writes there
template <class Exec>
class KvCache {
 public:
  static constexpr Index kBlock = 64;  // what windows are rounded up to

  KvCache() = default;
  KvCache(Index kv_heads, Index head_dim, Index capacity, const KvCacheOptions& o = {})
      : capacity_(capacity), window_(rounded(o.window)) {
    check_kv_type("KvCache", o.type);
    holds_ = bounded() ? window_ : capacity;
    rows_ = KvRows<Exec>({kv_heads, head_dim, o.value_dim < 0 ? head_dim : o.value_dim}, holds_, o.type);
  }
  KvCache(std::shared_ptr<KvPagePool<Exec>> pool, Index capacity, Index window = 0)
      : table_(std::move(pool), capacity), capacity_(capacity), window_(rounded(window)) {
    holds_ = bounded() ? window_ : capacity;
  }
  // An empty one for other numbers of tokens or of another type, or of pages.
  KvCache like(Index capacity, DType type) const {
    return KvCache(kv_heads(), head_dim(), capacity, {value_dim(), window_, type});
  }
  KvCache like(Index capacity, std::shared_ptr<KvPagePool<Exec>> pool) const {
    return KvCache(std::move(pool), capacity, window_);
  }

  Index length() const { return length_; }
  Index capacity() const { return capacity_; }
  Index window() const { return window_; }  // rounded up to whole blocks; 0: everything is remembered
  const KvShape& shape() const { return rows().shape(); }
  Index kv_heads() const { return shape().heads; }
  Index head_dim() const { return shape().key_dim; }
  Index value_dim() const { return shape().value_dim; }
  DType type() const { return rows().type(); }
  explicit operator bool() const { return kv_heads() != 0; }
  bool paged() const { return static_cast<bool>(table_); }
  // Whether positions of before the window are forgotten.
  bool bounded() const { return window_ != 0 && capacity_ > window_; }
  // Of memory; of pages those that it holds, shared or not.
  Index bytes() const {
    return paged() ? table_.held() * table_.pool()->page() * rows().bytes_a_row() : rows_.bytes();
  }

  // Whether position j is row j.
  bool contiguous() const { return !paged() && (!bounded() || (first_ == 0 && length_ <= window_)); }
  // [length, Hkv, D], [length, Hkv, Dv] when contiguous; T is type()'s.
  template <class T = float>
  View<const T, 3> keys() const {
    return rows().template keys<T>().slice(0, 0, length_);
  }
  template <class T = float>
  View<const T, 3> values() const {
    return rows().template values<T>().slice(0, 0, length_);
  }
  // All that is remembered, as attention takes it. Valid until the cache changes.
  template <class T>
  KeyValueArgs<T> key_values() const {
    if (contiguous()) return {keys<T>(), values<T>()};
    KeyValueArgs<T> all{rows().template keys<T>(), rows().template values<T>()};
    all.start = begin(), all.length = length_, all.ring = !paged();
    if (paged()) {
      const Index page = table_.pool()->page(), skipped = all.start / page;
      all.start = skipped * page, all.page = page;
      all.pages = table_.pages().subspan(static_cast<std::size_t>(skipped));
    }
    return all;
  }
  // to [end - begin, Hkv, D] = keys of [begin, end), or values; all of them held.
  template <class T, class To>
  void copy_keys(Index begin, Index end, View<To, 3> to, Exec& exec) const {
    copy(rows().template keys<T>(), begin, end, to, exec);
  }
  template <class T, class To>
  void copy_values(Index begin, Index end, View<To, 3> to, Exec& exec) const {
    copy(rows().template values<T>(), begin, end, to, exec);
  }

  // Makes room for `tokens` more, so that append() cannot fail. Refused, before anything changes: more than
  // the capacity, or than the pool has.
  void reserve(Index tokens) {
    const Index end = length_ + tokens;
    if (end > capacity_) refuse("KvCache", "position ", end, " is behind the capacity, ", capacity_);
    if (!paged() || tokens == 0) return;
    const Index page = table_.pool()->page();
    table_.cover(std::max(first_, end - holds_) / page, (end + page - 1) / page,
                 length_ % page != 0 ? length_ / page : -1);
  }
  // Gives back what reserve() made and append() did not use.
  void release_reserved() {
    if (paged()) table_.truncate((length_ + table_.pool()->page() - 1) / table_.pool()->page());
  }
  // Writes k [T, Hkv, D] and v [T, Hkv, Dv] behind the last position. Refused as by reserve().
  void append(View<const float, 3> k, View<const float, 3> v, Exec& exec) {
    const Index tokens = k.shape[0], end = length_ + tokens;
    reserve(tokens);
    each_run(std::max(length_, end - holds_), end, [&](Index j, Index row, Index n) {
      const Index t = j - length_;
      rows().write(row, k.slice(0, t, t + n), value_dim() == 0 ? v : v.slice(0, t, t + n), exec);
    });
    length_ = end;
    forget(length_ - holds_);
  }

  // From here on up to `tokens` of the last tokens can be taken back; needed only where positions are
  // forgotten, the others can always.
  void keep_updates(Index tokens) {
    if (!bounded()) return;
    const Index before = holds_;
    holds_ = window_ + std::min(tokens, capacity_ - window_);
    forget(length_ - window_);
    if (paged()) return;
    holds_ = (holds_ + kBlock - 1) / kBlock * kBlock;
    if (holds_ == before) return;
    KvRows<Exec> ring(shape(), holds_, type());
    for (Index j = first_; j < length_;) {
      const Index from = j % before, to = j % holds_, n = std::min({length_ - j, before - from, holds_ - to});
      ring.take(rows_, from, to, n);
      j += n;
    }
    rows_ = std::move(ring);
  }
  // How many can be taken back now: the last window() positions of before are still there.
  Index kept_tokens() const { return first_ == 0 ? length_ : length_ - first_ - window_; }
  // Forgets the last tokens. Refused: a length that has no window before it any more.
  void truncate(Index length) {
    if (length > length_ || length < length_ - kept_tokens())
      refuse("KvCache", "length ", length_, " was to become ", length, ", expected ", length_ - kept_tokens(),
             " to ", length_, ", before which all that queries see is there");
    length_ = length;
    release_reserved();
  }

  // What is saved of a cache of `length` positions: the last window() of them, keys [S, Hkv, D], then values
  // [S, Hkv, Dv], in packed host memory.
  Index elements(Index length) const { return saved(length) * kv_heads() * (head_dim() + value_dim()); }
  Index saved_bytes(Index length) const { return saved(length) * rows().bytes_a_row(); }
  void save(void* to) const {
    with_kv_type(type(), [&](auto zero) {
      using T = decltype(zero);
      auto* out = static_cast<std::byte*>(to);
      for (const auto& all : {rows().template keys<T>(), rows().template values<T>()})
        each_run(begin(), length_, [&](Index, Index row, Index n) {
          Backend<Exec>::read(all.slice(0, row, row + n), out);
          out += n * all.shape[1] * all.shape[2] * static_cast<Index>(sizeof(T));
        });
    });
  }
  // Refuses, without a change, what restore() has no room for.
  void expect_room(Index length) const {
    if (length < 0 || length > capacity_)
      refuse("KvCache", length, " positions were to be restored, the capacity is ", capacity_);
    if (!paged()) return;
    const Index page = table_.pool()->page(), first = (length - saved(length)) / page;
    table_.pool()->expect_free((length + page - 1) / page - first - table_.own());
  }
  void restore(const void* from, Index length) {
    expect_room(length);
    if (paged()) table_.truncate(0);
    length_ = 0, first_ = length - saved(length);
    reserve(length);
    length_ = length;
    const auto* keys = static_cast<const std::byte*>(from);
    const Index key = kv_heads() * head_dim() * (bits(type()) / 8);
    const auto* values = keys + saved(length) * key;
    each_run(first_, length, [&](Index, Index row, Index n) {
      rows().load(keys, values, row, n);
      keys += n * key, values += n * (rows().bytes_a_row() - key);
    });
  }

 private:
  static Index rounded(Index window) {
    constexpr Index kLongest = Index{1} << 40;
    return (std::clamp<Index>(window, 0, kLongest) + kBlock - 1) / kBlock * kBlock;
  }
  KvRows<Exec>& rows() { return paged() ? table_.pool()->rows() : rows_; }
  const KvRows<Exec>& rows() const { return paged() ? table_.pool()->rows() : rows_; }
  Index saved(Index length) const { return window_ == 0 ? length : std::min(length, window_); }
  Index begin() const { return length_ - saved(length_); }

  void forget(Index before) {
    first_ = std::max(first_, before);
    if (paged()) table_.drop(first_ / table_.pool()->page());
  }
  // f(j, row, n) for parts of the positions [begin, end) whose rows [row, row + n) follow one another.
  template <class F>
  void each_run(Index begin, Index end, F&& f) const {
    for (Index j = begin; j < end;) {
      Index row = j, n = end - j;
      if (paged()) {
        const Index page = table_.pool()->page();
        row = table_[j / page] * page + j % page, n = std::min(n, page - j % page);
      } else if (bounded()) {
        row = j % rows_.rows(), n = std::min(n, rows_.rows() - row);
      }
      f(j, row, n);
      j += n;
    }
  }
  template <class T, class To>
  void copy(View<const T, 3> all, Index begin, Index end, View<To, 3> to, Exec& exec) const {
    if (all.shape[2] == 0) return;
    each_run(begin, end, [&](Index j, Index row, Index n) {
      Backend<Exec>::copy(all.slice(0, row, row + n), to.slice(0, j - begin, j - begin + n), exec);
    });
  }

  KvRows<Exec> rows_;        // not paged
  KvPageTable<Exec> table_;  // paged
  Index capacity_ = 0, window_ = 0;
  Index holds_ = 0;  // positions at most
  Index first_ = 0;  // positions [first, length) are held
  Index length_ = 0;
};

}  // namespace v0
}  // namespace ashlar
