// SPDX-License-Identifier: Apache-2.0

/// \file
/// Which keys a query sees: SparsePattern, and the lists of queries and keys that attention over a
/// pattern goes through, SparsePlan.

#ifndef QUERN_ATTENTION_SPARSE_PATTERN_HPP
#define QUERN_ATTENTION_SPARSE_PATTERN_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Options of SparsePattern::local.
struct LocalOptions {
  bool causal = false;
  /// Keys at most `window` times the blocks looked at away, rather than whole blocks.
  bool exact = false;
  Index look_backward = 1;  ///< blocks before the query's own
  Index look_forward = 1;   ///< blocks after it; none where causal
};

/// Which keys each position sees, in words that do not depend on the length. Positions and keys
/// are counted from 0; causal patterns never show a key beyond the position.
class SparsePattern {
 public:
  enum class Kind { dense, local, strided, atrous, fixed, window_global, block_sparse };

  /// All keys: softmax attention itself.
  [[nodiscard]] static SparsePattern dense(bool causal) {
    return SparsePattern(Kind::dense, causal);
  }
  /// Blocks of `window` positions see their own block and those beside it, as local-attention
  /// does; `exact` cuts that to a window that moves with the query: position i sees keys from
  /// i - window * look_backward to i + window * look_forward.
  [[nodiscard]] static SparsePattern local(Index window, const LocalOptions& options = {}) {
    SparsePattern p(Kind::local, options.causal);
    p.size_ = at_least_one("window", window);
    p.exact_ = options.exact;
    p.back_ = not_negative("look_backward", options.look_backward);
    p.forward_ = options.causal ? 0 : not_negative("look_forward", options.look_forward);
    return p;
  }
  /// Keys less than `stride` away, and every stride-th beyond: Child et al., "Generating long
  /// sequences with sparse transformers" (arXiv:1904.10509), strided, both heads' keys in one.
  [[nodiscard]] static SparsePattern strided(Index stride, bool causal = true) {
    SparsePattern p(Kind::strided, causal);
    p.size_ = at_least_one("stride", stride);
    return p;
  }
  /// Every rate-th key, its own included.
  [[nodiscard]] static SparsePattern atrous(Index rate, bool causal = true) {
    SparsePattern p(Kind::atrous, causal);
    p.size_ = at_least_one("rate", rate);
    return p;
  }
  /// Its own block of `block` positions, and the last `summary` keys of every block: Child et al.,
  /// fixed.
  [[nodiscard]] static SparsePattern fixed(Index block, Index summary, bool causal = true) {
    SparsePattern p(Kind::fixed, causal);
    p.size_ = at_least_one("block", block);
    p.extra_ = not_negative("summary", summary);
    if (summary > block) bad("summary", "at most " + std::to_string(block), summary);
    return p;
  }
  /// Keys at most `window` away, and the first `global` keys, which see everything themselves:
  /// Beltagy et al., "Longformer" (arXiv:2004.05150).
  [[nodiscard]] static SparsePattern window_global(Index window, Index global,
                                                   bool causal = false) {
    SparsePattern p(Kind::window_global, causal);
    p.size_ = not_negative("window", window);
    p.extra_ = not_negative("global", global);
    return p;
  }
  /// Position i sees key j where layout(i / block, j / block) is not 0. Positions beyond
  /// the layout see only themselves.
  [[nodiscard]] static SparsePattern block_sparse(MatrixView<const std::uint8_t> layout,
                                                  Index block, bool causal = false) {
    SparsePattern p(Kind::block_sparse, causal);
    p.size_ = at_least_one("block", block);
    p.layout_rows_ = layout.rows();
    p.layout_cols_ = layout.cols();
    for (Index r = 0; r < layout.rows(); ++r)
      for (Index c = 0; c < layout.cols(); ++c) p.layout_.push_back(layout(r, c) != 0);
    return p;
  }

  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  [[nodiscard]] bool causal() const noexcept { return causal_; }
  /// Window, stride, rate or block.
  [[nodiscard]] Index size() const noexcept { return size_; }
  /// Keys of the summary, or global ones.
  [[nodiscard]] Index extra() const noexcept { return extra_; }
  [[nodiscard]] Index layout_rows() const noexcept { return layout_rows_; }
  [[nodiscard]] Index layout_cols() const noexcept { return layout_cols_; }
  [[nodiscard]] bool layout(Index row, Index col) const {
    return layout_[static_cast<std::size_t>(row * layout_cols_ + col)] != 0;
  }

  /// The first and last key of the local pattern that a position sees, before causality.
  [[nodiscard]] Index local_low(Index position) const {
    if (exact_) return position - size_ * back_;
    return (position / size_ - back_) * size_;
  }
  [[nodiscard]] Index local_high(Index position) const {
    if (exact_) return position + size_ * forward_;
    return (position / size_ + forward_ + 1) * size_ - 1;
  }

  /// The pattern's definition: whether a position sees a key.
  [[nodiscard]] bool sees(Index position, Index key) const {
    if (causal_ && key > position) return false;
    const Index apart = position > key ? position - key : key - position;
    switch (kind_) {
      case Kind::dense:
        return true;
      case Kind::local:
        return key >= local_low(position) && key <= local_high(position);
      case Kind::strided:
        return apart < size_ || apart % size_ == 0;
      case Kind::atrous:
        return apart % size_ == 0;
      case Kind::fixed:
        return position / size_ == key / size_ || key % size_ >= size_ - extra_;
      case Kind::window_global:
        return apart <= size_ || key < extra_ || position < extra_;
      case Kind::block_sparse:
        break;
    }
    const Index row = position / size_, col = key / size_;
    if (row >= layout_rows_) return position == key;
    return col < layout_cols_ && layout(row, col);
  }

 private:
  SparsePattern(Kind kind, bool causal) : kind_(kind), causal_(causal) {}
  [[noreturn]] static void bad(const char* argument, const std::string& expected, Index got) {
    throw ValueError(error_text("quern::attention::SparsePattern", argument, expected, got));
  }
  static Index at_least_one(const char* argument, Index value) {
    if (value < 1) bad(argument, "at least 1", value);
    return value;
  }
  static Index not_negative(const char* argument, Index value) {
    if (value < 0) bad(argument, "at least 0", value);
    return value;
  }

  Kind kind_;
  bool causal_;
  bool exact_ = false;
  Index size_ = 1;
  Index extra_ = 0;
  Index back_ = 1;
  Index forward_ = 1;
  Index layout_rows_ = 0;
  Index layout_cols_ = 0;
  std::vector<std::uint8_t> layout_;
};

/// Queries that go through the same list of keys together. Ids are positions in SparsePlan::ids,
/// -1 for a range.
struct SparseTask {
  Index first_query = 0, queries = 0, query_ids = -1;
  Index first_key = 0, keys = 0, key_ids = -1;
};

/// What each query sees of the keys of its task: lowest..highest.
struct SparseBounds {
  std::vector<std::int64_t> lowest, highest;
};

/// Tasks that may run side by side.
struct SparseRound {
  std::shared_ptr<SparseBounds> bounds;
  std::vector<SparseTask> tasks;
};

/// A pattern at given lengths: rounds, of which the first has every query in a task, and which show
/// a query each key that it sees in one of them and once. Made in time and memory of the order of
/// what is seen, divided by the tasks' size.
class SparsePlan {
 public:
  /// Queries in a task.
  static constexpr Index task_size = 64;

  /// Query i stands at position i + offset among the keys.
  SparsePlan(const SparsePattern& pattern, Index queries, Index keys, Index offset = 0)
      : pattern_(pattern), queries_(queries), keys_(keys), offset_(offset) {
    using Kind = SparsePattern::Kind;
    if (offset < 0) {
      throw ValueError(
          error_text("quern::attention::SparsePlan", "causal_offset", "at least 0", offset));
    }
    switch (pattern.kind()) {
      case Kind::dense:
        add_ranges([](Index) { return Seen{}; });
        break;
      case Kind::local:
        add_ranges([&](Index p) { return Seen{pattern.local_low(p), pattern.local_high(p)}; });
        break;
      case Kind::strided:
        plan_strided();
        break;
      case Kind::atrous:
        add_classes([](Index) { return Seen{}; });
        break;
      case Kind::fixed:
        plan_fixed();
        break;
      case Kind::window_global:
        plan_window_global();
        break;
      case Kind::block_sparse:
        plan_block_sparse();
        break;
    }
  }

  [[nodiscard]] Index queries() const noexcept { return queries_; }
  [[nodiscard]] Index keys() const noexcept { return keys_; }
  [[nodiscard]] const std::vector<SparseRound>& rounds() const noexcept { return rounds_; }
  [[nodiscard]] const std::vector<std::int64_t>& ids() const noexcept { return ids_; }

 private:
  static constexpr Index far = (std::numeric_limits<Index>::max)();
  /// The keys that a position sees in a round.
  struct Seen {
    Index low = 0, high = far;
  };

  /// A round's bounds: what `seen` says, cut to the keys, and to the past where causal.
  template <class F>
  SparseRound& begin_round(const F& seen) {
    SparseRound& round = rounds_.emplace_back();
    round.bounds = std::make_shared<SparseBounds>();
    for (Index i = 0; i < queries_; ++i) {
      Seen s = seen(i + offset_);
      if (pattern_.causal()) s.high = (std::min)(s.high, i + offset_);
      round.bounds->lowest.push_back((std::max)(s.low, Index{0}));
      round.bounds->highest.push_back((std::min)(s.high, keys_ - 1));
    }
    return round;
  }
  /// The keys that any of some queries sees in a round; {0, -1} for none.
  template <class Query>
  static Seen union_of(const SparseRound& round, Index count, const Query& query) {
    Seen all{far, -1};
    for (Index i = 0; i < count; ++i) {
      const auto id = static_cast<std::size_t>(query(i));
      if (round.bounds->lowest[id] > round.bounds->highest[id]) continue;
      all.low = (std::min)(all.low, static_cast<Index>(round.bounds->lowest[id]));
      all.high = (std::max)(all.high, static_cast<Index>(round.bounds->highest[id]));
    }
    return all.high < 0 ? Seen{0, -1} : all;
  }

  /// Blocks of queries in a row, with all keys between the first and the last that they see.
  void add_range_tasks(SparseRound& round, Index begin, Index end) {
    for (Index first = begin; first < end; first += task_size) {
      const Index count = (std::min)(task_size, end - first);
      const Seen all = union_of(round, count, [&](Index i) { return first + i; });
      round.tasks.push_back({first, count, -1, all.low, all.high - all.low + 1, -1});
    }
  }
  template <class F>
  void add_ranges(const F& seen) {
    add_range_tasks(begin_round(seen), 0, queries_);
  }
  /// Blocks of queries in a row with the keys of a list, which is in ascending order.
  void add_list_tasks(SparseRound& round, Index begin, Index end, Index list, Index length) {
    for (Index first = begin; first < end; first += task_size) {
      const Index count = (std::min)(task_size, end - first);
      const Seen all = union_of(round, count, [&](Index i) { return first + i; });
      const auto cut = cut_list(all, list, length);
      if (cut.second > 0) round.tasks.push_back({first, count, -1, 0, cut.second, cut.first});
    }
  }
  /// The part of a list that lies within bounds: where it begins and its length.
  std::pair<Index, Index> cut_list(const Seen& all, Index list, Index length) const {
    const auto at = ids_.begin() + list;
    const auto from = std::lower_bound(at, at + length, static_cast<std::int64_t>(all.low));
    const auto to = std::upper_bound(from, at + length, static_cast<std::int64_t>(all.high));
    return {from - ids_.begin(), to - from};
  }

  /// Positions and keys that agree modulo the stride meet; `seen` limits which of them.
  template <class F>
  void add_classes(const F& seen) {
    SparseRound& round = begin_round(seen);
    const Index stride = pattern_.size();
    for (Index c = 0; c < (std::min)(stride, queries_); ++c) {
      const Index first_query = c, rest = (c + offset_) % stride;
      const Index list = static_cast<Index>(ids_.size());
      for (Index i = first_query; i < queries_; i += stride) ids_.push_back(i);
      const Index members = static_cast<Index>(ids_.size()) - list;
      const Index key_list = list + members;
      for (Index j = rest; j < keys_; j += stride) ids_.push_back(j);
      const Index key_count = static_cast<Index>(ids_.size()) - key_list;
      for (Index begin = 0; begin < members; begin += task_size) {
        const Index count = (std::min)(task_size, members - begin);
        const Seen all = union_of(round, count, [&](Index i) {
          return ids_[static_cast<std::size_t>(list + begin + i)];
        });
        const auto cut = cut_list(all, key_list, key_count);
        round.tasks.push_back({0, count, list + begin, 0, cut.second, cut.first});
      }
    }
  }

  void plan_strided() {
    const Index stride = pattern_.size();
    add_ranges([&](Index p) { return Seen{p - stride + 1, p + stride - 1}; });
    add_classes([&](Index p) { return Seen{0, p - stride}; });
    if (!pattern_.causal()) add_classes([&](Index p) { return Seen{p + stride, far}; });
  }

  void plan_fixed() {
    const Index block = pattern_.size();
    add_ranges([&](Index p) { return Seen{p / block * block, p / block * block + block - 1}; });
    const Index list = static_cast<Index>(ids_.size());
    for (Index j = 0; j < keys_; ++j)
      if (j % block >= block - pattern_.extra()) ids_.push_back(j);
    const Index length = static_cast<Index>(ids_.size()) - list;
    if (length == 0) return;
    add_list_tasks(begin_round([&](Index p) {
                     return Seen{0, p / block * block - 1};
                   }),
                   0, queries_, list, length);
    if (pattern_.causal()) return;
    add_list_tasks(begin_round([&](Index p) {
                     return Seen{(p / block + 1) * block, far};
                   }),
                   0, queries_, list, length);
  }

  void plan_window_global() {
    const Index window = pattern_.size(), global = pattern_.extra();
    const auto split = (std::clamp)(global - offset_, Index{0}, queries_);
    SparseRound& round = begin_round([&](Index p) {
      return p < global ? Seen{} : Seen{p - window, p + window};
    });
    add_range_tasks(round, 0, split);
    add_range_tasks(round, split, queries_);
    SparseRound& second = begin_round([&](Index p) {
      return p < global ? Seen{0, -1} : Seen{0, (std::min)(global, p - window) - 1};
    });
    add_range_tasks(second, split, queries_);
  }

  void plan_block_sparse() {
    const Index block = pattern_.size(), rows = pattern_.layout_rows();
    const Index covered = pattern_.layout_cols() * block;
    const auto whole = (std::clamp)(rows * block - offset_, Index{0}, queries_);
    // A position within the layout may stand where keys have none: such see nothing.
    SparseRound& round = begin_round([&](Index p) {
      return p < rows * block ? Seen{0, covered - 1} : Seen{p, p >= 0 ? p : -1};
    });
    for (Index i = 0; i < whole;) {
      const Index row = (i + offset_) / block;
      const Index end = (std::min)(whole, (row + 1) * block - offset_);
      const Index list = static_cast<Index>(ids_.size());
      for (Index c = 0; c < pattern_.layout_cols(); ++c) {
        if (!pattern_.layout(row, c)) continue;
        for (Index j = c * block; j < (std::min)(keys_, (c + 1) * block); ++j) ids_.push_back(j);
      }
      const Index length = static_cast<Index>(ids_.size()) - list;
      for (; i < end; i += task_size) {
        const Index count = (std::min)(task_size, end - i);
        const auto cut =
            cut_list(union_of(round, count, [&](Index r) { return i + r; }), list, length);
        round.tasks.push_back({i, count, -1, 0, cut.second, cut.first});
      }
      i = end;
    }
    add_range_tasks(round, whole, queries_);
  }

  SparsePattern pattern_;
  Index queries_;
  Index keys_;
  Index offset_;
  std::vector<SparseRound> rounds_;
  std::vector<std::int64_t> ids_;
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_SPARSE_PATTERN_HPP
