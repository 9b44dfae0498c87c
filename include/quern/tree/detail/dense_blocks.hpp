// SPDX-License-Identifier: Apache-2.0

/// \file
/// Dense blocks of features: byte columns, which features share one, and where their cells are.

#ifndef QUERN_TREE_DETAIL_DENSE_BLOCKS_HPP
#define QUERN_TREE_DETAIL_DENSE_BLOCKS_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/detail/feature_bundles.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Most byte columns of a dense block: 64 histograms of 256 cells of 8 bytes are 128 KiB.
inline constexpr std::int32_t dense_block_columns = 64;

inline std::int32_t block_cells(const Cuts& cuts, std::int32_t feature) {
  return cuts.bins(feature) + 1;
}

/// Bytes of a row of a dense block: rows do not straddle cache lines more than they must.
inline std::int32_t dense_stride(std::int32_t features) {
  if (features <= 8) return 8;
  if (features <= 16) return 16;
  return (std::max)(32, (features + 7) / 8 * 8);
}

/// From so many rows on, time with a few more cells in every node's histogram is won back.
inline constexpr std::int64_t even_cells_rows = std::int64_t{1} << 17;

/// Gives every byte column 256 cells, where most of them are in use or rows are many: the
/// histogram's loop is quicker where it need not look up where a column's cells begin.
inline void even_out_cells(FeatureBlock& block, std::int64_t rows) {
  const auto columns = static_cast<std::int32_t>(block.columns());
  std::int32_t end = block.cells();  // of the columns' cells
  for (std::size_t j = block.features.size(); j-- > 0 && block.in_product(j);)
    end = block.cell_offsets[j];
  if (rows < even_cells_rows && end < columns * 192) return;
  std::int32_t column = -1, shift = 0;
  for (std::size_t j = 0; j < block.features.size(); ++j) {
    const std::int32_t of_j =
        block.column_of.empty() ? static_cast<std::int32_t>(j) : block.column_of[j];
    if (of_j != column) shift = of_j * 256 - block.cell_offsets[j];
    column = of_j;
    block.cell_offsets[j] += block.in_product(j) ? columns * 256 - end : shift;
  }
  block.cell_offsets.back() += columns * 256 - end;
  for (std::size_t c = 0; c < block.column_cells.size(); ++c)
    block.column_cells[c] = static_cast<std::int32_t>(c) * 256;
}

/// A byte column of a dense block: a feature, a bundle of several or the product of several.
struct DenseColumn {
  std::vector<std::int32_t> features;
  double density = 0;
  bool product = false;

  [[nodiscard]] std::int32_t cells(const Cuts& cuts) const {
    std::int32_t sum = 0, all = 1;
    for (const std::int32_t f : features) {
      sum += block_cells(cuts, f);
      all *= product ? block_cells(cuts, f) : 1;
    }
    return product ? all : sum;
  }
};

/// \p columns: products last.
inline FeatureBlock make_dense_block(const Cuts& cuts, const std::vector<ColumnProfile>& profiles,
                                     const std::vector<DenseColumn>& columns, std::int64_t rows) {
  FeatureBlock block;
  std::int32_t cells = 0, after = 0;  // next cell of columns, of products' features
  for (const DenseColumn& column : columns) after += column.cells(cuts);
  bool shared = false;
  const bool products = !columns.empty() && columns.back().product;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    block.column_cells.push_back(cells);
    shared |= columns[c].features.size() > 1;
    std::int32_t next = cells, factor = 1;
    for (const std::int32_t f : columns[c].features) {
      const std::int32_t own = block_cells(cuts, f);
      block.features.push_back(f);
      block.column_of.push_back(static_cast<std::int32_t>(c));
      block.cell_offsets.push_back(columns[c].product ? after : next);
      (columns[c].product ? after : next) += own;
      if (products) block.factors.push_back(columns[c].product ? factor : 0);
      if (columns[c].product) factor *= own;
      block.default_codes.push_back(profiles[static_cast<std::size_t>(f)].default_code);
    }
    cells += columns[c].cells(cuts);
  }
  block.cell_offsets.push_back(after);
  block.stride = dense_stride(static_cast<std::int32_t>(columns.size()));
  if (!shared) {
    block.column_of.clear();
    block.column_cells.clear();
    block.default_codes.clear();
  }
  even_out_cells(block, rows);
  return block;
}

/// Dense columns shared out over blocks, those that many rows are in first.
inline void plan_dense_blocks(const Cuts& cuts, const std::vector<ColumnProfile>& profiles,
                              std::vector<DenseColumn> columns, std::int64_t rows,
                              std::vector<FeatureBlock>& blocks) {
  const auto first = [](const DenseColumn& a, const DenseColumn& b) {
    if (a.product != b.product) return b.product;
    return a.features.front() < b.features.front();
  };
  const auto total = static_cast<std::int64_t>(columns.size());
  const std::int64_t count = block_count(total, dense_block_columns);
  std::sort(columns.begin(), columns.end(), first);
  if (count > 1)
    std::stable_sort(
        columns.begin(), columns.end(),
        [](const DenseColumn& a, const DenseColumn& b) { return a.density > b.density; });
  for (std::int64_t b = 0; b < count; ++b) {
    std::vector<DenseColumn> part(columns.begin() + total * b / count,
                                  columns.begin() + total * (b + 1) / count);
    std::sort(part.begin(), part.end(), first);
    blocks.push_back(make_dense_block(cuts, profiles, part, rows));
  }
}

/// From so many rows on, what a row saves in a shared column outweighs taking every node's cells
/// apart.
inline constexpr std::int64_t product_rows = std::int64_t{1} << 16;

/// Puts features of few codes together, those of the fewest first, as long as a byte tells all.
inline void make_products(const Cuts& cuts, std::vector<DenseColumn>& columns) {
  const auto few = [&](const DenseColumn& c) {
    return c.features.size() == 1 && 2 * c.cells(cuts) <= 256;
  };
  const auto begin = std::stable_partition(columns.begin(), columns.end(),
                                           [&](const DenseColumn& c) { return !few(c); });
  std::vector<DenseColumn> left(begin, columns.end());
  columns.erase(begin, columns.end());
  std::stable_sort(left.begin(), left.end(), [&](const DenseColumn& a, const DenseColumn& b) {
    return a.cells(cuts) < b.cells(cuts);
  });
  for (std::size_t i = 0; i < left.size();) {
    DenseColumn together = std::move(left[i++]);
    std::int32_t cells = together.cells(cuts);
    for (; i < left.size() && cells * left[i].cells(cuts) <= 256; ++i) {
      cells *= left[i].cells(cuts);
      together.features.push_back(left[i].features.front());
      together.density = (std::max)(together.density, left[i].density);
      together.product = true;
    }
    std::sort(together.features.begin(), together.features.end());
    columns.push_back(std::move(together));
  }
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_DENSE_BLOCKS_HPP
