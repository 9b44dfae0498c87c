// SPDX-License-Identifier: Apache-2.0

/// \file
/// What learners of trees are given: features where they lie, and what goes with the rows.

#ifndef QUERN_TREE_DATASET_HPP
#define QUERN_TREE_DATASET_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Compressed sparse rows, not owned. What is not stored is missing, as XGBoost has it.
template <class T>
struct CsrView {
  std::span<const std::int64_t> row_offsets;  ///< (rows + 1)
  std::span<const std::int32_t> columns;      ///< ascending within a row
  std::span<const T> values;
  std::int64_t cols = 0;

  [[nodiscard]] std::int64_t rows() const noexcept {
    return row_offsets.empty() ? 0 : static_cast<std::int64_t>(row_offsets.size()) - 1;
  }
};

enum class FeatureKind : std::uint8_t { numeric, categorical };

/// The features, where the caller has them (dense in either order, or CSR; float or double).
using FeatureView = std::variant<MatrixView<const float>, MatrixView<const double>,
                                 CsrView<float>, CsrView<double>>;

/// Features (a view: the caller keeps them alive) and the rows' own data (copied). NaN is missing.
struct Dataset {
  FeatureView features;
  std::vector<float> labels;                   ///< (rows), may be empty for prediction
  std::vector<float> weights;                  ///< (rows) >= 0, or empty: all one
  std::vector<float> base_margin;              ///< (rows * outputs), row-major, or empty
  std::vector<std::int64_t> group_offsets;     ///< ranking: (groups + 1), or empty
  std::vector<std::string> feature_names;      ///< (cols), or empty
  std::vector<FeatureKind> feature_kinds;      ///< (cols), or empty: all numeric
  std::vector<std::vector<std::string>> categories;  ///< (cols): text of each code, or empty

  [[nodiscard]] std::int64_t rows() const;
  [[nodiscard]] std::int64_t cols() const;
  /// Throws ShapeError or ValueError where a field does not fit the features: lengths, negative or
  /// non-finite weights, non-finite labels or margins, groups that do not add up, CSR out of order.
  void check(const std::string& function) const;
};

namespace detail {

template <class T>
std::int64_t rows_of(const MatrixView<T>& m) {
  return m.extent(0);
}
template <class T>
std::int64_t rows_of(const CsrView<T>& m) {
  return m.rows();
}
template <class T>
std::int64_t cols_of(const MatrixView<T>& m) {
  return m.extent(1);
}
template <class T>
std::int64_t cols_of(const CsrView<T>& m) {
  return m.cols;
}

}  // namespace detail

inline std::int64_t Dataset::rows() const {
  return std::visit([](const auto& m) { return detail::rows_of(m); }, features);
}

inline std::int64_t Dataset::cols() const {
  return std::visit([](const auto& m) { return detail::cols_of(m); }, features);
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DATASET_HPP
