// SPDX-License-Identifier: Apache-2.0

/// \file
/// Random subsets of features for a tree, a level, a node.

#ifndef QUERN_TREE_COLUMN_SAMPLER_HPP
#define QUERN_TREE_COLUMN_SAMPLER_HPP

#include "quern/core/config.hpp"
#include "quern/core/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Shares of the features that are looked at, each in (0, 1]; they multiply. At least one is kept.
struct ColumnSampling {
  double by_tree = 1;
  double by_level = 1;
  double by_node = 1;
};

/// Draws features; what is drawn depends on the seed, the level and the node alone.
class ColumnSampler {
 public:
  /// Starts a tree over \p features columns.
  void reset(std::int32_t features, const ColumnSampling& sampling, std::uint64_t seed) {
    sampling_ = sampling;
    seed_ = seed;
    std::vector<std::int32_t> all(static_cast<std::size_t>(features));
    std::iota(all.begin(), all.end(), 0);
    tree_ = draw(all, sampling.by_tree, Philox(seed, "columns by tree"));
  }

  /// Features of node \p node at depth \p level, ascending.
  [[nodiscard]] std::vector<std::int32_t> features(std::int32_t level, std::int32_t node) const {
    const auto stream = [](std::int32_t i) { return static_cast<std::uint64_t>(i); };
    std::vector<std::int32_t> chosen =
        draw(tree_, sampling_.by_level, Philox(seed_, "columns by level", stream(level)));
    return draw(chosen, sampling_.by_node, Philox(seed_, "columns by node", stream(node)));
  }

 private:
  static std::vector<std::int32_t> draw(const std::vector<std::int32_t>& from, double share,
                                        Philox rng) {
    if (share >= 1 || from.empty()) return from;
    const auto n = static_cast<std::int64_t>(from.size());
    const auto k = static_cast<std::int64_t>(share * static_cast<double>(n));
    std::vector<std::int32_t> chosen;
    for (const std::int64_t i : rng.sample(n, (std::max)(k, std::int64_t{1})))
      chosen.push_back(from[static_cast<std::size_t>(i)]);
    return chosen;
  }

  ColumnSampling sampling_;
  std::uint64_t seed_ = 0;
  std::vector<std::int32_t> tree_;
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_COLUMN_SAMPLER_HPP
