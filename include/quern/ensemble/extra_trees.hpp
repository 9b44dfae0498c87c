// SPDX-License-Identifier: Apache-2.0

/// \file
/// Extremely randomised trees (P. Geurts, D. Ernst, L. Wehenkel, Machine Learning 63 (2006)): every
/// tree learns from all rows, and a node cuts each of the features drawn for it at one random
/// threshold.

#ifndef QUERN_ENSEMBLE_EXTRA_TREES_HPP
#define QUERN_ENSEMBLE_EXTRA_TREES_HPP

#include "quern/core/config.hpp"
#include "quern/ensemble/forest.hpp"
#include "quern/tree/cart_options.hpp"

QUERN_NAMESPACE_BEGIN
namespace ensemble {

namespace detail {

struct ExtraTreesDefaults {
  static constexpr tree::Splitter splitter = tree::Splitter::random;
  static constexpr bool bootstrap = false;
  static constexpr const char* classifier = "ExtraTreesClassifier";
  static constexpr const char* regressor = "ExtraTreesRegressor";
  static constexpr const char* classifier_kind = "ensemble.extra_trees_classifier";
  static constexpr const char* regressor_kind = "ensemble.extra_trees_regressor";
};
struct ExtraTreesClasses : ExtraTreesDefaults {
  static constexpr tree::Criterion criterion = tree::Criterion::gini;
  static constexpr tree::MaxFeatures max_features() { return tree::MaxFeatures::sqrt(); }
};
struct ExtraTreesNumbers : ExtraTreesDefaults {
  static constexpr tree::Criterion criterion = tree::Criterion::squared_error;
  static constexpr tree::MaxFeatures max_features() { return tree::MaxFeatures::all(); }
};

}  // namespace detail

/// Looks at the square root of the features' number in each node.
using ExtraTreesClassifier = ForestClassifier<detail::ExtraTreesClasses>;
/// Looks at all features in each node.
using ExtraTreesRegressor = ForestRegressor<detail::ExtraTreesNumbers>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_EXTRA_TREES_HPP
