// SPDX-License-Identifier: Apache-2.0

/// \file
/// Random forests (L. Breiman, Machine Learning 45 (2001)): every tree learns from rows drawn with
/// replacement, and every node chooses among features drawn anew.

#ifndef QUERN_ENSEMBLE_RANDOM_FOREST_HPP
#define QUERN_ENSEMBLE_RANDOM_FOREST_HPP

#include "quern/core/config.hpp"
#include "quern/ensemble/forest.hpp"
#include "quern/tree/cart_options.hpp"

QUERN_NAMESPACE_BEGIN
namespace ensemble {

namespace detail {

struct RandomForestDefaults {
  static constexpr tree::Splitter splitter = tree::Splitter::best;
  static constexpr bool bootstrap = true;
  static constexpr const char* classifier = "RandomForestClassifier";
  static constexpr const char* regressor = "RandomForestRegressor";
  static constexpr const char* classifier_kind = "ensemble.random_forest_classifier";
  static constexpr const char* regressor_kind = "ensemble.random_forest_regressor";
};
struct RandomForestClasses : RandomForestDefaults {
  static constexpr tree::Criterion criterion = tree::Criterion::gini;
  static constexpr tree::MaxFeatures max_features() { return tree::MaxFeatures::sqrt(); }
};
struct RandomForestNumbers : RandomForestDefaults {
  static constexpr tree::Criterion criterion = tree::Criterion::squared_error;
  static constexpr tree::MaxFeatures max_features() { return tree::MaxFeatures::all(); }
};

}  // namespace detail

/// Looks at the square root of the features' number in each node.
///
///     quern::ensemble::RandomForestClassifier forest({.n_estimators = 200, .oob_score = true});
///     forest.fit(quern::view(x), labels.classes().codes, labels.count(), {}, 7);
///     forest.predict_proba(quern::view(x_test), quern::view(probabilities));
using RandomForestClassifier = ForestClassifier<detail::RandomForestClasses>;
/// Looks at all features in each node.
using RandomForestRegressor = ForestRegressor<detail::RandomForestNumbers>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_RANDOM_FOREST_HPP
