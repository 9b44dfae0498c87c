// SPDX-License-Identifier: Apache-2.0

/// \file
/// How a tree is grown, whoever grows it.

#ifndef QUERN_TREE_GROW_OPTIONS_HPP
#define QUERN_TREE_GROW_OPTIONS_HPP

#include "quern/core/config.hpp"
#include "quern/tree/column_sampler.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/split.hpp"

#include <cstdint>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Which leaf is split next.
enum class GrowPolicy : std::uint8_t {
  depthwise,  ///< all of one depth, then the next
  lossguide,  ///< the one with the largest gain
  symmetric,  ///< all of one depth, with one test for all of them (an oblivious tree)
};

/// Deepest symmetric tree: it has 2^depth leaves, whether rows lie in them or not.
inline constexpr std::int32_t symmetric_max_depth = 16;

/// How a tree is grown; names and defaults as XGBoost's.
struct GrowOptions {
  SplitOptions split;
  double learning_rate = 0.3;   ///< factor of leaf values
  std::int32_t max_depth = 6;   ///< longest path in edges, 0: no limit
  std::int32_t max_leaves = 0;  ///< 0: no limit
  GrowPolicy policy = GrowPolicy::depthwise;
  HistogramPrecision precision = HistogramPrecision::automatic;
  ColumnSampling columns;
  std::vector<std::int8_t> monotone;  ///< (features) -1, 0, +1, or empty
  /// Groups of features that may meet on a path (see InteractionConstraints), or empty.
  std::vector<std::vector<std::int32_t>> interaction;
  std::int32_t max_cat_to_onehot = 4;  ///< fewer categories than this: one of them against the rest
  std::int32_t max_cat_threshold = 64;  ///< most categories in a split's set
  int threads = 0;                      ///< 0: default_threads()

  /// -1, 0 or +1 for feature \p f.
  [[nodiscard]] int monotone_of(std::int32_t f) const {
    return monotone.empty() ? 0 : monotone[static_cast<std::size_t>(f)];
  }
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_GROW_OPTIONS_HPP
