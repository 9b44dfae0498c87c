// SPDX-License-Identifier: Apache-2.0

/// \file
/// Codes of all features under given cuts.

#ifndef QUERN_TREE_DETAIL_BIN_CODES_HPP
#define QUERN_TREE_DETAIL_BIN_CODES_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/detail/categories.hpp"
#include "quern/tree/detail/feature_blocks.hpp"
#include "quern/tree/detail/key_tiles.hpp"
#include "quern/tree/float_key.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Rows of a task: enough that building the tables of its features costs nothing beside them.
inline constexpr std::int64_t code_rows = 64 * tile_rows;

/// Share of stored values below which CSR input gets no columns.
inline constexpr double column_density = 0.25;

/// The cuts as keys of values of type T.
template <class T>
std::vector<KeyOf<T>> cut_keys(const Cuts& cuts) {
  std::vector<KeyOf<T>> keys(cuts.values.size());
  std::transform(cuts.values.begin(), cuts.values.end(), keys.begin(), cut_key<T>);
  return keys;
}

/// Scratch of one worker: tables and keys of a group of features.
template <class T>
class DenseCoder {
 public:
  using Key = KeyOf<T>;

  void run(const MatrixView<const T>& m, const std::vector<Key>& cuts,
           const std::vector<CategoryTable>& categories, BlockRange rows, BlockRange features,
           BinnedMatrix& out) {
    keys_.reset(static_cast<std::size_t>(features.size() * tile_stride));
    tables_.resize(static_cast<std::size_t>(features.size()));
    for (std::int64_t f = features.begin; f < features.end; ++f)
      tables_[static_cast<std::size_t>(f - features.begin)].build(
          cuts.data() + out.cuts.offsets[static_cast<std::size_t>(f)],
          out.cuts.bins(static_cast<std::int32_t>(f)) - 1);
    for (std::int64_t begin = rows.begin; begin < rows.end; begin += tile_rows)
      tile(m, categories, {begin, (std::min)(begin + tile_rows, rows.end)}, features, out);
  }

 private:
  void tile(const MatrixView<const T>& m, const std::vector<CategoryTable>& categories,
            BlockRange rows, BlockRange features, BinnedMatrix& out) {
    summaries_.assign(static_cast<std::size_t>(features.size()), {});
    load_keys(m, rows, features.begin, features.size(), keys_.data(), summaries_.data());
    for (std::int64_t j = 0; j < features.size(); ++j) {
      const Key* const keys = keys_.data() + j * tile_stride;
      const auto at = static_cast<std::size_t>(j);
      if (summaries_[at].infinite)
        throw_infinite_in<T>("quern::tree::bin", keys, rows, features.begin + j);
      std::uint8_t* const codes = out.columns.data() + (features.begin + j) * out.rows + rows.begin;
      const std::int64_t f = features.begin + j;
      if (out.cuts.is_categorical(static_cast<std::int32_t>(f)))
        category_codes(keys, rows.size(), categories[static_cast<std::size_t>(f)], codes);
      else
        QUERN_DISPATCH(bin_codes(keys, rows.size(), tables_[at].search(), codes));
    }
  }

  static void category_codes(const Key* keys, std::int64_t size, const CategoryTable& table,
                             std::uint8_t* codes) {
    for (std::int64_t i = 0; i < size; ++i)
      codes[i] = keys[i] == kernels::missing_key<Key> ? missing_code
                                                      : table.code(float_of_key<T>(keys[i]));
  }

  std::vector<CodeTable<Key>> tables_;
  core::Buffer<Key> keys_;
  std::vector<KeySummary<Key>> summaries_;
};

/// Codes of a dense matrix into m.columns, then blocks.
template <class T>
void bin_features(const MatrixView<const T>& x, BlockUse use, int threads, BinnedMatrix& m) {
  const std::vector<KeyOf<T>> cuts = cut_keys<T>(m.cuts);
  const std::vector<CategoryTable> categories = category_tables(m.cuts);
  m.columns.reset(static_cast<std::size_t>(m.rows * x.cols()));
  const std::int64_t groups = block_count(x.cols(), tile_features<T>);
  std::vector<DenseCoder<T>> coders(static_cast<std::size_t>(worker_count(threads)));
  parallel_for(
      groups * block_count(m.rows, code_rows),
      [&](std::int64_t task) {
        coders[static_cast<std::size_t>(this_worker())].run(
            x, cuts, categories, block_range(m.rows, code_rows, task / groups),
            block_range(x.cols(), tile_features<T>, task % groups), m);
      },
      threads);
  coders.clear();
  build_blocks(m, use, threads);
}

/// Codes of CSR values, entry by entry.
template <class T>
class CsrCoder {
 public:
  CsrCoder(const CsrView<T>& x, const Cuts& cuts)
      : x_(x),
        offsets_(cuts.offsets),
        keys_(cut_keys<T>(cuts)),
        cuts_(cuts),
        categories_(category_tables(cuts)) {}

  /// Calls fn(row, column, code) for the stored values that are not missing, in order.
  template <class F>
  void for_each(BlockRange rows, F&& fn) const {
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const auto begin = static_cast<std::size_t>(x_.row_offsets[static_cast<std::size_t>(row)]);
      const auto end = static_cast<std::size_t>(x_.row_offsets[static_cast<std::size_t>(row) + 1]);
      for (std::size_t i = begin; i < end; ++i) {
        const std::int32_t column = x_.columns[i];
        const KeyOf<T> key = float_key(x_.values[i]);
        if (key == kernels::missing_key<KeyOf<T>>) continue;
        if (key == infinity_key<KeyOf<T>> || key == -infinity_key<KeyOf<T>>)
          throw_infinite("quern::tree::bin", row, column);
        fn(row, column, code(key, static_cast<std::size_t>(column)));
      }
    }
  }

 private:
  std::uint8_t code(KeyOf<T> key, std::size_t column) const {
    if (cuts_.is_categorical(static_cast<std::int32_t>(column)))
      return categories_[column].code(float_of_key<T>(key));
    const auto begin = keys_.begin() + offsets_[column];
    const auto end = keys_.begin() + offsets_[column + 1];
    return static_cast<std::uint8_t>(1 + (std::upper_bound(begin, end, key) - begin));
  }

  const CsrView<T>& x_;
  const std::vector<std::int64_t>& offsets_;
  std::vector<KeyOf<T>> keys_;
  const Cuts& cuts_;
  std::vector<CategoryTable> categories_;
};

/// What is counted of one CSR column.
struct CsrColumnCount {
  std::int64_t size = 0;
  std::uint8_t first = missing_code;
  bool mixed = false;

  void merge(const CsrColumnCount& other) {
    if (other.size == 0) return;
    mixed = mixed || other.mixed || (size > 0 && other.first != first);
    if (size == 0) first = other.first;
    size += other.size;
  }
};

/// Profiles of CSR columns, of which what is not stored is missing. The default code is the missing
/// one, unless it never occurs and the column holds a single code.
template <class T>
std::vector<ColumnProfile> profile_csr(const CsrCoder<T>& coder, const BinnedMatrix& m,
                                       int threads) {
  const auto features = static_cast<std::size_t>(m.features());
  // Columns are counted in a few slices of rows, each with counts of its own.
  const std::int64_t slices =
      (std::min)(static_cast<std::int64_t>(worker_count(threads)), m.rows / block_rows + 1);
  std::vector<std::vector<CsrColumnCount>> counts(static_cast<std::size_t>(slices));
  parallel_for(
      slices,
      [&](std::int64_t s) {
        std::vector<CsrColumnCount>& mine = counts[static_cast<std::size_t>(s)];
        mine.resize(features);
        coder.for_each({m.rows * s / slices, m.rows * (s + 1) / slices},
                       [&](std::int64_t, std::int32_t column, std::uint8_t code) {
                         CsrColumnCount& c = mine[static_cast<std::size_t>(column)];
                         if (c.size++ == 0) c.first = code;
                         c.mixed |= code != c.first;
                       });
      },
      threads);
  std::vector<ColumnProfile> profiles(features);
  for (std::size_t f = 0; f < features; ++f) {
    CsrColumnCount all;
    for (const auto& slice : counts) all.merge(slice[f]);
    const bool full = all.size == m.rows;
    profiles[f].constant = all.size == 0 || (full && !all.mixed);
    profiles[f].default_code = profiles[f].constant ? all.first : missing_code;
    profiles[f].density =
        m.rows > 0 ? static_cast<double>(all.size) / static_cast<double>(m.rows) : 0;
  }
  return profiles;
}

/// Writes a code that is not the default into a dense block.
inline void store_byte(FeatureBlock& block, std::size_t row, std::size_t place, std::uint8_t code) {
  const std::size_t column =
      block.column_of.empty() ? place : static_cast<std::size_t>(block.column_of[place]);
  const std::int32_t shift = block.cell_offsets[place] - block.first_cells()[column];
  block.codes[row * static_cast<std::size_t>(block.stride) + column] =
      static_cast<std::uint8_t>(shift + code);
}

/// Fills all blocks from CSR without columns.
template <class T>
void fill_blocks_from_csr(const CsrCoder<T>& coder, BinnedMatrix& m, int threads) {
  const auto rows = static_cast<std::size_t>(m.rows);
  for (FeatureBlock& block : m.blocks) {
    if (block.layout == BlockLayout::sparse)
      block.row_offsets.reset(rows + 1, core::Fill::zero);
    else
      block.codes.reset(rows * static_cast<std::size_t>(block.stride), core::Fill::zero);
  }
  const auto for_each_entry = [&](auto&& fn) {
    parallel_for(
        block_count(m.rows, block_rows),
        [&](std::int64_t task) {
          coder.for_each(block_range(m.rows, block_rows, task),
                         [&](std::int64_t row, std::int32_t column, std::uint8_t code) {
                           const auto f = static_cast<std::size_t>(column);
                           if (m.block_of[f] < 0) return;
                           fn(static_cast<std::size_t>(row),
                              m.blocks[static_cast<std::size_t>(m.block_of[f])],
                              static_cast<std::size_t>(m.place_in_block[f]), code);
                         });
        },
        threads);
  };
  for_each_entry([](std::size_t row, FeatureBlock& block, std::size_t place, std::uint8_t code) {
    if (block.layout == BlockLayout::sparse)
      ++block.row_offsets[row + 1];
    else
      store_byte(block, row, place, code);
  });
  for (FeatureBlock& block : m.blocks)
    if (block.layout == BlockLayout::sparse) sum_row_lengths(block, m.rows);
  // A row's next free place stands in its offset, which so becomes the next row's: moved back
  // after.
  for_each_entry([](std::size_t row, FeatureBlock& block, std::size_t place, std::uint8_t code) {
    if (block.layout == BlockLayout::dense) return;
    block.entries[static_cast<std::size_t>(block.row_offsets[row]++)] =
        static_cast<std::uint16_t>(block.cell_offsets[place] + code);
  });
  for (FeatureBlock& block : m.blocks) {
    if (block.layout == BlockLayout::dense || rows == 0) continue;
    std::copy_backward(block.row_offsets.begin(), block.row_offsets.end() - 1,
                       block.row_offsets.end());
    block.row_offsets[0] = 0;
  }
}

template <class T>
void bin_features(const CsrView<T>& x, BlockUse use, int threads, BinnedMatrix& m) {
  const CsrCoder<T> coder(x, m.cuts);
  const double cells = static_cast<double>(m.rows) * static_cast<double>(x.cols);
  if (static_cast<double>(x.values.size()) >= column_density * cells) {
    m.columns.reset(static_cast<std::size_t>(m.rows * x.cols), core::Fill::zero);
    parallel_for(
        block_count(m.rows, block_rows),
        [&](std::int64_t task) {
          coder.for_each(block_range(m.rows, block_rows, task),
                         [&](std::int64_t row, std::int32_t column, std::uint8_t code) {
                           m.columns[static_cast<std::size_t>(column * m.rows + row)] = code;
                         });
        },
        threads);
    return build_blocks(m, use, threads);
  }
  const std::vector<ColumnProfile> profiles = profile_csr(coder, m, threads);
  Bundles bundles;
  if (use.bundle) {
    const auto source = [&](BlockRange rows, const std::vector<std::uint8_t>& wanted, auto&& fn) {
      coder.for_each(rows, [&](std::int64_t row, std::int32_t column, std::uint8_t code) {
        if (wanted[static_cast<std::size_t>(column)] != 0) fn(row, column, code);
      });
    };
    bundles = find_bundles(m.cuts, profiles, m.rows, source, threads);
  }
  m.blocks = plan_blocks(m.cuts, profiles, bundles, m.rows);
  index_blocks(m, profiles);
  fill_blocks_from_csr(coder, m, threads);
  if (use.fill) fill_byte_columns(m, threads);
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_BIN_CODES_HPP
