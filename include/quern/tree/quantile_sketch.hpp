// SPDX-License-Identifier: Apache-2.0

/// \file
/// Exact weighted quantiles of one column in a few passes of counting, without sorting it.
///
/// Values become integers of the same order (float_key). The first pass counts by their upper 16
/// bits; each further pass looks 8 bits deeper, only inside the buckets that hold a wanted
/// quantile, until the buckets are single values or so few rows are left that they are gathered and
/// sorted. Weights are integers, so all sums are exact: the result does not depend on the order of
/// the rows, nor on how they were shared out over sketches that were merged.

#ifndef QUERN_TREE_QUANTILE_SKETCH_HPP
#define QUERN_TREE_QUANTILE_SKETCH_HPP

#include "quern/core/config.hpp"
#include "quern/tree/float_key.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Cut points of one column, by passes over its keys:
///
///     do sketch.add(keys, weights, n, bits);   // every part of the column, in any order
///     while (sketch.advance());
///     sketch.cuts();
///
/// With at most max_bin distinct values of positive weight every distinct value but the smallest is
/// a cut. Otherwise cut j of 1 .. max_bin - 1 is the value v that covers the rank j W / max_bin of
/// the total weight W, or the next value above it where that is nearer and v is heavy (more than W
/// / (16 max_bin)) or the smallest; equal cuts are merged. So the weight below a cut differs from
/// its rank by at most W / (16 max_bin) or half the weight of v, whichever is more (all of it for
/// the smallest and the largest value).
///
/// Sketches of parts of a column that were made with the same arguments (rows being the total) may
/// be merged before each advance(). Count holds the sum of all weights; std::uint32_t will do for
/// less than 2^32 unweighted rows.
template <class Key, class Count>
class QuantileSketch {
 public:
  using Bits = std::make_unsigned_t<Key>;

  QuantileSketch() = default;
  QuantileSketch(int max_bin, std::int64_t rows) { reset(max_bin, rows); }

  /// Starts anew for \p rows rows, keeping the memory.
  void reset(int max_bin, std::int64_t rows);

  /// Adds \p n rows to this pass. \p weights is null when all are one. \p bits is the bitwise or of
  /// all keys of numbers in it (or of more): it shows how deep the passes have to go.
  void add(const Key* keys, const Count* weights, std::int64_t n, Key bits);

  /// Adds what another sketch was given in this pass.
  void merge(const QuantileSketch& other);

  /// Ends a pass. True when another one over all rows is needed.
  bool advance();

  /// Keys of the cut points, ascending; complete when advance() has returned false.
  [[nodiscard]] const std::vector<Key>& cuts() const noexcept { return cuts_; }

 private:
  static constexpr int key_bits = 8 * static_cast<int>(sizeof(Key));
  static constexpr std::size_t top_size = 65536;
  /// Below this many rows a sort is cheaper than clearing and scanning counters.
  static constexpr std::int64_t sorted_rows = 2048;
  /// Sorting this many rows is cheaper than another pass of counting.
  static constexpr std::int64_t gathered_rows = 4096;

  /// Keys that share a prefix, or all their bits.
  struct Bucket {
    Bits prefix;
    std::uint32_t slot;   ///< slot of the bucket above, from 1
    std::uint64_t below;  ///< weight of all smaller keys
    std::uint64_t weight;
  };
  struct Target {
    std::uint64_t rank;
    std::uint64_t j;  ///< number of the quantile, 1 .. max_bin - 1; 0: the successor of a value
  };
  struct Entry {
    Key key;
    Count weight;
  };

  static Bits order_bits(Key key) noexcept {
    return static_cast<Bits>(key) ^ (Bits{1} << (key_bits - 1));
  }
  [[nodiscard]] int shift() const noexcept { return key_bits - 16 - 8 * depth_; }
  /// Slot of a key in the deepest table, 0 when it is in none. Depth is depth_, or -1: read it.
  template <int Depth>
  static std::size_t slot_of(const std::uint8_t* tables, int depth, Bits key) noexcept;
  template <int Depth>
  void count(const Key* keys, const Count* weights, std::int64_t n);
  template <int Depth>
  void gather(const Key* keys, const Count* weights, std::int64_t n);

  [[nodiscard]] std::vector<Bucket> top_buckets() const;
  [[nodiscard]] std::vector<Bucket> deep_buckets() const;
  [[nodiscard]] std::vector<Bucket> gathered_buckets();
  void set_targets();
  void keep_targeted(std::vector<Bucket>& buckets) const;
  bool resolve(const std::vector<Bucket>& values);
  void choose(const std::vector<Bucket>& values);
  bool descend(std::vector<Bucket> buckets);

  std::uint64_t max_bin_ = 0;
  std::uint64_t rows_ = 0;
  std::uint64_t total_ = 0;
  Bits bits_ = 0;
  bool started_ = false;
  bool few_ = true;   ///< may still have at most max_bin distinct values
  bool all_ = false;  ///< all rows are gathered
  bool gathering_ = false;
  std::vector<Count> top_;            ///< by the upper 16 bits
  std::vector<Count> counts_;         ///< by slot and the next 8 bits
  int depth_ = 0;                     ///< number of tables
  std::vector<std::uint8_t> tables_;  ///< slot by the upper bits, by slot and 8 bits, …
  std::vector<Bucket> slots_;
  std::vector<Entry> gathered_;
  std::vector<Target> targets_;
  std::vector<Key> cuts_;
};

template <class Key, class Count>
void QuantileSketch<Key, Count>::reset(int max_bin, std::int64_t rows) {
  max_bin_ = static_cast<std::uint64_t>(max_bin);
  rows_ = static_cast<std::uint64_t>(rows);
  total_ = 0;
  bits_ = 0;
  started_ = false;
  few_ = true;
  all_ = gathering_ = rows <= sorted_rows;
  if (!all_) top_.assign(top_size, 0);
  depth_ = 0;
  slots_.clear();
  gathered_.clear();
  targets_.clear();
  cuts_.clear();
}

template <class Key, class Count>
void QuantileSketch<Key, Count>::add(const Key* keys, const Count* weights, std::int64_t n,
                                     Key bits) {
  bits_ |= static_cast<Bits>(bits);
  if (gathering_) {
    switch (depth_) {
      case 0:
        return gather<0>(keys, weights, n);
      case 1:
        return gather<1>(keys, weights, n);
      case 2:
        return gather<2>(keys, weights, n);
      default:
        return gather<-1>(keys, weights, n);
    }
  }
  switch (depth_) {
    case 0:
      return count<0>(keys, weights, n);
    case 1:
      return count<1>(keys, weights, n);
    case 2:
      return count<2>(keys, weights, n);
    default:
      return count<-1>(keys, weights, n);
  }
}

template <class Key, class Count>
template <int Depth>
std::size_t QuantileSketch<Key, Count>::slot_of(const std::uint8_t* tables, int depth,
                                                Bits key) noexcept {
  const int last = Depth < 0 ? depth : Depth;
  std::size_t found = tables[key >> (key_bits - 16)];
  for (int level = 1; level < last; ++level) {
    tables += top_size;
    found = tables[found * 256 + ((key >> (key_bits - 16 - 8 * level)) & 255u)];
  }
  return found;
}

template <class Key, class Count>
template <int Depth>
void QuantileSketch<Key, Count>::count(const Key* keys, const Count* weights, std::int64_t n) {
  Count* const counts = Depth == 0 ? top_.data() : counts_.data();
  const std::uint8_t* const tables = tables_.data();
  const int depth = depth_, down = shift();
  const auto counter = [=](Key signed_key) -> Count& {
    const Bits key = order_bits(signed_key);
    if constexpr (Depth == 0) return counts[key >> (key_bits - 16)];
    return counts[slot_of<Depth>(tables, depth, key) * 256 + ((key >> down) & 255u)];
  };
  if (weights == nullptr) {
    for (std::int64_t i = 0; i < n; ++i) ++counter(keys[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) counter(keys[i]) += weights[i];
  }
}

template <class Key, class Count>
template <int Depth>
void QuantileSketch<Key, Count>::gather(const Key* keys, const Count* weights, std::int64_t n) {
  const std::uint8_t* const tables = tables_.data();
  const int depth = depth_;
  for (std::int64_t i = 0; i < n; ++i) {
    // A missing key is in no slot, so one well predicted branch tells both once there are slots.
    if constexpr (Depth == 0) {
      if (keys[i] == kernels::missing_key<Key>) continue;
    } else {
      if (slot_of<Depth>(tables, depth, order_bits(keys[i])) == 0) continue;
    }
    const Count weight = weights == nullptr ? Count{1} : weights[i];
    if (weight > 0) gathered_.push_back({keys[i], weight});
  }
}

template <class Key, class Count>
void QuantileSketch<Key, Count>::merge(const QuantileSketch& other) {
  bits_ |= other.bits_;
  if (gathering_) {
    gathered_.insert(gathered_.end(), other.gathered_.begin(), other.gathered_.end());
    return;
  }
  std::vector<Count>& mine = depth_ == 0 ? top_ : counts_;
  const std::vector<Count>& theirs = depth_ == 0 ? other.top_ : other.counts_;
  for (std::size_t i = 0; i < mine.size(); ++i) mine[i] += theirs[i];
}

template <class Key, class Count>
auto QuantileSketch<Key, Count>::top_buckets() const -> std::vector<Bucket> {
  std::vector<Bucket> buckets;
  std::uint64_t below = 0;
  for (std::size_t i = 1; i < top_size; ++i) {  // bucket 0 holds missing_key alone
    if (top_[i] == 0) continue;
    buckets.push_back({static_cast<Bits>(i), 0, below, top_[i]});
    below += top_[i];
  }
  return buckets;
}

template <class Key, class Count>
auto QuantileSketch<Key, Count>::deep_buckets() const -> std::vector<Bucket> {
  std::vector<Bucket> buckets;
  for (std::size_t s = 0; s < slots_.size(); ++s) {
    std::uint64_t below = slots_[s].below;
    for (std::size_t b = 0; b < 256; ++b) {
      const Count weight = counts_[(s + 1) * 256 + b];
      if (weight == 0) continue;
      buckets.push_back({static_cast<Bits>(slots_[s].prefix << 8 | b),
                         static_cast<std::uint32_t>(s + 1), below, weight});
      below += weight;
    }
  }
  return buckets;
}

template <class Key, class Count>
auto QuantileSketch<Key, Count>::gathered_buckets() -> std::vector<Bucket> {
  std::sort(gathered_.begin(), gathered_.end(),
            [](const Entry& a, const Entry& b) { return a.key < b.key; });
  std::vector<Bucket> buckets;
  std::uint64_t below = 0;
  std::size_t slot = 0;
  for (const Entry& entry : gathered_) {
    const Bits key = order_bits(entry.key);
    if (!buckets.empty() && buckets.back().prefix == key) {
      buckets.back().weight += entry.weight;
    } else {
      const std::size_t here = all_ ? 0 : slot_of<-1>(tables_.data(), depth_, key);
      if (here != slot) below = slots_[here - 1].below;
      slot = here;
      buckets.push_back({key, 0, below, entry.weight});
    }
    below += entry.weight;
  }
  return buckets;
}

template <class Key, class Count>
void QuantileSketch<Key, Count>::set_targets() {
  few_ = false;
  for (std::uint64_t j = 1; j < max_bin_; ++j) targets_.push_back({j * total_ / max_bin_, j});
}

/// Drops the buckets that hold no target; targets ascend, as buckets do.
template <class Key, class Count>
void QuantileSketch<Key, Count>::keep_targeted(std::vector<Bucket>& buckets) const {
  std::size_t kept = 0, i = 0;
  for (const Target& target : targets_) {
    while (buckets[i].below + buckets[i].weight <= target.rank) ++i;
    if (kept == 0 || buckets[kept - 1].prefix != buckets[i].prefix) buckets[kept++] = buckets[i];
  }
  buckets.resize(kept);
}

/// One round of choices, \p values holding at least every value that covers a target.
template <class Key, class Count>
void QuantileSketch<Key, Count>::choose(const std::vector<Bucket>& values) {
  std::vector<Target> successors;
  std::size_t i = 0;
  for (const Target& target : targets_) {
    while (values[i].below + values[i].weight <= target.rank) ++i;
    const Bucket& v = values[i];
    const std::uint64_t above = v.below + v.weight;
    const bool heavy = v.weight > total_ / (16 * max_bin_);
    const bool upper = 2 * target.j * total_ > (v.below + above) * max_bin_;
    const bool next = target.j > 0 && (v.below == 0 || (heavy && upper));
    if (next && above < total_) {
      if (successors.empty() || successors.back().rank != above) successors.push_back({above, 0});
    } else {
      cuts_.push_back(static_cast<Key>(v.prefix ^ (Bits{1} << (key_bits - 1))));
    }
  }
  targets_ = std::move(successors);
}

/// Chooses cuts among values that are known exactly. False when that was all.
template <class Key, class Count>
bool QuantileSketch<Key, Count>::resolve(const std::vector<Bucket>& values) {
  if (few_) {
    for (std::size_t i = 1; i < values.size(); ++i)
      cuts_.push_back(static_cast<Key>(values[i].prefix ^ (Bits{1} << (key_bits - 1))));
    return false;
  }
  choose(values);
  if (!targets_.empty()) return true;
  std::sort(cuts_.begin(), cuts_.end());
  cuts_.erase(std::unique(cuts_.begin(), cuts_.end()), cuts_.end());
  return false;
}

/// Prepares a pass inside \p buckets.
template <class Key, class Count>
bool QuantileSketch<Key, Count>::descend(std::vector<Bucket> buckets) {
  const std::size_t base = static_cast<std::size_t>(depth_) * top_size;
  if (tables_.size() < base + top_size) tables_.resize(base + top_size);
  std::fill_n(tables_.data() + base, top_size, std::uint8_t{0});
  std::uint64_t weight = 0;
  for (std::size_t s = 0; s < buckets.size(); ++s) {
    const std::size_t at =
        depth_ == 0 ? buckets[s].prefix : buckets[s].slot * 256 + (buckets[s].prefix & 255u);
    tables_[base + at] = static_cast<std::uint8_t>(s + 1);
    weight += buckets[s].weight;
  }
  ++depth_;
  slots_ = std::move(buckets);
  const double share = static_cast<double>(weight) / static_cast<double>(total_);
  gathering_ = share * static_cast<double>(rows_) <= static_cast<double>(gathered_rows);
  if (!gathering_) counts_.assign(top_size, 0);
  gathered_.clear();
  return true;
}

template <class Key, class Count>
bool QuantileSketch<Key, Count>::advance() {
  std::vector<Bucket> buckets = gathering_    ? gathered_buckets()
                                : depth_ == 0 ? top_buckets()
                                              : deep_buckets();
  if (!started_ && !buckets.empty()) total_ = buckets.back().below + buckets.back().weight;
  started_ = true;
  if (total_ == 0) return false;
  bool exact = gathering_ || shift() <= std::countr_zero(bits_);
  int down = gathering_ ? 0 : shift();
  if (few_ && buckets.size() > max_bin_) set_targets();
  while (exact) {
    std::vector<Bucket> values = buckets;
    for (Bucket& value : values) value.prefix = static_cast<Bits>(value.prefix << down);
    if (!resolve(values)) return false;
    // Successors may lie in any bucket: look for them from the top.
    if (!all_) {
      depth_ = 0;
      gathering_ = false;
      buckets = top_buckets();
      down = shift();
      exact = down <= std::countr_zero(bits_);
    }
  }
  if (!few_) keep_targeted(buckets);
  return descend(std::move(buckets));
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_QUANTILE_SKETCH_HPP
