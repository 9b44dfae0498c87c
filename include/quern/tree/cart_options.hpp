// SPDX-License-Identifier: Apache-2.0

/// \file
/// How a CART tree is grown (L. Breiman, J. Friedman, R. Olshen, C. Stone, "Classification and
/// Regression Trees", 1984). Names and meanings are scikit-learn's, so that trees are equal to its
/// trees where nothing is drawn at random.

#ifndef QUERN_TREE_CART_OPTIONS_HPP
#define QUERN_TREE_CART_OPTIONS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// What a split is to make small.
enum class Criterion : std::uint8_t {
  gini,            ///< classes: 1 - sum of p_k^2
  entropy,         ///< classes: - sum of p_k log2 p_k
  squared_error,   ///< numbers: mean of (y - mean)^2; leaves hold means
  absolute_error,  ///< numbers: mean of |y - median|; leaves hold medians
};

/// Where a feature is cut.
enum class Splitter : std::uint8_t {
  best,    ///< at the best of all thresholds
  random,  ///< at one threshold, uniform between the node's smallest and largest value (P. Geurts,
           ///< D. Ernst, L. Wehenkel, "Extremely randomized trees", Machine Learning 63 (2006))
};

/// How many features a node looks at. More are looked at where those are all constant.
class MaxFeatures {
 public:
  [[nodiscard]] static constexpr MaxFeatures all() noexcept { return {Kind::share, 1.0}; }
  /// The square root of their number.
  [[nodiscard]] static constexpr MaxFeatures sqrt() noexcept { return {Kind::sqrt, 0.0}; }
  [[nodiscard]] static constexpr MaxFeatures log2() noexcept { return {Kind::log2, 0.0}; }
  /// So many.
  [[nodiscard]] static constexpr MaxFeatures count(std::int32_t n) noexcept {
    return {Kind::count, static_cast<double>(n)};
  }
  /// Such a share of them, in (0, 1].
  [[nodiscard]] static constexpr MaxFeatures share(double of_all) noexcept {
    return {Kind::share, of_all};
  }

  /// At least 1, rounded down. ValueError for a share outside (0, 1] or a count outside
  /// 1..features.
  [[nodiscard]] std::int32_t of(const std::string& function, std::int32_t features) const {
    double n = value_;
    const double all = static_cast<double>(features);
    if (kind_ == Kind::sqrt) n = std::sqrt(all);
    if (kind_ == Kind::log2) n = std::log2(all);
    if (kind_ == Kind::share) {
      if (!(value_ > 0 && value_ <= 1))
        throw ValueError(error_text(function, "max_features", "a share in (0, 1]", value_));
      n = value_ * all;
    }
    if (kind_ == Kind::count && !(value_ >= 1 && value_ <= all))
      throw ValueError(
          error_text(function, "max_features", "1.." + std::to_string(features), value_));
    return (std::clamp)(static_cast<std::int32_t>(n), std::int32_t{1}, features);
  }

  friend constexpr bool operator==(const MaxFeatures&, const MaxFeatures&) = default;

 private:
  enum class Kind : std::uint8_t { count, share, sqrt, log2 };
  constexpr MaxFeatures(Kind kind, double value) noexcept : kind_(kind), value_(value) {}

  Kind kind_;
  double value_;
};

/// Options of one tree. Counts of samples are rows of weight > 0.
struct CartOptions {
  Criterion criterion = Criterion::gini;
  Splitter splitter = Splitter::best;
  std::int32_t max_depth = 0;           ///< 0: until leaves are pure
  std::int64_t min_samples_split = 2;   ///< rows that a node needs to be split
  std::int64_t min_samples_leaf = 1;    ///< rows that each child needs
  double min_weight_fraction_leaf = 0;  ///< share of all weight that each child needs, 0..0.5
  double min_impurity_decrease = 0;     ///< share of weight times decrease that a split needs
  MaxFeatures max_features = MaxFeatures::all();
  std::int64_t max_leaf_nodes = 0;  ///< 0: no bound; else the best split of all leaves goes first
  double ccp_alpha = 0;             ///< cost-complexity pruning: see cart_prune.hpp

  /// ValueError, naming \p function, for an option out of range.
  void check(const std::string& function) const {
    const auto at_least = [&](const char* name, std::int64_t value, std::int64_t low) {
      if (value < low)
        throw ValueError(error_text(function, name, "at least " + std::to_string(low), value));
    };
    at_least("max_depth", max_depth, 0);
    at_least("min_samples_split", min_samples_split, 2);
    at_least("min_samples_leaf", min_samples_leaf, 1);
    at_least("max_leaf_nodes", max_leaf_nodes, 0);
    if (max_leaf_nodes == 1)
      throw ValueError(error_text(function, "max_leaf_nodes", "0 (no bound) or at least 2", 1));
    expect_in_range(function, "min_weight_fraction_leaf", min_weight_fraction_leaf, 0.0, 0.5);
    const auto not_negative = [&](const char* name, double value) {
      if (!is_finite_bits(value) || value < 0)
        throw ValueError(error_text(function, name, "a finite number >= 0", value));
    };
    not_negative("min_impurity_decrease", min_impurity_decrease);
    not_negative("ccp_alpha", ccp_alpha);
  }

  [[nodiscard]] bool classifies() const noexcept {
    return criterion == Criterion::gini || criterion == Criterion::entropy;
  }
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_CART_OPTIONS_HPP
