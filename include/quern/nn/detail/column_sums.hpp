// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sums of columns over many rows, for gradients of biases and statistics of channels.

#ifndef QUERN_NN_DETAIL_COLUMN_SUMS_HPP
#define QUERN_NN_DETAIL_COLUMN_SUMS_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"

#include <cstddef>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// sums[j] += sum of column j of x. Blocks of rows follow from the shape alone, and are added in
/// double and in order.
template <class T>
void add_column_sums(MatrixView<const T> x, std::span<T> sums, int threads) {
  constexpr Index rows = 2048;
  const std::size_t cols = sums.size();
  const Index blocks = block_count(x.rows(), rows);
  std::vector<T> parts(static_cast<std::size_t>(blocks) * cols);
  parallel_for(
      blocks,
      [&](Index block) {
        const BlockRange range = block_range(x.rows(), rows, block);
        QUERN_DISPATCH(column_sums(static_cast<std::size_t>(range.size()), cols,
                                   x.row_data(range.begin), x.row_stride(),
                                   parts.data() + static_cast<std::size_t>(block) * cols));
      },
      threads);
  for (std::size_t j = 0; j < cols; ++j) {
    double total = 0;
    for (std::size_t at = j; at < parts.size(); at += cols) total += static_cast<double>(parts[at]);
    sums[j] += static_cast<T>(total);
  }
}

}  // namespace detail
}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_DETAIL_COLUMN_SUMS_HPP
