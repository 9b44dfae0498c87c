// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a split is worth and what a leaf says: the second-order objective of gradient boosting.
///
/// With G and H the sums of first and second derivatives of the loss over a node's rows, a leaf of
/// weight w changes the regularised loss by G w + (H + lambda) w^2 / 2 + alpha |w| + gamma (Chen
/// and Guestrin, 2016, eq. 5 and 6). The best weight is -T(G) / (H + lambda), T shrinking |G| by
/// alpha, and takes off T(G)^2 / (H + lambda) / 2. As XGBoost does, gains and `gamma` here leave
/// out the factor 1/2: a split is made where score(left) + score(right) - score(parent) >= gamma,
/// which is the paper's condition with its gamma doubled.

#ifndef QUERN_TREE_SPLIT_HPP
#define QUERN_TREE_SPLIT_HPP

#include "quern/core/config.hpp"
#include "quern/tree/gradient.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Regularisation of one tree; names and defaults as XGBoost's.
struct SplitOptions {
  double reg_lambda = 1;        ///< L2 of leaf weights, >= 0
  double reg_alpha = 0;         ///< L1 of leaf weights, >= 0
  double gamma = 0;             ///< least gain of a split, >= 0 (see the file comment)
  double min_child_weight = 1;  ///< least sum of hessians in a child, >= 0
  double max_delta_step = 0;    ///< bound of |leaf weight| before the learning rate, 0: none
};

/// Interval that a node's weight must stay in, from monotone constraints above it.
struct WeightBounds {
  double lower = -(std::numeric_limits<double>::max)();
  double upper = (std::numeric_limits<double>::max)();
};

/// A set of codes.
struct CodeSet {
  std::array<std::uint64_t, 4> words{};

  void insert(int code) noexcept {
    words[static_cast<std::size_t>(code >> 6)] |= std::uint64_t{1} << (code & 63);
  }
  [[nodiscard]] bool contains(int code) const noexcept {
    return (words[static_cast<std::size_t>(code >> 6)] >> (code & 63) & 1) != 0;
  }
};

/// A chosen split: codes 1 .. bin of the feature go left; of a categorical feature, all codes but
/// those of a set.
struct Split {
  double gain = -(std::numeric_limits<double>::max)();
  std::int32_t feature = -1;
  std::int32_t bin = 0;
  bool missing_left = false;
  bool categorical = false;
  CodeSet right = {};  ///< categorical: the codes that go right

  [[nodiscard]] bool valid() const noexcept { return feature >= 0; }
  /// Whether rows with this code (0: missing) go left.
  [[nodiscard]] bool goes_left(int code) const noexcept {
    if (code == 0) return missing_left;
    return categorical ? !right.contains(code) : code <= bin;
  }
};

/// Leaf weight of a node with sums \p s, before the learning rate.
[[nodiscard]] inline double leaf_weight(const GradientSum<double>& s, const SplitOptions& options,
                                        const WeightBounds& bounds = {}) {
  if (!(s.h > 0)) return 0;
  const double shrunk = (std::max)(std::fabs(s.g) - options.reg_alpha, 0.0);
  double w = -std::copysign(shrunk, s.g) / (s.h + options.reg_lambda);
  if (options.max_delta_step > 0)
    w = (std::clamp)(w, -options.max_delta_step, options.max_delta_step);
  return (std::clamp)(w, bounds.lower, bounds.upper);
}

/// Twice what the best allowed weight takes off the regularised loss.
[[nodiscard]] inline double node_score(const GradientSum<double>& s, const SplitOptions& options,
                                       const WeightBounds& bounds = {}) {
  if (!(s.h > 0)) return 0;
  const double w = leaf_weight(s, options, bounds);
  return -(2 * (s.g * w + options.reg_alpha * std::fabs(w)) + (s.h + options.reg_lambda) * w * w);
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_SPLIT_HPP
