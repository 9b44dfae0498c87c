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
