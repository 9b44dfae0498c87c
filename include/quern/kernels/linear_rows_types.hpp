// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the kernels of linear models over rows are given (linear_rows-inl.hpp).

#ifndef QUERN_KERNELS_LINEAR_ROWS_TYPES_HPP
#define QUERN_KERNELS_LINEAR_ROWS_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>
#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Rows of a dense matrix; rows[i], or i where `rows` is null.
template <class T>
struct RowSet {
  const T* x = nullptr;
  std::ptrdiff_t stride = 0;           ///< elements from a row to the next
  const std::int64_t* rows = nullptr;  ///< null: 0, 1, …
  std::size_t count = 0;
  std::size_t columns = 0;

  [[nodiscard]] const T* row(std::size_t i) const {
    const std::ptrdiff_t at =
        rows == nullptr ? static_cast<std::ptrdiff_t>(i) : static_cast<std::ptrdiff_t>(rows[i]);
    return x + at * stride;
  }
  /// Rows first .. first + size - 1 of these.
  [[nodiscard]] RowSet part(std::size_t first, std::size_t size) const {
    RowSet out = *this;
    out.count = size;
    if (rows != nullptr) {
      out.rows = rows + first;
    } else {
      out.x = row(first);
    }
    return out;
  }
};

/// A pass of variance-reduced steps over rows. For row i, with s its derivative at x_i w and t the
/// one in the table: w <- (1 - step l2) w - step ((s - t) x_i + mean). SAGA then also puts s into
/// the table and adds share (s - t) x_i to the mean.
template <class T>
struct VarianceReducedPass {
  RowSet<T> rows;             ///< in the order of the steps
  const T* labels = nullptr;  ///< of all rows of the matrix, not of the order
  bool logistic = true;       ///< s = sigmoid(margin) - label, else margin - label
  bool saga = true;           ///< false: table and mean stay (SVRG)
  T step = T{0};
  T l2 = T{0};
  T share = T{0};  ///< 1 / rows of the matrix
  T* table = nullptr;
  T* mean = nullptr;
  T* w = nullptr;
};

/// Mini-batch descent over rows, `batch` of them an update: w <- (1 - step l2) w - step times the
/// mean over the batch of derivative times row. The last batch holds what is left.
template <class T>
struct BatchPass {
  static constexpr std::size_t max_batch = 1024;

  RowSet<T> rows;             ///< in their order
  const T* labels = nullptr;  ///< of all rows of the matrix, not of the order
  bool logistic = true;
  std::size_t batch = 1;     ///< 1 to max_batch
  const T* steps = nullptr;  ///< one an update
  T l2 = T{0};
  T* w = nullptr;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_LINEAR_ROWS_TYPES_HPP
