// SPDX-License-Identifier: Apache-2.0

/// \file
/// Features as columns of values in ascending order: what exact greedy trees are grown on.

#ifndef QUERN_TREE_SORTED_COLUMNS_HPP
#define QUERN_TREE_SORTED_COLUMNS_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/detail/key_tiles.hpp"
#include "quern/tree/float_key.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// One feature without its missing rows, by value, then by row.
struct SortedColumn {
  std::vector<double> values;
  std::vector<std::int32_t> rows;

  [[nodiscard]] std::size_t size() const noexcept { return rows.size(); }
};

/// All features of a data set, sorted once. 12 bytes a value.
template <class = void>
class BasicSortedColumns {
 public:
  /// Throws ValueError, with row and column, for an infinite value.
  BasicSortedColumns(const FeatureView& features, int threads) {
    std::visit([&](const auto& x) { fill(x, threads); }, features);
  }

  [[nodiscard]] std::int64_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::int32_t features() const noexcept {
    return static_cast<std::int32_t>(columns_.size());
  }
  [[nodiscard]] const SortedColumn& column(std::int32_t f) const {
    return columns_[static_cast<std::size_t>(f)];
  }
  /// Whether feature \p f has missing values.
  [[nodiscard]] bool has_missing(std::int32_t f) const {
    return static_cast<std::int64_t>(column(f).size()) < rows_;
  }
  /// A number x > \p low with x <= \p high (which is larger): their middle, in the features' type.
  [[nodiscard]] double middle(double low, double high) const {
    double x = (low + high) / 2;
    if (is_float_)
      x = static_cast<double>((static_cast<float>(low) + static_cast<float>(high)) * 0.5f);
    return x > low && x <= high ? x : high;
  }
  /// A threshold beyond all values: \p last moved by more than its size up (\p sign 1) or down
  /// (-1).
  [[nodiscard]] double beyond(double last, int sign) const {
    const double x = last + sign * ((last < 0 ? -last : last) + 1e-6);
    return is_float_ ? static_cast<double>(static_cast<float>(x)) : x;
  }

 private:
  template <class Features>
  void fill(const Features& x, int threads) {
    using T = std::remove_const_t<std::remove_reference_t<decltype(value_of(x))>>;
    is_float_ = sizeof(T) == 4;
    rows_ = detail::rows_of(x);
    columns_.resize(static_cast<std::size_t>(detail::cols_of(x)));
    gather(x, threads);
    parallel_for(
        features(), [&](std::int64_t f) { sort(columns_[static_cast<std::size_t>(f)]); }, threads);
  }

  template <class T>
  static T value_of(const MatrixView<const T>&);
  template <class T>
  static T value_of(const CsrView<T>&);

  template <class T>
  void gather(const MatrixView<const T>& x, int threads) {
    parallel_for(
        features(),
        [&](std::int64_t f) {
          for (std::int64_t row = 0; row < rows_; ++row) add(x(row, f), row, f);
        },
        threads);
  }
  template <class T>
  void gather(const CsrView<T>& x, int) {
    for (std::int64_t row = 0; row < rows_; ++row) {
      const auto begin = static_cast<std::size_t>(x.row_offsets[static_cast<std::size_t>(row)]);
      const auto end = static_cast<std::size_t>(x.row_offsets[static_cast<std::size_t>(row) + 1]);
      for (std::size_t i = begin; i < end; ++i) add(x.values[i], row, x.columns[i]);
    }
  }

  template <class T>
  void add(T value, std::int64_t row, std::int64_t f) {
    const KeyOf<T> key = float_key(value);
    if (key == kernels::missing_key<KeyOf<T>>) return;
    if (key == infinity_key<KeyOf<T>> || key == -infinity_key<KeyOf<T>>)
      detail::throw_infinite("quern::tree::SortedColumns", row, f);
    SortedColumn& column = columns_[static_cast<std::size_t>(f)];
    column.values.push_back(static_cast<double>(value));
    column.rows.push_back(static_cast<std::int32_t>(row));
  }

  static void sort(SortedColumn& column) {
    std::vector<std::pair<double, std::int32_t>> pairs(column.size());
    for (std::size_t i = 0; i < pairs.size(); ++i) pairs[i] = {column.values[i], column.rows[i]};
    std::sort(pairs.begin(), pairs.end());
    for (std::size_t i = 0; i < pairs.size(); ++i)
      std::tie(column.values[i], column.rows[i]) = pairs[i];
  }

  std::int64_t rows_ = 0;
  bool is_float_ = true;
  std::vector<SortedColumn> columns_;
};
/// (A template, so that a program compiles it only where it uses it.)
using SortedColumns = BasicSortedColumns<>;

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_SORTED_COLUMNS_HPP
