// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the readers of tables make: Table (dense, with categories) and SparseTable (CSR).

#ifndef QUERN_IO_TABLE_HPP
#define QUERN_IO_TABLE_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/tree/dataset.hpp"

#include <cstdint>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// What the columns of a table mean: made by reading training data, kept beside the model, and
/// given to the reader again for prediction, so that the same text gets the same code.
struct TableSchema {
  std::vector<std::string> feature_names;            ///< (cols), or empty: the file had no header
  std::vector<tree::FeatureKind> feature_kinds;      ///< (cols)
  std::vector<std::vector<std::string>> categories;  ///< (cols): text of each code; none if numeric
  std::string label_name;                            ///< empty without header or label
  std::vector<std::string> label_categories;         ///< text of each class; empty: numeric label

  [[nodiscard]] std::int64_t cols() const noexcept {
    return static_cast<std::int64_t>(feature_kinds.size());
  }
};

/// A table in memory. NaN is missing; a category is its code, 0 … as in the schema.
template <class T = float>
struct Table {
  NdArray<T, 2> features;  ///< (rows, cols)
  std::vector<T> labels;   ///< (rows), or empty
  std::vector<T> weights;  ///< (rows), or empty
  TableSchema schema;
  /// Cells whose text the given schema's dictionary does not have; they were read as missing.
  std::int64_t unseen_categories = 0;

  [[nodiscard]] std::int64_t rows() const { return features.extent(0); }
  [[nodiscard]] std::int64_t cols() const { return features.extent(1); }
};

/// Rows that store only some columns (CSR). What is not stored is up to the learner: missing for
/// trees, zero for linear models.
template <class T = float>
struct SparseTable {
  std::vector<std::int64_t> row_offsets{0};  ///< (rows + 1)
  std::vector<std::int32_t> columns;         ///< from 0, ascending within a row
  std::vector<T> values;                     ///< one for each of columns
  std::vector<T> labels;                     ///< (rows)
  std::vector<T> weights;                    ///< (rows), or empty: none was given
  std::vector<std::int64_t> group_offsets;   ///< ranking: (groups + 1), or empty
  std::int64_t cols = 0;
  int index_base = 0;  ///< what the file counts columns from: 0 or 1

  [[nodiscard]] std::int64_t rows() const noexcept {
    return static_cast<std::int64_t>(row_offsets.size()) - 1;
  }
};

/// What tree learners take. The result looks at the table's features: keep the table.
template <class T>
[[nodiscard]] tree::Dataset dataset(const Table<T>& table) {
  tree::Dataset data;
  data.features = MatrixView<const T>(table.features.view());
  data.labels.assign(table.labels.begin(), table.labels.end());
  data.weights.assign(table.weights.begin(), table.weights.end());
  data.feature_names = table.schema.feature_names;
  data.feature_kinds = table.schema.feature_kinds;
  data.categories = table.schema.categories;
  return data;
}
template <class T>
[[nodiscard]] tree::Dataset dataset(const SparseTable<T>& table) {
  tree::Dataset data;
  data.features = tree::CsrView<T>{table.row_offsets, table.columns, table.values, table.cols};
  data.labels.assign(table.labels.begin(), table.labels.end());
  data.weights.assign(table.weights.begin(), table.weights.end());
  data.group_offsets = table.group_offsets;
  return data;
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_TABLE_HPP
