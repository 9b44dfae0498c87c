// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows on their way down the trees of a CompactForest: as integer keys, or as bytes.

#ifndef QUERN_TREE_DETAIL_COMPACT_WALK_HPP
#define QUERN_TREE_DETAIL_COMPACT_WALK_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_predict_types.hpp"
#include "quern/tree/float_key.hpp"
#include "quern/tree/walk.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Fewer rows are not worth the tables of bytes.
inline constexpr std::int64_t fewest_byte_rows = 256;
/// Rows whose bytes lie side by side, (columns + 1, 64); the last column is 0.
inline constexpr std::int64_t byte_group_rows = 64;
/// Columns that ByteNode has room for.
inline constexpr std::int64_t most_byte_columns = (std::int64_t{1} << 18) - 1;

/// A node for rows whose values are whole numbers of 0..255 (images): goes to child + (byte >
/// last). A leaf leads to itself, and so does a node that is always passed the same way to where it
/// leads: both look at the column of zeros.
struct ByteNode {
  std::uint32_t child = 0;
  std::uint32_t test = 0;  ///< place of the column's bytes * 256 + last
};
inline constexpr std::uint32_t no_class = 255;

/// A tree for rows of bytes: all rows pass its first six levels side by side, then each walks on.
struct ByteTree {
  static constexpr std::int32_t levels = kernels::full_tree_levels;

  std::vector<ByteNode> nodes;  ///< a leaf's `last`: its class, or no_class
  std::array<kernels::SplitNode, (std::size_t{1} << levels) - 1> top = {};
  std::array<std::uint32_t, std::size_t{1} << levels> starts = {};  ///< where walks go on

  ByteTree() = default;
  /// \p leaves: the class of each leaf; those of `classes` and more are none.
  ByteTree(std::span<const WalkNode<std::int32_t>> from, std::span<const std::uint32_t> leaves,
           std::uint32_t classes, std::int64_t columns)
      : nodes(from.size()) {
    const auto zeros = static_cast<std::uint32_t>(columns * byte_group_rows) << 8;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      const WalkNode<std::int32_t>& n = from[i];
      if (n.child == static_cast<std::uint32_t>(i) - 1U) {
        const std::uint32_t label =
            leaves[i] < (std::min)(classes, no_class) ? leaves[i] : no_class;
        nodes[i] = {static_cast<std::uint32_t>(i), zeros | label};
        continue;
      }
      const std::uint32_t least = least_byte(float_of_key<float>(n.threshold + n.missing_right));
      if (least == 0 || least > 255) {
        nodes[i] = {n.child + (least == 0 ? 1U : 0U), zeros | 255U};
      } else {
        nodes[i] = {n.child,
                    (n.slot * static_cast<std::uint32_t>(byte_group_rows)) << 8 | (least - 1)};
      }
    }
    fill(0, levels, zeros, top.data(), 0);
  }

 private:
  /// Bytes from this one on are at least t; 256: none is.
  static std::uint32_t least_byte(float t) noexcept {
    if (t > 255.0f) return 256;
    if (t <= 0.0f) return 0;
    const auto below = static_cast<std::uint32_t>(t);
    return below + (static_cast<float>(below) < t ? 1U : 0U);
  }

  /// The subtree of node i as a full one of so many levels.
  void fill(std::uint32_t i, std::int32_t below, std::uint32_t zeros, kernels::SplitNode* to,
            std::uint32_t first) {
    while ((nodes[i].test & ~255U) == zeros && nodes[i].child != i) i = nodes[i].child;
    if (below == 0) {
      starts[first] = i;
      return;
    }
    const ByteNode n = nodes[i];
    const bool leaf = n.child == i;
    const std::uint32_t code = leaf ? 1U : (n.test & 255U) + 1;
    const std::uint32_t half = 1U << (below - 1);
    *to = {n.test >> 8, code * 0x01010101U, (first + 1) * 0x01010101U};
    fill(leaf ? i : n.child, below - 1, zeros, to + 1, first);
    fill(leaf ? i : n.child + 1, below - 1, zeros, to + half, first + half);
  }
};

/// Those of CompactTrees.
template <class Trees>
[[nodiscard]] std::vector<ByteTree> byte_trees(const Trees& trees, std::uint32_t classes,
                                               std::int64_t columns, int threads) {
  std::vector<ByteTree> out(trees.size());
  parallel_for(
      static_cast<std::int64_t>(trees.size()),
      [&](std::int64_t t) {
        const auto i = static_cast<std::size_t>(t);
        out[i] = ByteTree(trees[i].nodes, trees[i].leaves, classes, columns);
      },
      threads);
  return out;
}

template <std::size_t Ways, std::size_t... Way>
inline std::size_t byte_step(const ByteNode* nodes, const std::uint8_t* bytes,
                             std::array<std::size_t, Ways>& at,
                             std::index_sequence<Way...>) noexcept {
  std::size_t moved = 0;
  const auto step = [&](std::size_t way) {
    const std::uint32_t test = nodes[at[way]].test;
    const std::uint8_t byte = bytes[(test >> 8) + way];
    const std::size_t next =
        nodes[at[way]].child + (byte > static_cast<std::uint8_t>(test) ? 1U : 0U);
    moved |= next ^ at[way];
    at[way] = next;
  };
  (step(Way), ...);
  return moved;
}

/// use(r, node) for the leaf of every row of a group; \p depth is the tree's.
template <class Use>
void walk_byte_rows(const ByteTree& tree, std::int32_t depth, const std::uint8_t* bytes,
                    std::int64_t rows, const Use& use) {
  // A step waits for two loads: sixteen walks have work meanwhile, though half their places spill.
  constexpr std::size_t ways = 16;
  constexpr auto all = std::make_index_sequence<ways>();
  constexpr std::int32_t unchecked = 2;
  alignas(64) std::array<std::uint8_t, byte_group_rows> leaves;
  QUERN_DISPATCH(
      tree_full_bytes<std::uint8_t>(bytes, tree.top.data(), byte_group_rows, leaves.data()));
  const ByteNode* nodes = tree.nodes.data();
  for (std::int64_t r = 0; r < rows; r += ways) {
    std::array<std::size_t, ways> at;
    for (std::size_t way = 0; way < ways; ++way)
      at[way] = tree.starts[leaves[static_cast<std::size_t>(r) + way]];
    for (std::int32_t left = depth - ByteTree::levels; left > 0; left -= unchecked + 1) {
      for (std::int32_t i = 0; i < unchecked; ++i) byte_step(nodes, bytes + r, at, all);
      if (byte_step(nodes, bytes + r, at, all) == 0) break;
    }
    const auto some = static_cast<std::size_t>((std::min)(std::int64_t{ways}, rows - r));
    for (std::size_t way = 0; way < some; ++way)
      use(r + static_cast<std::int64_t>(way), static_cast<std::uint32_t>(at[way]),
          nodes[at[way]].test & 255U);
  }
}

/// use(r, node) for the leaf of every row whose keys lie one after the other.
template <class Use>
void walk_key_rows(const WalkNode<std::int32_t>* nodes, std::int32_t depth,
                   const std::int32_t* keys, std::size_t columns, std::int64_t rows,
                   const Use& use) {
  constexpr std::size_t ways = 8;
  for (std::int64_t r = 0; r < rows; r += ways) {
    // The last rows take company that is not used.
    const auto some = static_cast<std::size_t>((std::min)(std::int64_t{ways}, rows - r));
    std::array<std::uint32_t, ways> at{};
    std::array<const std::int32_t*, ways> of{};
    for (std::size_t way = 0; way < ways; ++way)
      of[way] = keys + (static_cast<std::size_t>(r) + (way < some ? way : 0)) * columns;
    walk(nodes, depth, at, [&of](std::uint32_t slot, std::size_t way) { return of[way][slot]; });
    for (std::size_t way = 0; way < some; ++way) use(r + static_cast<std::int64_t>(way), at[way]);
  }
}

struct RowsOfFloats {
  const float* data;
  Index stride;
};

/// A worker's memory: some rows, and sums of their leaves.
struct CompactTile {
  std::vector<std::int32_t> keys;
  std::vector<float> floats;
  core::Buffer<std::uint8_t> bytes;  ///< (groups of rows, columns + 1, byte_group_rows)
  std::vector<double> sums;

  void read_keys(MatrixView<const float> x, const BlockRange& range) {
    keys.resize(static_cast<std::size_t>((std::max)(range.size() * x.cols(), Index{1})));
    std::int32_t* to = keys.data();
    for (std::int64_t r = range.begin; r < range.end && x.cols() > 0; ++r) {
      const float* from = &x(r, 0);
      for (Index f = 0; f < x.cols(); ++f) *to++ = float_key(from[f * x.col_stride()]);
    }
  }
  /// False where a value is no byte.
  bool read_bytes(MatrixView<const float> x, const BlockRange& range) {
    const std::int64_t group = (x.cols() + 1) * byte_group_rows;
    const std::int64_t groups = block_count(range.size(), byte_group_rows);
    if (static_cast<std::int64_t>(bytes.size()) < groups * group)
      bytes = core::Buffer<std::uint8_t>(static_cast<std::size_t>(groups * group));
    for (std::int64_t g = 0; g < groups; ++g) {
      const BlockRange rows = block_range(range.size(), byte_group_rows, g);
      std::uint8_t* to = bytes.data() + g * group;
      std::fill_n(to + x.cols() * byte_group_rows, byte_group_rows, std::uint8_t{0});
      const RowsOfFloats from = side_by_side(x, range.begin + rows.begin, rows.size());
      const bool all = QUERN_DISPATCH(
          tree_bytes_of_rows<std::uint8_t>(from.data, from.stride, rows.size(), x.cols(), to));
      if (!all) return false;
    }
    return true;
  }
  [[nodiscard]] const std::uint8_t* group_bytes(std::int64_t g, std::int64_t columns) const {
    return bytes.data() + g * (columns + 1) * byte_group_rows;
  }

 private:
  /// Rows whose values follow each other, and their stride; copied where they do not.
  RowsOfFloats side_by_side(MatrixView<const float> x, Index first, Index rows) {
    if (x.col_stride() == 1) return {&x(first, 0), x.row_stride()};
    floats.resize(static_cast<std::size_t>(rows * x.cols()));
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < x.cols(); ++c)
        floats[static_cast<std::size_t>(r * x.cols() + c)] = x(first + r, c);
    return {floats.data(), x.cols()};
  }
};

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_COMPACT_WALK_HPP
