// SPDX-License-Identifier: Apache-2.0

/// \file
/// Some rows of any features as a dense copy, to be changed and predicted.

#ifndef QUERN_TREE_DETAIL_COPY_ROWS_HPP
#define QUERN_TREE_DETAIL_COPY_ROWS_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/dataset.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Writes (rows, columns) row-major; what CSR does not store is missing.
template <class T>
void copy_rows(const MatrixView<const T>& x, BlockRange rows, T* out) {
  for (std::int64_t r = rows.begin; r < rows.end; ++r)
    for (Index f = 0; f < x.cols(); ++f) *out++ = x(r, f);
}
template <class T>
void copy_rows(const tree::CsrView<T>& x, BlockRange rows, T* out) {
  std::fill_n(out, rows.size() * x.cols, std::numeric_limits<T>::quiet_NaN());
  for (std::int64_t r = rows.begin; r < rows.end; ++r, out += x.cols) {
    const std::int64_t end = x.row_offsets[static_cast<std::size_t>(r) + 1];
    for (std::int64_t i = x.row_offsets[static_cast<std::size_t>(r)]; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      out[x.columns[at]] = x.values[at];
    }
  }
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_COPY_ROWS_HPP
