// SPDX-License-Identifier: Apache-2.0

/// \file
/// The features that CART trees grow on: every value replaced by its rank among the column's
/// distinct values. A byte holds it where no column has more than 256 of them, NaN included
/// (images, counts, categories, binned data), four bytes else. Splits between ranks are splits
/// between values, so nothing is lost.

#ifndef QUERN_TREE_CART_COLUMNS_HPP
#define QUERN_TREE_CART_COLUMNS_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/float_key.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Values of one code of a column, smallest and largest. They differ only in binned columns.
struct CodeValues {
  float low = 0;
  float high = 0;
};

/// See the file comment. Codes ascend with the values; missing_code(f), one above the last, is
/// NaN's.
template <class = void>
class BasicCartColumns {
 public:
  BasicCartColumns() = default;
  /// \p x: (rows, features), any strides, NaN is missing. \p max_bins: 0 keeps every distinct
  /// value; 2..255 joins neighbouring values into at most so many codes of about equally many rows.
  /// ShapeError for no rows or columns or too many, ValueError for infinity or max_bins.
  explicit BasicCartColumns(MatrixView<const float> x, std::int32_t max_bins = 0, int threads = 0);

  [[nodiscard]] std::int64_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::int32_t features() const noexcept { return features_; }
  [[nodiscard]] bool bytes() const noexcept { return wide_.size() == 0; }
  /// Column \p f of codes: std::uint8_t if bytes(), else std::uint32_t.
  template <class Code>
  [[nodiscard]] const Code* column(std::int32_t f) const noexcept {
    const auto at = static_cast<std::size_t>(f) * static_cast<std::size_t>(rows_);
    if constexpr (sizeof(Code) == 1) {
      return narrow_.data() + at;
    } else {
      return wide_.data() + at;
    }
  }
  /// The same codes row by row, for nodes with few rows; bytes() only.
  [[nodiscard]] const std::uint8_t* row(std::int64_t r) const noexcept {
    return by_row_.data() + static_cast<std::size_t>(r) * static_cast<std::size_t>(features_);
  }
  [[nodiscard]] std::uint32_t missing_code(std::int32_t f) const noexcept {
    const auto i = static_cast<std::size_t>(f);
    return static_cast<std::uint32_t>(offsets_[i + 1] - offsets_[i]);
  }
  [[nodiscard]] CodeValues values(std::int32_t f, std::uint32_t code) const noexcept {
    return values_[offsets_[static_cast<std::size_t>(f)] + code];
  }
  /// Where column \p f is cut between two codes: halfway between their values. What is <= goes
  /// left.
  [[nodiscard]] double cut(std::int32_t f, std::uint32_t below, std::uint32_t above) const {
    return static_cast<double>(values(f, below).high) / 2 +
           static_cast<double>(values(f, above).low) / 2;
  }
  /// The last code in [first, last] whose values are all <= x; first if none is. Sought outwards
  /// from \p guess, one of them, in steps that double.
  [[nodiscard]] std::uint32_t last_below(std::int32_t f, std::uint32_t first, std::uint32_t last,
                                         double x, std::uint32_t guess) const noexcept {
    const CodeValues* of = values_.data() + offsets_[static_cast<std::size_t>(f)];
    const auto is_below = [&](std::uint32_t code) {
      return static_cast<double>(of[code].high) <= x;
    };
    std::uint32_t step = 1;
    if (is_below(guess)) {
      for (first = guess; last - first >= step && is_below(first + step); step *= 2) first += step;
      if (last - first >= step) last = first + step - 1;
    } else {
      std::uint32_t above = guess;
      for (; above - first > step && !is_below(above - step); step *= 2) above -= step;
      if (above - first > step) first = above - step;
      last = above > first ? above - 1 : first;
    }
    while (first < last) {
      const std::uint32_t middle = first + (last - first + 1) / 2;
      (is_below(middle) ? first : last) = is_below(middle) ? middle : middle - 1;
    }
    return first;
  }
  /// Whether any value of column \p f is missing.
  [[nodiscard]] bool has_missing(std::int32_t f) const noexcept {
    return missing_[static_cast<std::size_t>(f)] != 0;
  }

 private:
  std::int64_t rows_ = 0;
  std::int32_t features_ = 0;
  core::Buffer<std::uint8_t> narrow_;  ///< (features, rows)
  core::Buffer<std::uint8_t> by_row_;  ///< (rows, features)
  core::Buffer<std::uint32_t> wide_;   ///< (features, rows)
  std::vector<std::size_t> offsets_;   ///< (features + 1): first value of each column
  std::vector<CodeValues> values_;
  std::vector<std::uint8_t> missing_;  ///< (features)
};
/// (A template, so that a program compiles it only where it uses it.)
using CartColumns = BasicCartColumns<>;

namespace detail {

/// Sorts 64-bit numbers by their upper halves, keeping the order of equal ones: eleven bits a pass.
inline void radix_sort_upper(std::vector<std::uint64_t>& values, std::vector<std::uint64_t>& other,
                             std::uint32_t largest_upper) {
  constexpr int bits = 11;
  other.resize(values.size());
  for (int shift = 32; shift < 64 && (largest_upper >> (shift - 32)) != 0; shift += bits) {
    std::vector<std::uint32_t> place((std::size_t{1} << bits) + 1, 0);
    const auto digit = [shift](std::uint64_t v) {
      return static_cast<std::size_t>(v >> shift) & ((std::size_t{1} << bits) - 1);
    };
    for (const std::uint64_t v : values) ++place[digit(v) + 1];
    for (std::size_t i = 1; i < place.size(); ++i) place[i] += place[i - 1];
    for (const std::uint64_t v : values) other[place[digit(v)]++] = v;
    values.swap(other);
  }
}

/// Codes of one column.
template <class = void>
class BasicColumnCoder {
 public:
  BasicColumnCoder(std::int64_t rows, std::int32_t max_bins)
      : max_bins_(max_bins), keys_(static_cast<std::size_t>(rows)) {}

  [[nodiscard]] std::vector<std::int32_t>& keys() noexcept { return keys_; }

  /// From keys(): fills codes (rows) and the values of the codes; NaN's code is their number.
  void run(std::uint32_t* codes) {
    values_.clear();
    counts_.clear();
    missing_ = false;
    if (!by_table(codes)) by_sorting(codes);
    if (max_bins_ > 0 && values_.size() > static_cast<std::size_t>(max_bins_)) join(codes);
  }

  [[nodiscard]] const std::vector<CodeValues>& values() const noexcept { return values_; }
  [[nodiscard]] bool missing() const noexcept { return missing_; }

 private:
  static constexpr std::int64_t table_size = std::int64_t{1} << 14;
  static constexpr std::int32_t not_there = (std::numeric_limits<std::int32_t>::min)();

  /// Whole numbers that are close together need no sorting.
  bool by_table(std::uint32_t* codes) {
    std::int32_t low = 0, high = 0;
    if (!find_whole(low, high) || std::int64_t{high} - low >= table_size) return false;
    table_.assign(static_cast<std::size_t>(high - low + 1), 0);
    for (const std::int32_t w : whole_) {
      if (w == not_there) continue;
      std::uint32_t& count = table_[static_cast<std::size_t>(w - low)];
      count = max_bins_ > 0 ? count + 1 : 1;  // counts are for join() alone
    }
    for (std::size_t i = 0; i < table_.size(); ++i) {
      if (table_[i] == 0) continue;
      const auto x = static_cast<float>(low + static_cast<std::int32_t>(i));
      counts_.push_back(table_[i]);
      table_[i] = static_cast<std::uint32_t>(values_.size());
      values_.push_back({x, x});
    }
    const auto none = static_cast<std::uint32_t>(values_.size());
    for (std::size_t r = 0; r < whole_.size(); ++r)
      codes[r] = whole_[r] == not_there ? none : table_[static_cast<std::size_t>(whole_[r] - low)];
    return true;
  }

  /// The keys as whole numbers, their range, and whether any is missing. False where one is none.
  bool find_whole(std::int32_t& low, std::int32_t& high) {
    whole_.resize(keys_.size());
    low = (std::numeric_limits<std::int32_t>::max)();
    high = not_there;
    for (std::size_t r = 0; r < keys_.size(); ++r) {
      whole_[r] = not_there;
      if (keys_[r] == kernels::missing_key<std::int32_t>) continue;
      const float x = float_of_key<float>(keys_[r]);
      if (!(x > -1e9f && x < 1e9f)) return false;
      const auto w = static_cast<std::int32_t>(x);
      if (static_cast<float>(w) != x) return false;
      whole_[r] = w;
      low = (std::min)(low, w);
      high = (std::max)(high, w);
    }
    if (high == not_there) low = high = 0;  // all are missing
    missing_ =
        std::find(keys_.begin(), keys_.end(), kernels::missing_key<std::int32_t>) != keys_.end();
    return true;
  }

  void by_sorting(std::uint32_t* codes) {
    missing_ = false;
    pairs_.clear();
    for (std::size_t r = 0; r < keys_.size(); ++r) {
      const auto order = static_cast<std::uint32_t>(keys_[r]) ^ 0x80000000u;  // NaN: the smallest
      pairs_.push_back(std::uint64_t{order} << 32 | r);
    }
    radix_sort_upper(pairs_, other_, 0xffffffffu);
    std::size_t i = 0;
    while (i < pairs_.size() && key_of(pairs_[i]) == kernels::missing_key<std::int32_t>) ++i;
    const std::size_t first = i;
    missing_ = first > 0;
    for (; i < pairs_.size(); ++i) {
      if (i == first || pairs_[i] >> 32 != pairs_[i - 1] >> 32) {
        const float x = float_of_key<float>(key_of(pairs_[i]));
        values_.push_back({x, x});
        counts_.push_back(0);
      }
      ++counts_.back();
      codes[pairs_[i] & 0xffffffffu] = static_cast<std::uint32_t>(values_.size() - 1);
    }
    for (i = 0; i < first; ++i)
      codes[pairs_[i] & 0xffffffffu] = static_cast<std::uint32_t>(values_.size());
  }

  [[nodiscard]] static std::int32_t key_of(std::uint64_t pair) noexcept {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(pair >> 32) ^ 0x80000000u);
  }

  /// Neighbours join until a code has its share of the rows.
  void join(std::uint32_t* codes) {
    std::uint64_t left = 0;
    for (const std::uint32_t count : counts_) left += count;
    std::vector<std::uint32_t> to(values_.size() + 1);
    std::vector<CodeValues> joined;
    std::uint64_t open = 0;  // rows of the last code
    auto free = static_cast<std::uint64_t>(max_bins_);
    for (std::size_t v = 0; v < values_.size(); ++v) {
      // The code is full, or a value follows that fills one alone.
      if (v == 0 || (open * free >= left && free > 1)) {
        if (v > 0) {
          left -= open;
          --free;
        }
        open = 0;
        joined.push_back(values_[v]);
      }
      open += counts_[v];
      joined.back().high = values_[v].high;
      to[v] = static_cast<std::uint32_t>(joined.size() - 1);
    }
    to.back() = static_cast<std::uint32_t>(joined.size());
    for (std::size_t r = 0; r < keys_.size(); ++r) codes[r] = to[codes[r]];
    values_ = std::move(joined);
  }

  std::int32_t max_bins_;
  bool missing_ = false;
  std::vector<std::int32_t> keys_;
  std::vector<std::int32_t> whole_;
  std::vector<std::uint32_t> table_;
  std::vector<std::uint64_t> pairs_;
  std::vector<std::uint64_t> other_;
  std::vector<CodeValues> values_;
  std::vector<std::uint32_t> counts_;
};
/// (A template, so that a program compiles it only where it uses it.)
using ColumnCoder = BasicColumnCoder<>;

/// Keys of neighbouring columns together, since rows may lie one after the other.
inline constexpr std::int32_t columns_together = 16;

inline void check_cart_input(MatrixView<const float> x, std::int32_t max_bins) {
  static constexpr const char* function = "quern::tree::CartColumns";
  if (x.rows() < 1 || x.rows() > (std::numeric_limits<std::int32_t>::max)())
    throw ShapeError(error_text(function, "x", "1..2^31-1 rows", x.rows()));
  if (x.cols() < 1 || x.cols() > (std::numeric_limits<std::int32_t>::max)() / 2)
    throw ShapeError(error_text(function, "x", "1..2^30-1 columns", x.cols()));
  if (max_bins != 0) expect_in_range(function, "max_bins (or 0)", max_bins, 2, 255);
}

/// The keys of a few columns; ValueError where one is infinite.
inline void read_keys(MatrixView<const float> x, std::int64_t first,
                      std::vector<ColumnCoder>& coders, std::size_t columns) {
  std::array<std::int32_t*, columns_together> to{};
  for (std::size_t c = 0; c < columns; ++c) to[c] = coders[c].keys().data();
  for (Index r = 0; r < x.rows(); ++r) {
    const float* from = &x(r, first);
    for (std::size_t c = 0; c < columns; ++c) {
      const std::int32_t key = float_key(from[static_cast<Index>(c) * x.col_stride()]);
      to[c][r] = key;
      if (key != infinity_key<std::int32_t> && key != -infinity_key<std::int32_t>) continue;
      throw ValueError(error_text(
          "quern::tree::CartColumns",
          "x(" + std::to_string(r) + ", " + std::to_string(first + static_cast<Index>(c)) + ")",
          "a finite number or NaN", "infinity"));
    }
  }
}

/// (rows, features) from (features, rows), in tiles.
inline void transpose_codes(const std::uint8_t* columns, std::int64_t rows, std::int64_t features,
                            std::uint8_t* by_row, int threads) {
  constexpr std::int64_t tile = 64;
  parallel_for(
      block_count(rows, tile),
      [&](std::int64_t b) {
        const BlockRange range = block_range(rows, tile, b);
        for (std::int64_t first = 0; first < features; first += tile) {
          const std::int64_t last = (std::min)(first + tile, features);
          for (std::int64_t r = range.begin; r < range.end; ++r) {
            for (std::int64_t f = first; f < last; ++f)
              by_row[r * features + f] = columns[f * rows + r];
          }
        }
      },
      threads);
}

}  // namespace detail

template <class Lazy>
BasicCartColumns<Lazy>::BasicCartColumns(MatrixView<const float> x, std::int32_t max_bins,
                                         int threads) {
  detail::check_cart_input(x, max_bins);
  rows_ = x.rows();
  features_ = static_cast<std::int32_t>(x.cols());
  const auto n = static_cast<std::size_t>(rows_);
  const auto m = static_cast<std::size_t>(features_);
  std::vector<std::vector<CodeValues>> values(m);
  missing_.assign(m, 0);
  narrow_.reset(n * m);
  bool fits = true;  // in bytes
  const auto in_bytes = [&](std::size_t f) { return values[f].size() + missing_[f] <= 256; };
  const auto code = [&](std::int64_t block, bool wide) {
    const std::int64_t first = block * detail::columns_together;
    const auto together = static_cast<std::size_t>(
        (std::min)(std::int64_t{detail::columns_together}, std::int64_t{features_} - first));
    std::vector<detail::ColumnCoder> coders(together, detail::ColumnCoder(rows_, max_bins));
    detail::read_keys(x, first, coders, together);
    std::vector<std::uint32_t> codes(n);
    for (std::size_t c = 0; c < together; ++c) {
      const std::size_t f = static_cast<std::size_t>(first) + c;
      coders[c].run(wide ? wide_.data() + f * n : codes.data());
      values[f] = coders[c].values();
      missing_[f] = coders[c].missing() ? 1 : 0;
      if (wide || !in_bytes(f)) continue;
      for (std::size_t r = 0; r < n; ++r)
        narrow_.data()[f * n + r] = static_cast<std::uint8_t>(codes[r]);
    }
  };
  const std::int64_t blocks = block_count(features_, detail::columns_together);
  parallel_for(
      blocks, [&](std::int64_t b) { code(b, false); }, threads);
  for (std::size_t f = 0; f < m; ++f) fits = fits && in_bytes(f);
  if (!fits) {
    narrow_ = core::Buffer<std::uint8_t>();
    wide_.reset(n * m);
    parallel_for(
        blocks, [&](std::int64_t b) { code(b, true); }, threads);
  } else {
    by_row_.reset(n * m);
    detail::transpose_codes(narrow_.data(), rows_, features_, by_row_.data(), threads);
  }
  offsets_.assign(m + 1, 0);
  for (std::size_t f = 0; f < m; ++f) {
    offsets_[f + 1] = offsets_[f] + values[f].size();
    values_.insert(values_.end(), values[f].begin(), values[f].end());
  }
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_CART_COLUMNS_HPP
