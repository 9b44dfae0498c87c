// SPDX-License-Identifier: Apache-2.0

/// \file
/// Single values of a data set, and the leaves that its rows reach, one by one.

#ifndef QUERN_TREE_ROW_READER_HPP
#define QUERN_TREE_ROW_READER_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <variant>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Reads values as a model of the given input type compares them. Slow beside packed forests: for
/// the few rows and trees that training looks at one by one. The features' memory must stay.
class RowReader {
 public:
  RowReader(const FeatureView& features, InputType type) : features_(features), type_(type) {}

  /// Value of \p feature in \p row; 0 and \p missing where there is none.
  [[nodiscard]] double value(std::int64_t row, std::int32_t feature, bool& missing) const {
    return std::visit([&](const auto& x) { return read(x, row, feature, missing); }, features_);
  }

  /// The leaf of \p tree that \p row reaches.
  [[nodiscard]] std::int32_t leaf(const Tree& tree, std::int64_t row) const {
    std::int32_t i = 0;
    while (!tree.node(i).is_leaf()) {
      bool missing = false;
      const double x = value(row, tree.node(i).feature, missing);
      i = tree.next(tree.node(i), x, missing);
    }
    return i;
  }

  /// What leaf \p i of \p tree adds to the margin of \p row.
  [[nodiscard]] double leaf_value(const Tree& tree, std::int32_t i, std::int64_t row) const {
    return tree.leaf_value(
        i, [&](std::int32_t feature, bool& missing) { return value(row, feature, missing); });
  }

 private:
  template <class T>
  [[nodiscard]] double cast(T x, bool& missing) const {
    missing = is_nan_bits(x);
    if (missing) return 0;
    return type_ == InputType::float32 ? static_cast<double>(static_cast<float>(x))
                                       : static_cast<double>(x);
  }
  template <class T>
  [[nodiscard]] double read(const MatrixView<const T>& x, std::int64_t row, std::int32_t feature,
                            bool& missing) const {
    return cast(x(row, feature), missing);
  }
  template <class T>
  [[nodiscard]] double read(const CsrView<T>& x, std::int64_t row, std::int32_t feature,
                            bool& missing) const {
    const auto r = static_cast<std::size_t>(row);
    const auto begin = x.columns.begin() + static_cast<std::ptrdiff_t>(x.row_offsets[r]);
    const auto end = x.columns.begin() + static_cast<std::ptrdiff_t>(x.row_offsets[r + 1]);
    const auto found = std::lower_bound(begin, end, feature);
    missing = found == end || *found != feature;
    if (missing) return 0;
    return cast(x.values[static_cast<std::size_t>(found - x.columns.begin())], missing);
  }

  FeatureView features_;
  InputType type_;
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_ROW_READER_HPP
