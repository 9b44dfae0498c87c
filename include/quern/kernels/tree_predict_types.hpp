// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arguments of the kernels that predict with trees: plain numbers, the same for every target.
///
/// *Keys.* Features are compared as integers: a float's key is its magnitude bits, negated where
/// the sign is set, so keys order as floats do, both zeros have key 0, and no compiler flag can
/// drop the test for NaN. Every NaN has the smallest integer as its key, which no number has.
///
/// *Codes.* A column of codes holds, for one feature, how many of up to 255 of its thresholds are
/// at most x, minus 128. The test x < t_j is code <= j; a missing value is coded as 0 in columns
/// whose nodes send it left and as 255 in those that send it right, so that it costs nodes nothing.

#ifndef QUERN_KERNELS_TREE_PREDICT_TYPES_HPP
#define QUERN_KERNELS_TREE_PREDICT_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstdint>
#include <limits>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Key of a missing value, int32 for float features and int64 for double.
template <class Key>
inline constexpr Key missing_key = (std::numeric_limits<Key>::min)();

/// Thresholds that one column of codes can tell apart.
inline constexpr std::int32_t code_thresholds = 255;
/// Length of a column's table: the thresholds' keys minus one (so that "greater" is "at least"),
/// ascending, filled up with the largest key to 256, then every 16th of those.
inline constexpr std::int32_t code_table_size = 256 + 16;

/// Buckets of a column's table, so that a code takes one look-up and eight compares. A key, clamped
/// to [low, high], has the bucket (key - low) >> shift where scale is 0, else trunc(x scale) -
/// base, where x is the number of the clamped key and scale a power of two: both only grow with the
/// key, and no rounding is involved. The column's `starts` hold, for each bucket, how many
/// thresholds are in those before it, but at most 248; no bucket has more than eight.
struct CodeBuckets {
  std::int32_t low = 0;
  std::int32_t high = 0;
  std::int32_t base = 0;
  std::int32_t shift = -1;  ///< -1: there are no buckets
  float scale = 0;
};
inline constexpr std::int32_t code_buckets = 512;
inline constexpr std::int32_t bucket_thresholds = 8;

/// Deepest tree that the kernel for full trees takes.
inline constexpr std::int32_t full_tree_levels = 6;

/// An inner node of a full tree (preorder) or a level of a symmetric one (from the root): rows
/// whose code is below `code` go left. The column's codes start `offset` bytes from the first
/// column's. Bytes are held four times over: loading one is a broadcast.
struct SplitNode {
  std::uint32_t offset;
  std::uint32_t code;
  std::uint32_t right_leaf;  ///< of a full tree's lowest level: number of the leaf to the right
};

/// An inner node of a tree of at most 256 leaves, numbered from left to right. A row stands at the
/// node while the first leaf below the node is its candidate; a code above `code` moves it to the
/// first leaf below the right child. Bytes are held four times over: loading one is a broadcast.
struct LaneNode {
  std::uint32_t column;
  std::uint32_t code;
  std::uint32_t first_leaf;
  std::uint32_t right_first_leaf;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_TREE_PREDICT_TYPES_HPP
