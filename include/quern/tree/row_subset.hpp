// SPDX-License-Identifier: Apache-2.0

/// \file
/// Data sets of some of another one's rows, in memory of their own.

#ifndef QUERN_TREE_ROW_SUBSET_HPP
#define QUERN_TREE_ROW_SUBSET_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/tree/dataset.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Rows of a data set and what goes with them, in the order asked for. Copies share the features.
class RowSubset {
 public:
  /// \p rows: numbers of rows, ascending where \p from has groups, whose members must then all be
  /// there or none of them. ValueError for a row that \p from does not have, ShapeError for a part
  /// of a group.
  RowSubset(const Dataset& from, std::span<const std::int32_t> rows) {
    for (const std::int32_t row : rows) {
      if (row >= 0 && row < from.rows()) continue;
      throw ValueError(error_text("quern::tree::RowSubset", "rows",
                                  "0.." + std::to_string(from.rows() - 1), row));
    }
    std::visit([&](const auto& x) { gather(x, rows); }, from.features);
    data_.labels = picked(from.labels, rows, from.rows());
    data_.weights = picked(from.weights, rows, from.rows());
    data_.base_margin = picked(from.base_margin, rows, from.rows());
    data_.label_lower_bound = picked(from.label_lower_bound, rows, from.rows());
    data_.label_upper_bound = picked(from.label_upper_bound, rows, from.rows());
    data_.feature_names = from.feature_names;
    data_.feature_kinds = from.feature_kinds;
    data_.categories = from.categories;
    pick_groups(from, rows);
  }

  [[nodiscard]] const Dataset& data() const noexcept { return data_; }

 private:
  template <class T>
  struct Sparse {
    std::vector<std::int64_t> row_offsets = {0};
    std::vector<std::int32_t> columns;
    std::vector<T> values;
  };

  /// Entries of the rows; a vector holds none, or as many for each row.
  static std::vector<float> picked(const std::vector<float>& from,
                                   std::span<const std::int32_t> rows, std::int64_t all) {
    std::vector<float> out;
    if (from.empty() || all == 0) return out;
    const std::size_t width = from.size() / static_cast<std::size_t>(all);
    out.reserve(rows.size() * width);
    for (const std::int32_t row : rows) {
      const auto first =
          from.begin() + static_cast<std::ptrdiff_t>(row) * static_cast<std::ptrdiff_t>(width);
      out.insert(out.end(), first, first + static_cast<std::ptrdiff_t>(width));
    }
    return out;
  }

  template <class T>
  void gather(const MatrixView<const T>& x, std::span<const std::int32_t> rows) {
    const auto kept = std::make_shared<std::vector<T>>();
    const Index cols = x.cols();
    kept->reserve(rows.size() * static_cast<std::size_t>(cols));
    for (const std::int32_t row : rows) {
      for (Index c = 0; c < cols; ++c) kept->push_back(x(row, c));
    }
    data_.features = MatrixView<const T>(kept->data(), {static_cast<Index>(rows.size()), cols});
    memory_ = kept;
  }

  template <class T>
  void gather(const CsrView<T>& x, std::span<const std::int32_t> rows) {
    const auto kept = std::make_shared<Sparse<T>>();
    for (const std::int32_t row : rows) {
      const auto begin = x.row_offsets[static_cast<std::size_t>(row)];
      const auto end = x.row_offsets[static_cast<std::size_t>(row) + 1];
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        kept->columns.push_back(x.columns[i]);
        kept->values.push_back(x.values[i]);
      }
      kept->row_offsets.push_back(static_cast<std::int64_t>(kept->columns.size()));
    }
    data_.features = CsrView<T>{kept->row_offsets, kept->columns, kept->values, x.cols};
    memory_ = kept;
  }

  void pick_groups(const Dataset& from, std::span<const std::int32_t> rows) {
    if (from.group_offsets.empty()) return;
    data_.group_offsets.push_back(0);
    std::size_t at = 0;
    for (std::size_t g = 0; g + 1 < from.group_offsets.size(); ++g) {
      const std::int64_t begin = from.group_offsets[g], end = from.group_offsets[g + 1];
      if (at >= rows.size() || rows[at] != begin || begin == end) continue;
      for (std::int64_t row = begin; row < end; ++row, ++at) {
        if (at < rows.size() && rows[at] == row) continue;
        throw ShapeError(error_text("quern::tree::RowSubset", "rows", "whole groups, ascending",
                                    "a part of group " + std::to_string(g)));
      }
      data_.group_offsets.push_back(static_cast<std::int64_t>(at));
    }
    if (at != rows.size())
      throw ShapeError(error_text("quern::tree::RowSubset", "rows", "whole groups, ascending",
                                  "row " + std::to_string(rows[at]) + " out of place"));
  }

  Dataset data_;
  std::shared_ptr<void> memory_;
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_ROW_SUBSET_HPP
