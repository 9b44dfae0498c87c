// SPDX-License-Identifier: Apache-2.0

/// \file
/// Features as bytes: what histogram trees are grown on.

#ifndef QUERN_TREE_BINNED_MATRIX_HPP
#define QUERN_TREE_BINNED_MATRIX_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Code of a missing value. Values have the codes 1 .. bins(f), so that one unsigned comparison
/// decides a split for either default direction: code < t, or code - 1 < t - 1 with wrap-around.
inline constexpr std::uint8_t missing_code = 0;

/// Cut points of every feature. Value x of feature f has the code 1 + #{cuts c of f: c <= x}; the
/// split "codes <= b go left" is the test x < cut(f, b).
///
/// Of a categorical feature the values are the categories that have codes of their own: code b is
/// category values[offsets[f] + b - 1]. The last code, bins(f), stands for all others, those that
/// were too rare and those that were never seen; no split can choose it.
struct Cuts {
  std::vector<std::int64_t> offsets = {0};  ///< (features + 1): f has [offsets[f], offsets[f + 1])
  std::vector<double> values;               ///< ascending within a feature, none is NaN
  std::vector<std::uint8_t> has_missing;    ///< (features): a missing value was seen
  std::vector<std::uint8_t> categorical;    ///< (features): 1 for categories; empty: all numeric

  [[nodiscard]] std::int32_t features() const noexcept {
    return static_cast<std::int32_t>(offsets.size()) - 1;
  }
  /// Number of value bins of feature \p f, in 1 .. 255; one more than there are cuts.
  [[nodiscard]] std::int32_t bins(std::int32_t f) const noexcept {
    const auto i = static_cast<std::size_t>(f);
    return static_cast<std::int32_t>(offsets[i + 1] - offsets[i]) + 1;
  }
  [[nodiscard]] bool is_categorical(std::int32_t f) const noexcept {
    return !categorical.empty() && categorical[static_cast<std::size_t>(f)] != 0;
  }
  /// The category of code \p b of categorical feature \p f, b in 1 .. bins(f) - 1.
  [[nodiscard]] std::uint32_t category(std::int32_t f, std::int32_t b) const noexcept {
    return static_cast<std::uint32_t>(cut(f, b));
  }
  /// Threshold between bins \p b and b + 1, b in 1 .. bins(f) - 1.
  [[nodiscard]] double cut(std::int32_t f, std::int32_t b) const noexcept {
    return values[static_cast<std::size_t>(offsets[static_cast<std::size_t>(f)] + b - 1)];
  }
};

/// How a group of features is stored for building histograms.
enum class BlockLayout : std::uint8_t {
  dense,   ///< row-major bytes, `stride` bytes a row
  sparse,  ///< a row's entries that differ from their feature's default code, as cell numbers
};

/// A group of features whose histogram fits the second-level cache. The histogram of a block has
/// `cells` cells: feature `features[j]` owns cells [cell_offsets[j], cell_offsets[j + 1]), one for
/// each code from 0 (missing) to its number of bins.
///
/// Features of which no row has two away from their default codes (the columns of a one-hot
/// encoding, say) may share a byte column of a dense block, a bundle: byte b > 0 of column c is
/// cell column_cells[c] + b, which tells the feature and its code; byte 0 is every feature's
/// default. A bundle's byte column counts all rows, so the defaults' cells follow from its total.
///
/// Features of few codes may share one too, a product: its byte is the sum of factors[j] times
/// their codes. It has a cell for every such byte, and from those follow the features' own cells,
/// which come after the cells of all byte columns.
struct FeatureBlock {
  BlockLayout layout = BlockLayout::dense;
  std::vector<std::int32_t> features;       ///< original column numbers
  std::vector<std::int32_t> cell_offsets;   ///< (features + 1)
  std::vector<std::uint8_t> default_codes;  ///< the code that is not stored, by feature: sparse
                                            ///< blocks and bundles
  std::vector<std::int32_t> column_of;      ///< dense: byte column of each feature, where some are
                                            ///< bundled; empty: a column each
  std::vector<std::int32_t> column_cells;   ///< where column_of is: first cell of each byte column
  std::vector<std::int32_t> factors;        ///< dense with products, by feature; 0: in none. Those
                                            ///< in one are last
  std::int32_t stride = 0;                  ///< dense: bytes a row, a multiple of 8 (padding is 0)
  core::Buffer<std::uint8_t> codes;         ///< dense: (rows, stride)
  core::Buffer<std::int64_t> row_offsets;   ///< sparse: (rows + 1)
  core::Buffer<std::uint16_t> entries;      ///< sparse: cell_offsets[j] + code, ascending in a row

  [[nodiscard]] std::int32_t cells() const noexcept { return cell_offsets.back(); }
  [[nodiscard]] std::int32_t size() const noexcept {
    return static_cast<std::int32_t>(features.size());
  }
  /// Dense: byte columns, and the first cell of each.
  [[nodiscard]] std::int32_t columns() const noexcept {
    return column_of.empty() ? size() : static_cast<std::int32_t>(column_cells.size());
  }
  [[nodiscard]] const std::int32_t* first_cells() const noexcept {
    return column_of.empty() ? cell_offsets.data() : column_cells.data();
  }
  /// Whether the \p j-th feature is in a product.
  [[nodiscard]] bool in_product(std::size_t j) const noexcept {
    return !factors.empty() && factors[j] > 0;
  }
  /// End of the \p j-th feature's cells.
  [[nodiscard]] std::int32_t cells_end(std::size_t j) const noexcept {
    const bool last = j + 1 < features.size() && in_product(j + 1) && !in_product(j);
    return last ? column_cells[static_cast<std::size_t>(column_of[j + 1])] : cell_offsets[j + 1];
  }
  /// Whether the \p j-th feature is in a bundle or product. Features that share follow each other.
  [[nodiscard]] bool shares_column(std::size_t j) const noexcept {
    if (column_of.empty()) return false;
    return (j > 0 && column_of[j - 1] == column_of[j]) ||
           (j + 1 < column_of.size() && column_of[j + 1] == column_of[j]);
  }
};

/// The bytes that tell one feature's code, a row after the other: byte b is code b - shift, and
/// where that is none of the feature's (shared columns only: 0, or another feature's), the default.
struct CodeColumn {
  const std::uint8_t* codes = nullptr;
  std::int32_t shift = 0;
  std::int32_t end = 256;  ///< byte after the feature's last
  bool shared = false;
  std::uint8_t default_code = missing_code;
};

/// Codes of rows [begin, end), for every (dense) block of a matrix the first of its rows.
struct PageCodes {
  std::int64_t begin = 0, end = 0;
  const std::uint8_t* const* blocks = nullptr;
};

/// Rows that are kept elsewhere and come in pages, one at a time.
class RowPages {
 public:
  RowPages() = default;
  RowPages(const RowPages&) = delete;
  RowPages& operator=(const RowPages&) = delete;
  virtual ~RowPages() = default;

  /// Rows of each page but the last.
  [[nodiscard]] virtual std::int64_t page_rows() const = 0;
  /// Page \p page; what was loaded before is gone. Not for several threads at once.
  virtual PageCodes load(std::int64_t page) = 0;
};

/// A data set after binning: row-wise blocks to sum gradients over, columns to route rows by.
struct BinnedMatrix {
  std::int64_t rows = 0;
  Cuts cuts;
  std::vector<FeatureBlock> blocks;         ///< every feature with at least two codes in use, once
  core::Buffer<std::uint8_t> columns;       ///< (features, rows) codes; empty for very sparse input
  core::Buffer<std::uint8_t> byte_columns;  ///< very sparse input: the dense blocks' byte columns,
                                            ///< block after block, (columns, rows)
  std::shared_ptr<RowPages> pages;          ///< where the codes are, if not in memory: dense blocks
                                    ///< without bundles then have none, nor are there columns
  std::vector<std::int32_t> block_of;  ///< (features): index into blocks, -1 for a constant column
  std::vector<std::int32_t> place_in_block;  ///< (features): position in that block
  std::vector<std::uint8_t> constant_codes;  ///< (features): the only code of a constant column

  [[nodiscard]] std::int32_t features() const noexcept { return cuts.features(); }
  /// Codes of column \p f, or null when columns are not kept.
  [[nodiscard]] const std::uint8_t* column(std::int32_t f) const noexcept {
    return columns.size() == 0 ? nullptr : columns.data() + static_cast<std::int64_t>(f) * rows;
  }
  /// A column to route rows of feature \p f by, its own or a shared one; without codes where there
  /// is none (sparse blocks, constant features, columns that were not kept).
  [[nodiscard]] CodeColumn code_column(std::int32_t f) const noexcept {
    if (const std::uint8_t* own = column(f)) return {own};
    const auto i = static_cast<std::size_t>(f);
    if (block_of[i] < 0 || byte_columns.size() == 0) return {};
    const auto b = static_cast<std::size_t>(block_of[i]);
    const FeatureBlock& block = blocks[b];
    if (block.layout == BlockLayout::sparse) return {};
    const auto j = static_cast<std::size_t>(place_in_block[i]);
    std::int64_t at = block.column_of.empty() ? place_in_block[i] : block.column_of[j];
    for (std::size_t k = 0; k < b; ++k)
      if (blocks[k].layout == BlockLayout::dense) at += blocks[k].columns();
    CodeColumn result{byte_columns.data() + at * rows};
    if (!block.column_of.empty()) {
      const auto c = static_cast<std::size_t>(block.column_of[j]);
      result.shift = block.cell_offsets[j] - block.column_cells[c];
      result.end = block.cell_offsets[j + 1] - block.column_cells[c];
      result.shared = block.shares_column(j);
      result.default_code = block.default_codes[j];
    }
    return result;
  }
};

namespace detail {

/// Code of feature \p place of \p block in \p row of a sparse block: its entry, or the default.
inline std::uint8_t sparse_code(const FeatureBlock& block, std::int64_t row, std::int32_t place) {
  const auto j = static_cast<std::size_t>(place);
  const auto r = static_cast<std::size_t>(row);
  const std::uint16_t* const begin = block.entries.data() + block.row_offsets[r];
  const std::uint16_t* const end = block.entries.data() + block.row_offsets[r + 1];
  const std::int32_t first = block.cell_offsets[j];
  const std::uint16_t* const found = std::lower_bound(begin, end, first);
  const bool stored = found != end && *found < block.cell_offsets[j + 1];
  return stored ? static_cast<std::uint8_t>(*found - first) : block.default_codes[j];
}

/// The same for a dense block whose byte columns may be shared.
inline std::uint8_t bundled_code(const FeatureBlock& block, std::int64_t row, std::int32_t place) {
  const auto j = static_cast<std::size_t>(place);
  const std::int32_t c = block.column_of[j];
  const std::uint8_t byte = block.codes[static_cast<std::size_t>(row * block.stride + c)];
  if (!block.shares_column(j)) return byte;
  if (block.in_product(j))
    return static_cast<std::uint8_t>(byte / block.factors[j] %
                                     (block.cells_end(j) - block.cell_offsets[j]));
  const std::int32_t cell = block.column_cells[static_cast<std::size_t>(c)] + byte;
  const bool mine = byte != 0 && cell >= block.cell_offsets[j] && cell < block.cell_offsets[j + 1];
  return mine ? static_cast<std::uint8_t>(cell - block.cell_offsets[j]) : block.default_codes[j];
}

}  // namespace detail

/// Code of one value of a matrix in pages; \p row is in \p page.
[[nodiscard]] inline std::uint8_t code(const BinnedMatrix& m, const PageCodes& page,
                                       std::int64_t row, std::int32_t feature) {
  const auto f = static_cast<std::size_t>(feature);
  const auto b = static_cast<std::size_t>(m.block_of[f]);
  return page.blocks[b][(row - page.begin) * m.blocks[b].stride + m.place_in_block[f]];
}

/// Code of one value, from whatever layout holds it; \p row and \p feature are not checked. In a
/// sparse block this searches the row's entries.
[[nodiscard]] inline std::uint8_t code(const BinnedMatrix& m, std::int64_t row,
                                       std::int32_t feature) {
  if (const std::uint8_t* column = m.column(feature)) return column[row];
  const auto f = static_cast<std::size_t>(feature);
  if (m.block_of[f] < 0) return m.constant_codes[f];
  const FeatureBlock& block = m.blocks[static_cast<std::size_t>(m.block_of[f])];
  const std::int32_t place = m.place_in_block[f];
  if (block.layout == BlockLayout::sparse) return detail::sparse_code(block, row, place);
  if (!block.column_of.empty()) return detail::bundled_code(block, row, place);
  return block.codes[static_cast<std::size_t>(row * block.stride + place)];
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_BINNED_MATRIX_HPP
