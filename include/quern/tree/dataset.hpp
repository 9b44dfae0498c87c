// SPDX-License-Identifier: Apache-2.0

/// \file
/// What learners of trees are given: features where they lie, and what goes with the rows. Data
/// sets on Eigen's matrices are made by make_dataset of tree/eigen_dataset.hpp.

#ifndef QUERN_TREE_DATASET_HPP
#define QUERN_TREE_DATASET_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
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
using FeatureView = std::variant<MatrixView<const float>, MatrixView<const double>, CsrView<float>,
                                 CsrView<double>>;

/// Features (a view: the caller keeps them alive) and the rows' own data (copied). NaN is missing.
struct Dataset {
  FeatureView features;
  std::vector<float> labels;                         ///< (rows), may be empty for prediction
  std::vector<float> weights;                        ///< (rows) >= 0, or empty: all one
  std::vector<float> base_margin;                    ///< (rows * outputs), row-major, or empty
  std::vector<std::int64_t> group_offsets;           ///< ranking: (groups + 1), or empty
  std::vector<std::string> feature_names;            ///< (cols), or empty
  std::vector<FeatureKind> feature_kinds;            ///< (cols), or empty: all numeric
  std::vector<std::vector<std::string>> categories;  ///< (cols): text of each code, or empty
  std::vector<float> label_lower_bound;  ///< survival:aft: (rows) times >= 0, or empty: the labels
  std::vector<float>
      label_upper_bound;  ///< (rows), infinite where the event was not seen, or empty

  [[nodiscard]] std::int64_t rows() const;
  [[nodiscard]] std::int64_t cols() const;
  /// Throws ShapeError or ValueError where a field does not fit the features: lengths, negative or
  /// non-finite weights, non-finite labels or margins, groups that do not add up, CSR out of order.
  void check(const std::string& function) const;
};

namespace detail {

/// The scalar of a view of features.
template <class View>
struct SourceValue;
template <class T>
struct SourceValue<MatrixView<const T>> {
  using type = T;
};
template <class T>
struct SourceValue<CsrView<T>> {
  using type = T;
};

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

namespace detail {

/// True unless \p x is NaN or infinite; a bit test, because -ffast-math deletes the others.
inline bool is_finite(float x) {
  return (std::bit_cast<std::uint32_t>(x) & 0x7f800000u) != 0x7f800000u;
}

/// Throws unless \p values is empty or has \p size entries.
template <class T>
void check_length(const std::string& function, const char* field, const std::vector<T>& values,
                  std::int64_t size) {
  const auto got = static_cast<std::int64_t>(values.size());
  if (got == 0 || got == size) return;
  throw ShapeError(error_text(function, field, "none or " + std::to_string(size), got));
}

/// Throws at the first value that is not finite, or negative where that is not allowed.
inline void check_finite(const std::string& function, const char* field,
                         const std::vector<float>& values, bool allow_negative) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (is_finite(values[i]) && (allow_negative || values[i] >= 0)) continue;
    throw ValueError(error_text(function, field + (" of row " + std::to_string(i)),
                                allow_negative ? "a finite number" : "a finite number >= 0",
                                values[i]));
  }
}

inline void check_groups(const std::string& function, const std::vector<std::int64_t>& offsets,
                         std::int64_t rows) {
  if (offsets.empty()) return;
  if (offsets.front() != 0)
    throw ShapeError(error_text(function, "group_offsets", "a first offset of 0", offsets.front()));
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] >= offsets[i - 1]) continue;
    throw ShapeError(
        error_text(function, "group_offsets", "ascending offsets",
                   std::to_string(offsets[i - 1]) + " before " + std::to_string(offsets[i])));
  }
  if (offsets.back() != rows)
    throw ShapeError(error_text(function, "group_offsets",
                                "a last offset of " + std::to_string(rows) + " (the rows)",
                                offsets.back()));
}

template <class T>
void check_features(const std::string&, const MatrixView<T>&) {}

/// Throws unless \p m is compressed sparse rows with strictly ascending columns in each row.
template <class T>
void check_features(const std::string& function, const CsrView<T>& m) {
  const auto stored = static_cast<std::int64_t>(m.values.size());
  if (m.cols < 0) throw ShapeError(error_text(function, "CSR columns", ">= 0", m.cols));
  if (static_cast<std::int64_t>(m.columns.size()) != stored)
    throw ShapeError(error_text(function, "CSR columns", std::to_string(stored) + " (the values)",
                                m.columns.size()));
  const std::int64_t last = m.row_offsets.empty() ? 0 : m.row_offsets.back();
  if (last != stored || (!m.row_offsets.empty() && m.row_offsets.front() != 0))
    throw ShapeError(error_text(function, "CSR row_offsets",
                                "0 first and " + std::to_string(stored) + " (the values) last",
                                last));
  for (std::int64_t row = 0; row < m.rows(); ++row) {
    const std::int64_t begin = m.row_offsets[static_cast<std::size_t>(row)];
    const std::int64_t end = m.row_offsets[static_cast<std::size_t>(row) + 1];
    const auto where = [row] { return "CSR row " + std::to_string(row); };
    if (begin > end || end > stored)
      throw ShapeError(error_text(function, where(), "ascending offsets within the values", end));
    std::int64_t before = -1;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t column = m.columns[static_cast<std::size_t>(i)];
      if (column <= before || column >= m.cols)
        throw ShapeError(error_text(
            function, where(), "ascending columns in 0.." + std::to_string(m.cols - 1), column));
      before = column;
    }
  }
}

/// Throws unless \p data has no base margins or one for each row and output.
inline void check_base_margin(const std::string& function, const std::string& field,
                              const Dataset& data, std::int64_t outputs) {
  const auto got = static_cast<std::int64_t>(data.base_margin.size());
  if (got == 0 || got == data.rows() * outputs) return;
  throw ShapeError(error_text(function, field,
                              std::to_string(data.rows() * outputs) + " values (" +
                                  std::to_string(data.rows()) + " rows x " +
                                  std::to_string(outputs) + " outputs) or none",
                              got));
}

inline void check_margin_length(const std::string& function, std::size_t size, std::int64_t rows) {
  const auto got = static_cast<std::int64_t>(size);
  if (got == 0 || (rows > 0 && got % rows == 0)) return;
  throw ShapeError(error_text(function, "base_margin",
                              "none or a multiple of " + std::to_string(rows) + " (the rows)",
                              got));
}

}  // namespace detail

inline void Dataset::check(const std::string& function) const {
  std::visit([&](const auto& m) { detail::check_features(function, m); }, features);
  detail::check_length(function, "labels", labels, rows());
  detail::check_length(function, "weights", weights, rows());
  detail::check_length(function, "label_lower_bound", label_lower_bound, rows());
  detail::check_length(function, "label_upper_bound", label_upper_bound, rows());
  detail::check_margin_length(function, base_margin.size(), rows());
  detail::check_length(function, "feature_names", feature_names, cols());
  detail::check_length(function, "feature_kinds", feature_kinds, cols());
  detail::check_length(function, "categories", categories, cols());
  detail::check_finite(function, "label", labels, true);
  detail::check_finite(function, "label_lower_bound", label_lower_bound, false);
  detail::check_finite(function, "weight", weights, false);
  detail::check_finite(function, "base_margin", base_margin, true);
  detail::check_groups(function, group_offsets, rows());
}

namespace detail {

template <class Features>
Dataset dataset_of(Features features, std::vector<float> labels) {
  Dataset data;
  data.features = std::move(features);
  data.labels = std::move(labels);
  return data;
}

}  // namespace detail

/// A data set on features that lie in a view or in CSR; the caller keeps them alive.
template <class T>
[[nodiscard]] Dataset make_dataset(MatrixView<const T> features, std::vector<float> labels = {}) {
  return detail::dataset_of(features, std::move(labels));
}
template <class T>
[[nodiscard]] Dataset make_dataset(MatrixView<T> features, std::vector<float> labels = {}) {
  return detail::dataset_of(MatrixView<const T>(features), std::move(labels));
}
template <class T>
[[nodiscard]] Dataset make_dataset(CsrView<T> features, std::vector<float> labels = {}) {
  return detail::dataset_of(features, std::move(labels));
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DATASET_HPP
