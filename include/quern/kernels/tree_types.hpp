// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arguments and results of the tree kernels: plain pointers and numbers, the same for every
/// target.

#ifndef QUERN_KERNELS_TREE_TYPES_HPP
#define QUERN_KERNELS_TREE_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// A dense block of binned features: (rows, stride) bytes, feature j owns cells from offsets[j].
struct DenseCodes {
  const std::uint8_t* codes;
  const std::int32_t* offsets;
  std::int64_t stride;
  std::int64_t features;
};

/// A sparse block: row r has the cells entries[row_offsets[r]] .. entries[row_offsets[r + 1] - 1].
struct SparseCodes {
  const std::uint16_t* entries;
  const std::int64_t* row_offsets;
};

/// A split by one feature of a sparse block, as cells of the block.
struct SparseTest {
  std::int32_t first, end;            ///< the feature's cells
  std::int32_t left_first, left_end;  ///< those that go left
  bool default_left;                  ///< where rows go that list none of them
};

/// Rows index[0 .. size), or first .. first + size - 1 where index is null.
struct RowList {
  const std::int32_t* index;
  std::int64_t first;
  std::int64_t size;
};

/// What the search for one feature's best split needs to know of the node and the regularisation.
struct SplitScan {
  double sum_g, sum_h;      ///< the node's sums, in fixed-point units of the histogram
  double unit_g, unit_h;    ///< the loss's units per fixed-point unit
  double lambda, alpha;     ///< L2 and L1
  double min_child_weight;  ///< smallest sum of hessians in a child
  double max_delta_step;    ///< bound of |leaf weight|, 0: none
  double lower, upper;      ///< bounds of the leaf weight from monotone constraints
  std::int32_t monotone;    ///< -1, 0, +1: sign that right minus left may have
};

/// The best split of one feature: codes 1 .. bin go left.
struct SplitResult {
  double score;  ///< G_L^2/(H_L+lambda) + G_R^2/(H_R+lambda), minus infinity where none is allowed
  std::int32_t bin;
  bool missing_left;
};

/// Numbers that buffers of gains by bin hold: 255, and as many as a vector may reach beyond.
inline constexpr std::int32_t split_gain_capacity = 256 + 64;

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_TREE_TYPES_HPP
