// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "ashlar/nn/kv_rows.hpp"

namespace ashlar {
inline namespace v0 {

// Keys and values of many sequences in one layer, in pages of `page` positions (paged attention, Kwon et al.,
// 2023): memory is for the tokens there are, not for the longest that could be. A page is one sequence's, or
// of several that begin alike; attention reads blocks of 64 positions, of which it is best a multiple. Used
// by one thread at a time.
template <class Exec>
class KvPagePool {
 public:
  KvPagePool(const KvShape& shape, Index pages, Index page = 64, DType type = DType::f32)
      : page_(checked(pages, page, type)), rows_(shape, pages * page, type) {
    users_.assign(static_cast<std::size_t>(pages), 0);
    for (Index p = pages - 1; p >= 0; --p) free_.push_back(p);
  }
  KvPagePool(const KvPagePool&) = delete;
  KvPagePool& operator=(const KvPagePool&) = delete;

  Index pages() const { return static_cast<Index>(users_.size()); }
  Index page() const { return page_; }
  Index free_pages() const { return static_cast<Index>(free_.size()); }
  KvRows<Exec>& rows() { return rows_; }  // page p is rows [p page, (p + 1) page)
  const KvRows<Exec>& rows() const { return rows_; }

  // Refused: fewer free pages than `pages`.
  void expect_free(Index pages) const {
    if (pages > free_pages())
      refuse("KvPagePool", pages, " more pages are needed, ", free_pages(), " of ", this->pages(),
             " are free");
  }
  Index take() {
    expect_free(1);
    const Index p = free_.back();
    free_.pop_back();
    users_[static_cast<std::size_t>(p)] = 1;
    return p;
  }
  void share(Index p) { ++users_[static_cast<std::size_t>(p)]; }
  bool shared(Index p) const { return users_[static_cast<std::size_t>(p)] > 1; }
  void release(Index p) {
    if (--users_[static_cast<std::size_t>(p)] == 0) free_.push_back(p);
  }

 private:
  static Index checked(Index pages, Index page, DType type) {
    check_kv_type("KvPagePool", type);
    if (pages < 0 || page < 1)
      refuse("KvPagePool", pages, " pages of ", page, " positions, expected pages of 1 or more");
    return page;
  }

  Index page_ = 1;
  std::vector<Index> users_, free_;
  KvRows<Exec> rows_;
};

// Where the pages of one sequence are. A copy shares the pages, and the last one gives them back.
template <class Exec>
class KvPageTable {
 public:
  KvPageTable() = default;
  // `capacity`: positions. The list does not grow in memory after this.
  KvPageTable(std::shared_ptr<KvPagePool<Exec>> pool, Index capacity) : pool_(std::move(pool)) {
    most_ = (capacity + pool_->page() - 1) / pool_->page();
    pages_.reserve(static_cast<std::size_t>(most_));
  }
  KvPageTable(const KvPageTable& t) : pool_(t.pool_), most_(t.most_), dropped_(t.dropped_) {
    pages_.reserve(static_cast<std::size_t>(most_));
    pages_.assign(t.pages_.begin(), t.pages_.end());
    for (Index p : pages_)
      if (p >= 0) pool_->share(p);
  }
  KvPageTable(KvPageTable&& t) noexcept { swap(t); }
  KvPageTable& operator=(KvPageTable t) noexcept {
    swap(t);
    return *this;
  }
  ~KvPageTable() { truncate(0); }
  void swap(KvPageTable& t) noexcept {
    pool_.swap(t.pool_), pages_.swap(t.pages_);
    std::swap(most_, t.most_), std::swap(dropped_, t.dropped_);
  }

  explicit operator bool() const { return pool_ != nullptr; }
  const std::shared_ptr<KvPagePool<Exec>>& pool() const { return pool_; }
  Index size() const { return static_cast<Index>(pages_.size()); }
  std::span<const Index> pages() const { return pages_; }
  Index operator[](Index i) const { return pages_[static_cast<std::size_t>(i)]; }
  Index held() const {
    return count([](Index) { return true; });
  }
  // Pages that come free when this table lets go of them.
  Index own() const {
    return count([&](Index p) { return !pool_->shared(p); });
  }

  // Makes the pages [begin, end) there, and page `own` nobody else's (-1: none). Refused, before anything
  // changes: more than the pool has.
  void cover(Index begin, Index end, Index own) {
    const bool copy = own >= 0 && pool_->shared((*this)[own]);
    pool_->expect_free(std::max<Index>(0, end - std::max(begin, size())) + (copy ? 1 : 0));
    while (size() < std::min(begin, end)) pages_.push_back(-1);
    while (size() < end) pages_.push_back(pool_->take());
    if (!copy) return;
    Index& p = pages_[static_cast<std::size_t>(own)];
    const Index mine = pool_->take(), page = pool_->page();
    pool_->rows().take(pool_->rows(), p * page, mine * page, page);
    pool_->release(p);
    p = mine;
  }
  // Lets go of the pages [0, end), or of all from `end` on.
  void drop(Index end) {
    for (; dropped_ < std::min(end, size()); ++dropped_) {
      Index& p = pages_[static_cast<std::size_t>(dropped_)];
      if (p >= 0) pool_->release(p);
      p = -1;
    }
  }
  void truncate(Index end) {
    for (; size() > end; pages_.pop_back())
      if (pages_.back() >= 0) pool_->release(pages_.back());
    dropped_ = std::min(dropped_, size());
  }

 private:
  template <class F>
  Index count(F&& f) const {
    Index n = 0;
    for (Index p : pages_) n += p >= 0 && f(p) ? 1 : 0;
    return n;
  }

  std::shared_ptr<KvPagePool<Exec>> pool_;
  std::vector<Index> pages_;  // -1: no longer there
  Index most_ = 0, dropped_ = 0;
};

}  // namespace v0
}  // namespace ashlar
