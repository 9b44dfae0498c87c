// SPDX-License-Identifier: Apache-2.0

/// \file
/// Categories as codes: which ones get a code of their own, and the code of a value.

#ifndef QUERN_TREE_DETAIL_CATEGORIES_HPP
#define QUERN_TREE_DETAIL_CATEGORIES_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/float_key.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Categories that get a code of their own: 255 less the one that stands for all others.
inline constexpr std::size_t kept_categories = 254;
/// Categories are below 2^24, so that floats hold all of them.
inline constexpr std::uint32_t category_limit = 1u << 24;
/// Categories below this are looked up in a table.
inline constexpr std::uint32_t tabled_categories = 1u << 16;

/// How often each category of one column occurs.
class CategoryCounts {
 public:
  /// Throws ValueError unless \p x is an integer in [0, 2^24).
  template <class T>
  void add(T x, std::int64_t row, std::int64_t column) {
    const bool in_range = x >= T{0} && x < static_cast<T>(category_limit);
    const std::uint32_t c = in_range ? static_cast<std::uint32_t>(x) : 0;
    if (!in_range || static_cast<T>(c) != x)
      throw ValueError(error_text("quern::tree::make_cuts",
                                  "features (row " + std::to_string(row) + ", column " +
                                      std::to_string(column) + ", categorical)",
                                  "a category, an integer in 0..16777215", x));
    if (c >= tabled_categories) {
      ++rest_[c];
      return;
    }
    if (c >= table_.size()) table_.resize(c + 1, 0);
    ++table_[c];
  }

  /// The most frequent categories (the lower one where two are equally frequent), ascending.
  [[nodiscard]] std::vector<double> kept() const {
    std::vector<std::pair<std::int64_t, std::uint32_t>> all;  // (-count, category)
    for (std::uint32_t c = 0; c < table_.size(); ++c)
      if (table_[c] > 0) all.emplace_back(-table_[c], c);
    for (const auto& [c, count] : rest_) all.emplace_back(-count, c);
    if (all.size() > kept_categories) {
      std::sort(all.begin(), all.end());
      all.resize(kept_categories);
    }
    std::vector<double> categories;
    for (const auto& [count, c] : all) categories.push_back(static_cast<double>(c));
    std::sort(categories.begin(), categories.end());
    return categories;
  }

 private:
  std::vector<std::int64_t> table_;
  std::map<std::uint32_t, std::int64_t> rest_;
};

/// Calls add(x, row, column) for the values of categorical columns that are not missing.
template <class T, class Add>
void for_each_category(const MatrixView<const T>& m, const std::vector<std::int32_t>& columns,
                       const std::vector<std::uint8_t>&, int threads, const Add& add) {
  parallel_for(
      static_cast<std::int64_t>(columns.size()),
      [&](std::int64_t i) {
        const std::int64_t column = columns[static_cast<std::size_t>(i)];
        for (std::int64_t row = 0; row < m.rows(); ++row) {
          const T x = m(row, column);
          if (float_key(x) != kernels::missing_key<KeyOf<T>>) add(x, row, column);
        }
      },
      threads);
}
template <class T, class Add>
void for_each_category(const CsrView<T>& m, const std::vector<std::int32_t>&,
                       const std::vector<std::uint8_t>& categorical, int, const Add& add) {
  for (std::int64_t row = 0; row < m.rows(); ++row) {
    const auto begin = static_cast<std::size_t>(m.row_offsets[static_cast<std::size_t>(row)]);
    const auto end = static_cast<std::size_t>(m.row_offsets[static_cast<std::size_t>(row) + 1]);
    for (std::size_t i = begin; i < end; ++i) {
      const std::int32_t column = m.columns[i];
      if (categorical[static_cast<std::size_t>(column)] == 0) continue;
      if (float_key(m.values[i]) != kernels::missing_key<KeyOf<T>>) add(m.values[i], row, column);
    }
  }
}

/// Replaces the cuts of categorical features by their categories. Rows of weight 0 do not count.
template <class Features>
void set_categories(const Features& m, const std::vector<FeatureKind>& kinds,
                    const std::vector<float>& weights, int threads, Cuts& cuts) {
  std::vector<std::int32_t> columns;
  for (std::size_t f = 0; f < kinds.size(); ++f)
    if (kinds[f] == FeatureKind::categorical) columns.push_back(static_cast<std::int32_t>(f));
  if (columns.empty()) return;
  cuts.categorical.assign(kinds.size(), 0);
  for (const std::int32_t f : columns) cuts.categorical[static_cast<std::size_t>(f)] = 1;
  std::vector<CategoryCounts> counts(kinds.size());
  for_each_category(m, columns, cuts.categorical, threads,
                    [&](auto x, std::int64_t row, std::int64_t column) {
                      if (weights.empty() || weights[static_cast<std::size_t>(row)] > 0)
                        counts[static_cast<std::size_t>(column)].add(x, row, column);
                    });
  Cuts replaced;
  for (std::size_t f = 0; f < kinds.size(); ++f) {
    if (cuts.categorical[f] != 0) {
      const std::vector<double> kept = counts[f].kept();
      replaced.values.insert(replaced.values.end(), kept.begin(), kept.end());
    } else {
      replaced.values.insert(replaced.values.end(), cuts.values.begin() + cuts.offsets[f],
                             cuts.values.begin() + cuts.offsets[f + 1]);
    }
    replaced.offsets.push_back(static_cast<std::int64_t>(replaced.values.size()));
  }
  cuts.values = std::move(replaced.values);
  cuts.offsets = std::move(replaced.offsets);
}

/// Codes of one categorical feature.
class CategoryTable {
 public:
  CategoryTable() = default;
  CategoryTable(const Cuts& cuts, std::int32_t f)
      : other_(static_cast<std::uint8_t>(cuts.bins(f))) {
    for (std::int32_t b = 1; b < cuts.bins(f); ++b) {
      const std::uint32_t c = cuts.category(f, b);
      kept_.push_back(c);
      if (c >= tabled_categories) continue;
      if (c >= table_.size()) table_.resize(c + 1, other_);
      table_[c] = static_cast<std::uint8_t>(b);
    }
  }

  /// Code of a value that is not missing. As Tree::next reads it: a fractional one counts as its
  /// integer part, a negative one is in no set.
  template <class T>
  [[nodiscard]] std::uint8_t code(T x) const {
    if (!(x >= T{0} && x < static_cast<T>(category_limit))) return other_;
    const auto c = static_cast<std::uint32_t>(x);
    if (c < table_.size()) return table_[c];
    const auto at = std::lower_bound(kept_.begin(), kept_.end(), c);
    return at != kept_.end() && *at == c ? static_cast<std::uint8_t>(1 + (at - kept_.begin()))
                                         : other_;
  }

 private:
  std::uint8_t other_ = missing_code;
  std::vector<std::uint8_t> table_;
  std::vector<std::uint32_t> kept_;
};

/// A table for each categorical feature; none where there are no such features.
inline std::vector<CategoryTable> category_tables(const Cuts& cuts) {
  std::vector<CategoryTable> tables;
  if (cuts.categorical.empty()) return tables;
  for (std::int32_t f = 0; f < cuts.features(); ++f)
    tables.push_back(cuts.is_categorical(f) ? CategoryTable(cuts, f) : CategoryTable());
  return tables;
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_CATEGORIES_HPP
