// SPDX-License-Identifier: Apache-2.0

/// \file
/// Which features share a block, in which layout, and filling the blocks from columns of codes.

#ifndef QUERN_TREE_DETAIL_FEATURE_BLOCKS_HPP
#define QUERN_TREE_DETAIL_FEATURE_BLOCKS_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/detail/dense_blocks.hpp"
#include "quern/tree/detail/feature_bundles.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// What it costs to add a row to a histogram, in units of one dense cell. A sparse entry is longer
/// and its loop ends unpredictably; a sparse block costs a little for every row, entries or not.
struct BlockCosts {
  static constexpr double sparse_entry = 1.7;
  static constexpr double sparse_row = 8;
  /// A bundle that fewer rows than these are in is better off in a sparse block. Routing rows by a
  /// sparse block is slow, hence not 1 / sparse_entry.
  static constexpr double bundle_density = 0.25;
};

/// Most cells of a sparse block: 256 KiB of histogram, and cell numbers fit 16 bits.
inline constexpr std::int32_t sparse_block_cells = 32768;
/// Rows of a task that fills blocks.
inline constexpr std::int64_t block_rows = 4096;

inline FeatureBlock make_sparse_block(const Cuts& cuts, const std::vector<ColumnProfile>& profiles,
                                      std::vector<std::int32_t> features) {
  FeatureBlock block;
  block.layout = BlockLayout::sparse;
  block.cell_offsets.push_back(0);
  for (const std::int32_t f : features) {
    block.cell_offsets.push_back(block.cell_offsets.back() + block_cells(cuts, f));
    block.default_codes.push_back(profiles[static_cast<std::size_t>(f)].default_code);
  }
  block.features = std::move(features);
  return block;
}

/// Cuts a list of features into sparse blocks, in order.
inline std::vector<std::vector<std::int32_t>> split_by_cells(
    const Cuts& cuts, const std::vector<std::int32_t>& features) {
  std::vector<std::vector<std::int32_t>> groups;
  std::int32_t cells = sparse_block_cells;
  for (const std::int32_t f : features) {
    if (cells + block_cells(cuts, f) > sparse_block_cells) {
      groups.emplace_back();
      cells = 0;
    }
    groups.back().push_back(f);
    cells += block_cells(cuts, f);
  }
  return groups;
}

/// Chooses the blocks of all columns that are not constant; their codes are filled in later.
/// \p products: features of few codes may be put together.
inline std::vector<FeatureBlock> plan_blocks(const Cuts& cuts,
                                             const std::vector<ColumnProfile>& profiles,
                                             const Bundles& bundles, std::int64_t rows,
                                             bool products = false) {
  const auto density = [&](std::int32_t f) {
    return profiles[static_cast<std::size_t>(f)].density;
  };
  std::vector<DenseColumn> dense, loose;  // loose: dense or sparse, as the others go
  std::vector<std::uint8_t> done(profiles.size(), 0);
  for (const std::vector<std::int32_t>& bundle : bundles) {
    DenseColumn column{bundle, 0};
    for (const std::int32_t f : bundle) {
      done[static_cast<std::size_t>(f)] = 1;
      column.density += density(f);
    }
    (column.density >= BlockCosts::bundle_density ? dense : loose).push_back(std::move(column));
  }
  for (std::int32_t f = 0; f < cuts.features(); ++f) {
    const auto i = static_cast<std::size_t>(f);
    if (profiles[i].constant || done[i] != 0) continue;
    const bool stays = BlockCosts::sparse_entry * density(f) < 1;
    (stays ? loose : dense).push_back({{f}, density(f)});
  }
  std::vector<std::int32_t> sparse;
  double saved = 0;
  for (const DenseColumn& column : loose) {
    sparse.insert(sparse.end(), column.features.begin(), column.features.end());
    saved += 1 - BlockCosts::sparse_entry * column.density;
  }
  std::sort(sparse.begin(), sparse.end());
  auto groups = split_by_cells(cuts, sparse);
  if (saved < BlockCosts::sparse_row * static_cast<double>(groups.size())) {
    groups.clear();
    dense.insert(dense.end(), loose.begin(), loose.end());
  }
  if (products && rows >= product_rows) make_products(cuts, dense);
  std::vector<FeatureBlock> blocks;
  plan_dense_blocks(cuts, profiles, std::move(dense), rows, blocks);
  for (auto& group : groups) blocks.push_back(make_sparse_block(cuts, profiles, std::move(group)));
  return blocks;
}

/// Profile of a column of codes. Whether it is constant is exact; the most frequent code and its
/// share are those of up to 16,384 rows spread over the column, the same for any thread count.
inline ColumnProfile profile_column(const std::uint8_t* codes, std::int64_t rows) {
  ColumnProfile profile;
  profile.constant =
      rows < 2 || std::memcmp(codes, codes + 1, static_cast<std::size_t>(rows - 1)) == 0;
  if (profile.constant) {
    profile.default_code = rows > 0 ? codes[0] : missing_code;
    profile.density = 0;
    return profile;
  }
  constexpr std::int64_t run = 128, runs = 128;
  std::array<std::int32_t, 256> counts{};
  const std::int64_t step = (std::max)(run, rows / runs);
  std::int64_t seen = 0;
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t end = (std::min)(begin + run, rows);
    for (std::int64_t r = begin; r < end; ++r) ++counts[codes[r]];
    seen += end - begin;
  }
  const auto most = std::max_element(counts.begin(), counts.end());
  profile.default_code = static_cast<std::uint8_t>(most - counts.begin());
  profile.density = 1 - static_cast<double>(*most) / static_cast<double>(seen);
  return profile;
}

/// Transposes 8 x 8 bytes: byte i of word j goes to byte j of word i.
inline void transpose_bytes(std::uint64_t* x) {
  const auto swap = [&](std::size_t a, std::size_t b, int shift, std::uint64_t low) {
    const std::uint64_t moved = ((x[a] >> shift) ^ x[b]) & low;
    x[b] ^= moved;
    x[a] ^= moved << shift;
  };
  for (const std::size_t i : {0u, 1u, 2u, 3u}) swap(i, i + 4, 32, 0x00000000ffffffffu);
  for (const std::size_t i : {0u, 1u, 4u, 5u}) swap(i, i + 2, 16, 0x0000ffff0000ffffu);
  for (const std::size_t i : {0u, 2u, 4u, 6u}) swap(i, i + 1, 8, 0x00ff00ff00ff00ffu);
}

/// Calls fn(row, code) for each row of a column whose code is not \p skipped, in order.
template <class F>
void for_each_other(const std::uint8_t* codes, BlockRange rows, std::uint8_t skipped, F&& fn) {
  const std::uint64_t pattern = skipped * std::uint64_t{0x0101010101010101u};
  std::int64_t r = rows.begin;
  for (; r + 8 <= rows.end; r += 8) {
    std::uint64_t word;
    std::memcpy(&word, codes + r, 8);
    if (word == pattern) continue;
    for (std::int64_t i = r; i < r + 8; ++i)
      if (codes[i] != skipped) fn(i, codes[i]);
  }
  for (; r < rows.end; ++r)
    if (codes[r] != skipped) fn(r, codes[r]);
}

/// A dense block's byte columns over some rows: features' columns as they are, bundles and products
/// put together.
class ByteColumns {
 public:
  ByteColumns(const BinnedMatrix& m, const FeatureBlock& block, BlockRange rows) {
    columns_.resize(static_cast<std::size_t>(block.columns()));
    std::size_t shared = 0;
    for (std::size_t j = 0; j < block.features.size(); ++j)
      shared += block.shares_column(j) && is_first(block, j);
    together_.reset(shared * static_cast<std::size_t>(rows.size()), core::Fill::zero);
    std::uint8_t* next = together_.data();
    for (std::size_t j = 0; j < block.features.size(); ++j) {
      const std::uint8_t* const codes = m.column(block.features[j]);
      const std::uint8_t*& column = columns_[column_of(block, j)];
      if (!block.shares_column(j)) {
        column = codes + rows.begin;
        continue;
      }
      if (is_first(block, j)) {
        column = next;
        next += rows.size();
      }
      std::uint8_t* const to = next - rows.size();
      if (block.in_product(j)) {
        for (std::int64_t r = 0; r < rows.size(); ++r)
          to[r] = static_cast<std::uint8_t>(to[r] + block.factors[j] * codes[rows.begin + r]);
        continue;
      }
      const std::int32_t shift = block.cell_offsets[j] - block.column_cells[column_of(block, j)];
      for_each_other(codes, rows, block.default_codes[j], [&](std::int64_t r, std::uint8_t code) {
        to[r - rows.begin] = static_cast<std::uint8_t>(shift + code);
      });
    }
  }

  /// Column \p c from the first of the rows.
  [[nodiscard]] const std::uint8_t* operator[](std::int32_t c) const {
    return columns_[static_cast<std::size_t>(c)];
  }

 private:
  static std::size_t column_of(const FeatureBlock& block, std::size_t j) {
    return block.column_of.empty() ? j : static_cast<std::size_t>(block.column_of[j]);
  }
  /// Whether feature \p j is the first of its byte column.
  static bool is_first(const FeatureBlock& block, std::size_t j) {
    return j == 0 || column_of(block, j) != column_of(block, j - 1);
  }

  std::vector<const std::uint8_t*> columns_;
  core::Buffer<std::uint8_t> together_;
};

/// Writes \p rows of a dense block from columns of codes, padding with 0.
inline void fill_dense_rows(const BinnedMatrix& m, FeatureBlock& block, BlockRange rows) {
  const std::int32_t size = block.columns();
  const ByteColumns columns(m, block, rows);
  for (std::int32_t j = 0; j < block.stride; j += 8) {
    std::int64_t r = 0;
    for (; r + 8 <= rows.size(); r += 8) {
      std::uint64_t words[8] = {};
      for (std::int32_t k = 0; k < 8 && j + k < size; ++k)
        std::memcpy(&words[k], columns[j + k] + r, 8);
      transpose_bytes(words);
      for (std::int64_t i = 0; i < 8; ++i)
        std::memcpy(block.codes.data() + (rows.begin + r + i) * block.stride + j, &words[i], 8);
    }
    for (; r < rows.size(); ++r) {
      std::uint8_t* const to = block.codes.data() + (rows.begin + r) * block.stride + j;
      std::memset(to, 0, 8);
      for (std::int32_t k = 0; k < 8 && j + k < size; ++k) to[k] = columns[j + k][r];
    }
  }
}

/// The byte columns of dense blocks, from their rows: for input that has no columns.
inline void fill_byte_columns(BinnedMatrix& m, int threads) {
  std::int64_t columns = 0;
  for (const FeatureBlock& block : m.blocks)
    if (block.layout == BlockLayout::dense) columns += block.columns();
  m.byte_columns.reset(static_cast<std::size_t>(columns * m.rows));
  std::uint8_t* out = m.byte_columns.data();
  for (const FeatureBlock& block : m.blocks) {
    if (block.layout != BlockLayout::dense) continue;
    const std::int32_t size = block.columns();
    parallel_for(
        block_count(m.rows, block_rows),
        [&](std::int64_t task) {
          const BlockRange rows = block_range(m.rows, block_rows, task);
          for (std::int32_t j = 0; j < size; j += 8) {
            std::int64_t r = rows.begin;
            for (; r + 8 <= rows.end; r += 8) {
              std::uint64_t words[8];
              for (std::int64_t i = 0; i < 8; ++i)
                std::memcpy(&words[i], block.codes.data() + (r + i) * block.stride + j, 8);
              transpose_bytes(words);
              for (std::int32_t k = 0; k < 8 && j + k < size; ++k)
                std::memcpy(out + (j + k) * m.rows + r, &words[k], 8);
            }
            for (; r < rows.end; ++r)
              for (std::int32_t k = 0; k < 8 && j + k < size; ++k)
                out[(j + k) * m.rows + r] =
                    block.codes[static_cast<std::size_t>(r * block.stride + j + k)];
          }
        },
        threads);
    out += size * m.rows;
  }
}

/// Running sums of the lengths that stand at row_offsets[1 .. rows], and room for the entries.
inline void sum_row_lengths(FeatureBlock& block, std::int64_t rows) {
  block.row_offsets[0] = 0;
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r)
    block.row_offsets[r + 1] += block.row_offsets[r];
  block.entries.reset(static_cast<std::size_t>(block.row_offsets[static_cast<std::size_t>(rows)]));
}

/// Fills a sparse block from columns of codes.
inline void fill_sparse_block(const BinnedMatrix& m, FeatureBlock& block, int threads) {
  const std::int64_t tasks = block_count(m.rows, block_rows);
  block.row_offsets.reset(static_cast<std::size_t>(m.rows) + 1, core::Fill::zero);
  const auto for_each_entry = [&](BlockRange rows, auto&& fn) {
    for (std::size_t j = 0; j < block.features.size(); ++j)
      for_each_other(
          m.column(block.features[j]), rows, block.default_codes[j],
          [&](std::int64_t r, std::uint8_t code) { fn(r, block.cell_offsets[j] + code); });
  };
  parallel_for(
      tasks,
      [&](std::int64_t task) {
        std::int64_t* const lengths = block.row_offsets.data() + 1;
        for_each_entry(block_range(m.rows, block_rows, task),
                       [&](std::int64_t r, std::int32_t) { ++lengths[r]; });
      },
      threads);
  sum_row_lengths(block, m.rows);
  parallel_for(
      tasks,
      [&](std::int64_t task) {
        const BlockRange rows = block_range(m.rows, block_rows, task);
        std::array<std::int64_t, block_rows> next;
        for (std::int64_t r = rows.begin; r < rows.end; ++r)
          next[static_cast<std::size_t>(r - rows.begin)] =
              block.row_offsets[static_cast<std::size_t>(r)];
        for_each_entry(rows, [&](std::int64_t r, std::int32_t cell) {
          std::int64_t& at = next[static_cast<std::size_t>(r - rows.begin)];
          block.entries[static_cast<std::size_t>(at++)] = static_cast<std::uint16_t>(cell);
        });
      },
      threads);
}

inline void fill_block(const BinnedMatrix& m, FeatureBlock& block, int threads) {
  if (block.layout == BlockLayout::sparse) return fill_sparse_block(m, block, threads);
  block.codes.reset(static_cast<std::size_t>(m.rows * block.stride));
  parallel_for(
      block_count(m.rows, block_rows),
      [&](std::int64_t task) { fill_dense_rows(m, block, block_range(m.rows, block_rows, task)); },
      threads);
}

/// Records where each feature went.
inline void index_blocks(BinnedMatrix& m, const std::vector<ColumnProfile>& profiles) {
  const auto features = static_cast<std::size_t>(m.features());
  m.block_of.assign(features, -1);
  m.place_in_block.assign(features, 0);
  m.constant_codes.assign(features, missing_code);
  for (std::size_t f = 0; f < features; ++f)
    if (profiles[f].constant) m.constant_codes[f] = profiles[f].default_code;
  for (std::size_t b = 0; b < m.blocks.size(); ++b)
    for (std::size_t j = 0; j < m.blocks[b].features.size(); ++j) {
      const auto f = static_cast<std::size_t>(m.blocks[b].features[j]);
      m.block_of[f] = static_cast<std::int32_t>(b);
      m.place_in_block[f] = static_cast<std::int32_t>(j);
    }
}

/// What is made of the blocks.
struct BlockUse {
  bool fill = true;    ///< make them at all
  bool bundle = true;  ///< look for bundles
};

/// Plans and fills all blocks from m.columns.
inline void build_blocks(BinnedMatrix& m, BlockUse use, int threads) {
  std::vector<ColumnProfile> profiles(static_cast<std::size_t>(m.features()));
  parallel_for(
      m.features(),
      [&](std::int64_t f) {
        profiles[static_cast<std::size_t>(f)] =
            profile_column(m.columns.data() + f * m.rows, m.rows);
      },
      threads);
  if (use.fill) {
    const auto source = [&](BlockRange rows, const std::vector<std::uint8_t>& wanted, auto&& fn) {
      for (std::size_t f = 0; f < wanted.size(); ++f) {
        if (wanted[f] == 0) continue;
        const auto feature = static_cast<std::int32_t>(f);
        for_each_other(m.column(feature), rows, profiles[f].default_code,
                       [&](std::int64_t row, std::uint8_t code) { fn(row, feature, code); });
      }
    };
    Bundles bundles;
    if (use.bundle) bundles = find_bundles(m.cuts, profiles, m.rows, source, threads);
    m.blocks = plan_blocks(m.cuts, profiles, bundles, m.rows, use.bundle);
  }
  index_blocks(m, profiles);
  for (FeatureBlock& block : m.blocks) fill_block(m, block, threads);
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_FEATURE_BLOCKS_HPP
