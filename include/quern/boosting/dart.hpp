// SPDX-License-Identifier: Apache-2.0

/// \file
/// Dropped trees: which ones, and what they and the new ones weigh afterwards.
///
/// R. Korlakai Vinayak, R. Gilad-Bachrach, "DART: Dropouts meet Multiple Additive Regression
/// Trees", AISTATS 2015; choices and factors as XGBoost has them.

#ifndef QUERN_BOOSTING_DART_HPP
#define QUERN_BOOSTING_DART_HPP

#include "quern/boosting/options.hpp"
#include "quern/core/config.hpp"
#include "quern/core/random.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting::detail {

/// One of the trees, likelier the more it weighs.
[[nodiscard]] inline std::size_t drawn_by_weight(std::span<const double> weights, double sum,
                                                 Philox& rng) {
  double rest = rng.uniform<double>() * sum;
  for (std::size_t t = 0; t + 1 < weights.size(); ++t) {
    rest -= weights[t];
    if (rest < 0) return t;
  }
  return weights.size() - 1;
}

/// Numbers of the trees that round \p number leaves out, ascending. Weighted: a tree is dropped
/// with probability rate_drop * trees * its share of all weights.
[[nodiscard]] inline std::vector<std::size_t> dropped_trees(const Options& options,
                                                            std::span<const double> weights,
                                                            std::uint64_t number) {
  std::vector<std::size_t> dropped;
  Philox rng(options.seed, "dart", number);
  if (weights.empty() || rng.bernoulli(options.skip_drop)) return dropped;
  const bool weighted = options.sample_type == "weighted";
  double sum = 0;
  for (const double w : weights) sum += w;
  const auto trees = static_cast<double>(weights.size());
  for (std::size_t t = 0; t < weights.size(); ++t) {
    const double share = weighted ? trees * weights[t] / sum : 1.0;
    if (rng.uniform<double>() < options.rate_drop * share) dropped.push_back(t);
  }
  if (options.one_drop && dropped.empty()) {
    const auto n = static_cast<std::uint64_t>(weights.size());
    dropped.push_back(weighted ? drawn_by_weight(weights, sum, rng)
                               : static_cast<std::size_t>(rng.integer(n)));
  }
  return dropped;
}

/// After a round that dropped some trees.
struct DartFactors {
  double dropped = 1;  ///< factor of each dropped tree's weight
  double added = 1;    ///< weight of each new tree
};

/// With k dropped trees and the learning rate e = learning_rate / \p new_trees: "tree" gives
/// k / (k + e) and 1 / (k + e), so that new trees weigh as much as each dropped one; "forest" gives
/// 1 / (1 + e) for both, so that they weigh as much as all dropped ones together.
[[nodiscard]] inline DartFactors dart_factors(bool forest, std::size_t dropped,
                                              std::size_t new_trees, double learning_rate) {
  if (dropped == 0) return {};
  const double e = learning_rate / static_cast<double>(new_trees);
  if (forest) return {1 / (1 + e), 1 / (1 + e)};
  const auto k = static_cast<double>(dropped);
  return {k / (k + e), 1 / (k + e)};
}

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_DART_HPP
