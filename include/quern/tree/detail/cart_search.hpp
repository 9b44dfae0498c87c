// SPDX-License-Identifier: Apache-2.0

/// \file
/// The search of a node's split on one feature: rows are put in the order of their codes, then the
/// target's sums move from run to run.
///
/// How they are put in order depends on how many they are: a few by insertion; bytes by counting,
/// touching only the codes that occur; many bytes by adding the samples of a code up; four-byte
/// codes by sorting.

#ifndef QUERN_TREE_DETAIL_CART_SEARCH_HPP
#define QUERN_TREE_DETAIL_CART_SEARCH_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/tree/cart_columns.hpp"
#include "quern/tree/detail/cart_split.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// One worker's memory and methods.
template <class Target>
class CartSearch {
 public:
  using Sample = typename Target::Sample;
  using Sums = typename Target::Sums;

  explicit CartSearch(const Target& target) : sums(target), outputs_(target.outputs()) {}

  /// Before random splits of a node: where each class of its sorted samples ends. \p alike: all
  /// weights are 1.
  void begin_random(std::span<const Sample> samples, bool alike) {
    alike_ = alike;
    label_ends_.clear();
    if constexpr (Target::counts) {
      for (std::size_t i = 1; i <= samples.size(); ++i) {
        if (i < samples.size() && samples[i].label == samples[i - 1].label) continue;
        label_ends_.push_back(static_cast<std::uint32_t>(i));
      }
      counts_.resize(label_ends_.size());
    }
  }

  /// The best split of \p feature, whose codes are \p codes; \p best changes where it is better.
  /// False where all codes are the same.
  template <class Code>
  bool best_split(const CartColumns& columns, std::int32_t feature, const Code* codes,
                  std::span<const Sample> samples, const ChildLimits& limits, CartSplit& best) {
    const std::uint32_t missing = columns.missing_code(feature);
    order(codes, samples, missing);
    if (runs_.size() < 2) return false;
    const bool has_missing = runs_.back().code == missing;
    const std::size_t known = runs_.size() - (has_missing ? 1 : 0);
    if (!has_missing && runs_.front().rows > runs_.back().rows) {
      sweep_down(columns, feature, static_cast<std::int64_t>(samples.size()), limits, best);
      return true;
    }
    sweep(columns, feature, known, has_missing, false, static_cast<std::int64_t>(samples.size()),
          limits, best);
    if (has_missing)
      sweep(columns, feature, known, true, true, static_cast<std::int64_t>(samples.size()), limits,
            best);
    return true;
  }

  /// The split of \p feature at a random threshold: \p uniform in [0, 1) of the way from the
  /// smallest value to the largest; missing values go as they are told. Codes are padded().
  template <class Code>
  bool random_split(const CartColumns& columns, std::int32_t feature, const Code* codes,
                    std::span<const Sample> samples, double uniform, bool missing_left,
                    const ChildLimits& limits, CartSplit& best) {
    const std::uint32_t missing = columns.missing_code(feature);
    std::uint32_t low = 0, high = 0;
    const std::size_t gone = columns.has_missing(feature)
                                 ? known_range(codes, samples.size(), missing, low, high)
                                 : whole_range(codes, samples.size(), low, high);
    if (gone == samples.size() || (low == high && gone == 0)) return false;
    CartSplit split;
    split.feature = feature;
    split.missing_left = gone > 0 && missing_left;
    if (low == high) {  // only the missing rows differ
      split.below = low;
      split.only_missing = true;
      split.missing_left = false;
    } else {
      choose_cut(columns, low, high, uniform, split);
    }
    const std::int64_t rows = columns.has_missing(feature)
                                  ? count_left(codes, samples, split, missing)
                                  : count_left(codes, samples, split.below);
    if (gone == 0) split.missing_left = 2 * rows > static_cast<std::int64_t>(samples.size());
    consider(split, rows, static_cast<std::int64_t>(samples.size()), limits, best);
    return true;
  }

  Sums sums;
  std::vector<std::uint8_t> byte_codes;  ///< of the feature in work
  std::vector<std::uint32_t> wide_codes;

  /// What kernels read for that many codes.
  [[nodiscard]] static constexpr std::size_t padded(std::size_t rows) noexcept {
    return (rows + 63) / 64 * 64;
  }
  /// Memory for codes of that many rows, padded().
  template <class Code>
  [[nodiscard]] Code* codes(std::size_t rows) {
    if constexpr (sizeof(Code) == 1) {
      if (byte_codes.size() < padded(rows)) byte_codes.resize(padded(rows));
      return byte_codes.data();
    } else {
      if (wide_codes.size() < padded(rows)) wide_codes.resize(padded(rows));
      return wide_codes.data();
    }
  }

 private:
  static constexpr std::size_t few_rows = 16;
  static constexpr std::size_t sorted_rows = 512;  ///< four-byte codes: below it by comparing

  void consider(const CartSplit& split, std::int64_t left_rows, std::int64_t all_rows,
                const ChildLimits& limits, CartSplit& best) const {
    if (!allowed(left_rows, all_rows, limits)) return;
    const double score = sums.score();
    if (!(score > best.score)) return;
    best = split;
    best.score = score;
  }

  void move(std::size_t run) {
    const std::size_t begin = run == 0 ? 0 : runs_[run - 1].end;
    for (std::size_t i = begin; i < runs_[run].end; ++i) sums.add(ordered_[i]);
  }

  [[nodiscard]] bool allowed(std::int64_t some, std::int64_t all, const ChildLimits& limits) const {
    return some >= limits.samples && all - some >= limits.samples &&
           sums.left_weight() >= limits.weight && sums.right_weight() >= limits.weight;
  }

  /// Makes the threshold after run \p found the best, if there is one.
  void take(const CartColumns& columns, std::size_t found, CartSplit split, CartSplit& best) const {
    if (found >= runs_.size()) return;
    split.score = best.score;
    split.below = runs_[found].code;
    split.threshold = columns.cut(split.feature, split.below, runs_[found + 1].code);
    best = split;
  }

  /// All thresholds where nothing is missing, from the highest down: the lowest run, of zeros as a
  /// rule, is never moved. The sums' left is the right here; of equal scores the lowest threshold
  /// wins, as from below.
  void sweep_down(const CartColumns& columns, std::int32_t feature, std::int64_t rows,
                  const ChildLimits& limits, CartSplit& best) {
    sums.start();
    std::int64_t right = 0;
    std::size_t found = runs_.size();
    CartSplit split{.feature = feature};
    for (std::size_t run = runs_.size() - 1; run > 0; --run) {
      move(run);
      right += runs_[run].rows;
      if (!allowed(right, rows, limits)) continue;
      const double score = sums.score();
      if (!(score > best.score || (score == best.score && found < runs_.size()))) continue;
      best.score = score;
      found = run - 1;
      split.missing_left = 2 * right < rows;
    }
    take(columns, found, split, best);
  }

  /// All thresholds, missing values on one side; on the right, also missing values alone.
  void sweep(const CartColumns& columns, std::int32_t feature, std::size_t known, bool has_missing,
             bool missing_left, std::int64_t rows, const ChildLimits& limits, CartSplit& best) {
    sums.start();
    std::int64_t left = 0;
    if (missing_left) {
      move(known);
      left = runs_[known].rows;
    }
    std::size_t found = runs_.size();
    CartSplit split{.feature = feature, .missing_left = missing_left};
    for (std::size_t run = 0; run + 1 < known; ++run) {
      move(run);
      left += runs_[run].rows;
      if (!allowed(left, rows, limits)) continue;
      const double score = sums.score();
      if (!(score > best.score)) continue;
      best.score = score;
      found = run;
      if (!has_missing) split.missing_left = 2 * left > rows;
    }
    take(columns, found, split, best);
    if (!has_missing || missing_left || known == 0) return;
    move(known - 1);
    split.only_missing = true;
    split.below = runs_[known - 1].code;
    consider(split, left + runs_[known - 1].rows, rows, limits, best);
  }

  void choose_cut(const CartColumns& columns, std::uint32_t low, std::uint32_t high, double uniform,
                  CartSplit& split) const {
    const auto from = static_cast<double>(columns.values(split.feature, low).high);
    const auto to = static_cast<double>(columns.values(split.feature, high).low);
    const double x = from + uniform * (to - from);
    // As far among the codes as among the values: right where values are evenly spaced.
    const auto guess = low + static_cast<std::uint32_t>(uniform * static_cast<double>(high - low));
    split.below = columns.last_below(split.feature, low, high - 1, x, (std::min)(guess, high - 1));
    // Within a joined code nothing can be cut: its upper end stands for what is inside.
    split.threshold = x < to ? x : from;
  }

  /// Smallest and largest code; returns how many are missing.
  template <class Code>
  static std::size_t whole_range(const Code* codes, std::size_t n, std::uint32_t& low,
                                 std::uint32_t& high) noexcept {
    Code least = 0, most = 0;
    QUERN_DISPATCH(code_range<Code>(codes, static_cast<std::int64_t>(n), &least, &most));
    low = least;
    high = most;
    return 0;
  }
  template <class Code>
  static std::size_t known_range(const Code* codes, std::size_t n, std::uint32_t missing,
                                 std::uint32_t& low, std::uint32_t& high) noexcept {
    std::size_t gone = 0;
    low = missing;
    high = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t code = codes[i];
      const bool known = code != missing;
      low = known && code < low ? code : low;
      high = known && code > high ? code : high;
      gone += known ? 0 : 1;
    }
    return gone;
  }

  template <class Code>
  std::int64_t count_left(const Code* codes, std::span<const Sample> samples,
                          const CartSplit& split, std::uint32_t missing) {
    std::int64_t rows = 0;
    sums.start();
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const bool left = codes[i] == missing ? split.missing_left : codes[i] <= split.below;
      if (!left) continue;
      ++rows;
      sums.add(samples[i]);
    }
    return rows;
  }
  /// The same where nothing is missing. Samples of classes are sorted by them (see CartGrower): of
  /// rows that weigh alike a kernel counts each class, else it is a difference of running sums,
  /// which take no branches.
  template <class Code>
  std::int64_t count_left(const Code* codes, std::span<const Sample> samples, std::uint32_t below) {
    if constexpr (Target::counts) {
      return alike_ ? count_classes(codes, samples, below) : weigh_classes(codes, samples, below);
    } else if constexpr (Target::joins) {
      std::int64_t rows = 0;
      sums.start();
      for (std::size_t i = 0; i < samples.size(); ++i) {
        const bool left = codes[i] <= below;
        const double taken = left ? 1.0 : 0.0;
        rows += left ? 1 : 0;
        sums.add({samples[i].weight * taken, samples[i].weighted * taken});
      }
      return rows;
    } else {
      return count_left(codes, samples, CartSplit{.below = below}, ~std::uint32_t{0});
    }
  }
  template <class Code>
  std::int64_t count_classes(const Code* codes, std::span<const Sample> samples,
                             std::uint32_t below) {
    using Sum = typename Target::Sum;
    QUERN_DISPATCH(count_up_to<Code>(codes, static_cast<Code>(below), label_ends_.data(),
                                     static_cast<std::int64_t>(counts_.size()), counts_.data()));
    std::int64_t rows = 0;
    sums.start();
    for (std::size_t k = 0; k < counts_.size(); ++k) {
      rows += counts_[k];
      sums.set_left(samples[label_ends_[k] - 1].label, static_cast<Sum>(counts_[k]));
    }
    return rows;
  }
  template <class Code>
  std::int64_t weigh_classes(const Code* codes, std::span<const Sample> samples,
                             std::uint32_t below) {
    using Sum = typename Target::Sum;
    std::vector<Sum>& running = running_sums<Sum>();
    if (running.size() < samples.size()) running.resize(samples.size());
    std::int64_t rows = 0;
    Sum weight = 0;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const int left = codes[i] <= below ? 1 : 0;
      rows += left;
      if constexpr (std::is_integral_v<Sum>) {
        weight += static_cast<Sum>(samples[i].weight) & -static_cast<Sum>(left);
      } else {
        weight += samples[i].weight * static_cast<Sum>(left);
      }
      running[i] = weight;
    }
    sums.start();
    Sum before = 0;
    for (const std::uint32_t end : label_ends_) {
      sums.set_left(samples[end - 1].label, running[end - 1] - before);
      before = running[end - 1];
    }
    return rows;
  }
  template <class Sum>
  [[nodiscard]] std::vector<Sum>& running_sums() {
    if constexpr (std::is_integral_v<Sum>) {
      return whole_running_;
    } else {
      return real_running_;
    }
  }

  template <class Code>
  void order(const Code* codes, std::span<const Sample> samples, std::uint32_t missing) {
    runs_.clear();
    if (ordered_.size() < samples.size()) ordered_.resize(samples.size());
    if (samples.size() <= few_rows) return by_insertion(codes, samples);
    if constexpr (sizeof(Code) == 1) {
      if constexpr (Target::joins) {
        if (samples.size() >= joined_rows()) return by_joining(codes, samples);
      }
      by_counting(codes, samples);
    } else {
      by_sorting(codes, samples, missing);
    }
  }

  /// From so many rows on, adding up all codes and classes is less than moving the rows.
  [[nodiscard]] std::size_t joined_rows() const noexcept {
    return 64 + 64 * static_cast<std::size_t>(outputs_);
  }

  void push_run(std::uint32_t code, std::size_t begin, std::size_t end) {
    runs_.push_back(
        {code, static_cast<std::uint32_t>(end), static_cast<std::uint32_t>(end - begin)});
  }

  template <class Code>
  void by_insertion(const Code* codes, std::span<const Sample> samples) {
    std::array<std::uint64_t, few_rows> keys;
    const std::size_t n = samples.size();
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t key = std::uint64_t{codes[i]} << 32 | i;
      std::size_t at = i;
      for (; at > 0 && keys[at - 1] > key; --at) keys[at] = keys[at - 1];
      keys[at] = key;
    }
    take_sorted(keys.data(), samples);
  }

  /// Samples and runs from sorted keys: code in the upper half, place in the lower.
  void take_sorted(const std::uint64_t* keys, std::span<const Sample> samples) {
    std::size_t begin = 0;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      ordered_[i] = samples[keys[i] & 0xffffffffu];
      if (i + 1 < samples.size() && keys[i + 1] >> 32 == keys[i] >> 32) continue;
      push_run(static_cast<std::uint32_t>(keys[i] >> 32), begin, i + 1);
      begin = i + 1;
    }
  }

  void by_sorting(const std::uint32_t* codes, std::span<const Sample> samples,
                  std::uint32_t largest) {
    keys_.clear();
    for (std::size_t i = 0; i < samples.size(); ++i)
      keys_.push_back(std::uint64_t{codes[i]} << 32 | i);
    if (samples.size() < sorted_rows) {
      std::sort(keys_.begin(), keys_.end());
    } else {
      radix_sort_upper(keys_, other_keys_, largest);
    }
    take_sorted(keys_.data(), samples);
  }

  /// Calls use(code) for the codes that occur, ascending.
  template <class Use>
  void for_each_code(const Use& use) const {
    for (std::size_t word = 0; word < 4; ++word) {
      for (std::uint64_t bits = present_[word]; bits != 0; bits &= bits - 1)
        use(64 * word + static_cast<std::size_t>(std::countr_zero(bits)));
    }
  }

  /// Four tables take turns: counting one code again and again would wait for the memory.
  void by_counting(const std::uint8_t* codes, std::span<const Sample> samples) {
    turns_ = {};
    const std::size_t n = samples.size();
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t code = codes[i];
      ++places_[4 * code + i % 4];
      turns_[4 * (i % 4) + (code >> 6)] |= std::uint64_t{1} << (code & 63);
    }
    for (std::size_t word = 0; word < 4; ++word)
      present_[word] = turns_[word] | turns_[4 + word] | turns_[8 + word] | turns_[12 + word];
    std::uint32_t begin = 0;
    for_each_code([&](std::size_t code) {
      const std::uint32_t first = begin;
      for (std::size_t turn = 4 * code; turn < 4 * code + 4; ++turn)
        begin += std::exchange(places_[turn], begin);
      runs_.push_back({static_cast<std::uint32_t>(code), begin, begin - first});
    });
    if (runs_.size() > 1) {
      for (std::size_t i = 0; i < n; ++i)
        ordered_[places_[4 * std::size_t{codes[i]} + i % 4]++] = samples[i];
    }
    for (const CodeRun& run : runs_)
      for (std::size_t turn = 0; turn < 4; ++turn) places_[4 * run.code + turn] = 0;
  }

  /// Rows of one code and class (or of one code) become one sample.
  void by_joining(const std::uint8_t* codes, std::span<const Sample> samples) {
    if constexpr (Target::counts) {
      using Weight = typename Target::Weight;
      const auto k = static_cast<std::size_t>(outputs_);
      std::vector<Weight>& cells = class_cells<Weight>();
      cells.assign(256 * k, Weight{0});
      for (std::size_t i = 0; i < samples.size(); ++i) {
        ++places_[4 * std::size_t{codes[i]} + i % 4];
        cells[codes[i] * k + samples[i].label] += samples[i].weight;
      }
      if (ordered_.size() < 256 * k) ordered_.resize(256 * k);
      take_cells([&](std::size_t code, std::size_t at) {
        for (std::size_t c = 0; c < k; ++c) {
          const Weight w = cells[code * k + c];
          ordered_[at] = {w, static_cast<std::uint32_t>(c)};
          at += w > 0 ? 1 : 0;
        }
        return at;
      });
    } else if constexpr (Target::joins) {
      if (joined_.empty()) joined_.resize(256);
      std::fill(joined_.begin(), joined_.end(), Sample{});
      for (std::size_t i = 0; i < samples.size(); ++i) {
        ++places_[4 * std::size_t{codes[i]} + i % 4];
        joined_[codes[i]].weight += samples[i].weight;
        joined_[codes[i]].weighted += samples[i].weighted;
      }
      take_cells([&](std::size_t code, std::size_t at) {
        ordered_[at] = joined_[code];
        return at + 1;
      });
    }
  }
  template <class Take>
  void take_cells(const Take& take) {
    std::size_t at = 0;
    for (std::size_t code = 0; code < 256; ++code) {
      std::uint32_t rows = 0;
      for (std::size_t turn = 4 * code; turn < 4 * code + 4; ++turn)
        rows += std::exchange(places_[turn], 0u);
      if (rows == 0) continue;
      at = take(code, at);
      runs_.push_back({static_cast<std::uint32_t>(code), static_cast<std::uint32_t>(at), rows});
    }
  }
  template <class Weight>
  [[nodiscard]] std::vector<Weight>& class_cells() {
    if constexpr (std::is_integral_v<Weight>) {
      return whole_cells_;
    } else {
      return real_cells_;
    }
  }

  std::int32_t outputs_;
  std::vector<Sample> ordered_;
  std::vector<CodeRun> runs_;
  std::array<std::uint32_t, 1024> places_{};  ///< (codes, 4), zeros between calls
  std::array<std::uint64_t, 16> turns_{};     ///< (turns, words)
  std::array<std::uint64_t, 4> present_{};    ///< a bit a code
  std::vector<Sample> joined_;
  std::vector<std::uint64_t> keys_, other_keys_;
  std::vector<std::uint32_t> whole_cells_;
  std::vector<double> real_cells_;
  bool alike_ = false;                     ///< all samples weigh 1, by random splits
  std::vector<std::uint32_t> label_ends_;  ///< of the node's samples, by random splits
  std::vector<std::uint32_t> counts_;      ///< (classes of the node) that go left
  std::vector<std::int64_t> whole_running_;
  std::vector<double> real_running_;
};

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_CART_SEARCH_HPP
