// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the search for a CART tree's splits is told, and what it answers.

#ifndef QUERN_TREE_DETAIL_CART_SPLIT_HPP
#define QUERN_TREE_DETAIL_CART_SPLIT_HPP

#include "quern/core/config.hpp"

#include <cstdint>
#include <limits>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// A division of a node's rows.
struct CartSplit {
  double score = -(std::numeric_limits<double>::max)();
  std::int32_t feature = -1;  ///< -1: none
  std::uint32_t below = 0;    ///< the last code that goes left
  double threshold = 0;       ///< values up to this go left
  bool missing_left = false;
  bool only_missing = false;  ///< whatever is not missing goes left
};

/// What a child must have.
struct ChildLimits {
  std::int64_t samples = 1;
  double weight = 0;
};

/// Rows up to `end` of the ordered samples have this code.
struct CodeRun {
  std::uint32_t code;
  std::uint32_t end;   ///< of the samples
  std::uint32_t rows;  ///< in it
};

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_CART_SPLIT_HPP
