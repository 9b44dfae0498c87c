// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows on their way down the trees of a CompactForest: as integer keys, or as bytes.

#ifndef QUERN_TREE_DETAIL_COMPACT_WALK_HPP
#define QUERN_TREE_DETAIL_COMPACT_WALK_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/float_key.hpp"
#include "quern/tree/walk.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Rows that go through the trees together as bytes; fewer are not worth the tables.
inline constexpr std::int64_t fewest_byte_rows = 128;

/// A node for rows whose values are whole numbers of 0..255 (images): goes to child + (byte >=
/// threshold). A leaf leads to itself.
struct ByteNode {
  std::uint32_t child;
  std::uint32_t slot_and_threshold;  ///< slot * 512 + threshold in 0..256
};

[[nodiscard]] inline std::vector<ByteNode> byte_nodes(
    std::span<const WalkNode<std::int32_t>> nodes) {
  std::vector<ByteNode> out;
  out.reserve(nodes.size());
  for (const WalkNode<std::int32_t>& n : nodes) {
    std::uint32_t threshold = 0;  // of a leaf: whatever comes is as large
    if (n.threshold != (std::numeric_limits<std::int32_t>::min)()) {
      const float t = float_of_key<float>(n.threshold + n.missing_right);
      threshold = t > 255.0f ? 256u : t <= 0.0f ? 0u : static_cast<std::uint32_t>(std::ceil(t));
    }
    out.push_back({n.child, n.slot << 9 | threshold});
  }
  return out;
}

/// A row as bytes; false where a value is none.
inline bool row_as_bytes(const float* from, Index stride, Index columns, std::uint8_t* to) {
  bool all = true;
  for (Index f = 0; f < columns; ++f) {
    const float x = from[f * stride];
    // A NaN's key is below 0, that of -0 is 0.
    const std::int32_t key = float_key(x);
    const bool in_range = key >= 0 && key <= float_key(255.0f);
    const auto byte = static_cast<std::uint8_t>(in_range ? static_cast<int>(x) : 0);
    all = all && in_range && static_cast<float>(byte) == x;
    to[f] = byte;
  }
  return all;
}

/// As walk_rows(), through byte nodes.
template <class Use>
void walk_byte_rows(const ByteNode* nodes, std::int32_t depth, const std::uint8_t* bytes,
                    std::size_t columns, std::int64_t rows, const Use& use) {
  constexpr std::size_t ways = 16;
  for (std::int64_t r = 0; r < rows; r += ways) {
    const auto some = static_cast<std::size_t>((std::min)(std::int64_t{ways}, rows - r));
    std::array<std::uint32_t, ways> at{};
    std::array<const std::uint8_t*, ways> of{};
    for (std::size_t way = 0; way < ways; ++way)
      of[way] = bytes + (static_cast<std::size_t>(r) + (way < some ? way : 0)) * columns;
    for (std::int32_t level = 0; level < depth; ++level) {
      std::uint32_t moved = 0;
      for (std::size_t way = 0; way < ways; ++way) {
        const ByteNode n = nodes[at[way]];
        const std::uint32_t byte = of[way][n.slot_and_threshold >> 9];
        const std::uint32_t next = n.child + (byte >= (n.slot_and_threshold & 511u) ? 1u : 0u);
        moved |= next ^ at[way];
        at[way] = next;
      }
      if (moved == 0) break;
    }
    for (std::size_t way = 0; way < some; ++way) use(r + static_cast<std::int64_t>(way), at[way]);
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

/// A worker's memory: some rows, and sums of their leaves.
struct CompactTile {
  std::vector<std::int32_t> keys;
  std::vector<std::uint8_t> bytes;
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
    bytes.resize(static_cast<std::size_t>(range.size() * x.cols()));
    for (std::int64_t r = range.begin; r < range.end; ++r) {
      if (!row_as_bytes(&x(r, 0), x.col_stride(), x.cols(),
                        bytes.data() + (r - range.begin) * x.cols()))
        return false;
    }
    return true;
  }
};

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_COMPACT_WALK_HPP
