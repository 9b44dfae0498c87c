// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a booster needs of whatever grows its trees.

#ifndef QUERN_TREE_TREE_GROWER_HPP
#define QUERN_TREE_TREE_GROWER_HPP

#include "quern/core/config.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/row_partition.hpp"
#include "quern/tree/tree.hpp"

#include <cstdint>
#include <span>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Grows trees on one data set, one after the other.
class TreeGrower {
 public:
  TreeGrower() = default;
  TreeGrower(const TreeGrower&) = delete;
  TreeGrower& operator=(const TreeGrower&) = delete;
  virtual ~TreeGrower() = default;

  /// One tree for \p gradients (rows). Rows not in \p sample (ascending; empty: all) are left out.
  /// \p seed keys the sampling of columns.
  [[nodiscard]] virtual Tree grow(std::span<const GradientPair> gradients,
                                  std::span<const std::int32_t> sample, std::uint64_t seed) = 0;
  virtual void set_learning_rate(double rate) = 0;

  /// After grow(): the leaves' node numbers, ascending, and, at the same places, their rows in
  /// partition() (none in some leaves of a symmetric tree).
  [[nodiscard]] virtual std::span<const std::int32_t> leaf_nodes() const = 0;
  [[nodiscard]] virtual std::span<const RowRange> leaf_ranges() const = 0;
  [[nodiscard]] virtual const RowPartition& partition() const = 0;
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_TREE_GROWER_HPP
