// SPDX-License-Identifier: Apache-2.0

/// \file
/// What boosting leaves behind: an additive model of trees, whoever trained it.

#ifndef QUERN_BOOSTING_MODEL_HPP
#define QUERN_BOOSTING_MODEL_HPP

#include "quern/boosting/objective_params.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/forest_source.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

using InputType = tree::InputType;

/// An additive model: margin_k(x) = base_margin_k + sum over trees t of output k of weight_t
/// leaf_t(x). Or a linear one (booster gblinear), without trees: margin_k(x) = base_margin_k +
/// linear_weights(features, k) + sum over f of linear_weights(f, k) x_f, where missing counts as 0.
struct Model {
  std::string objective = "reg:squarederror";  ///< XGBoost's name
  ObjectiveParams objective_params;            ///< those of its parameters that it has
  std::int32_t outputs = 1;                    ///< margins a row: classes, quantiles, else 1
  std::vector<double> base_margin = {0.0};     ///< (outputs), in margin space
  std::vector<tree::Tree> trees;               ///< round-major, then output, then parallel tree
  std::vector<std::int32_t> tree_outputs;      ///< (trees): the output that a tree adds to
  std::vector<double> tree_weights;            ///< (trees): dart's weights, or empty: all one
  std::vector<double> linear_weights;          ///< (features + 1, outputs) row-major, biases last
  std::int32_t parallel_trees = 1;             ///< trees of one round and output (forests)
  std::int64_t best_round = -1;                ///< round that early stopping chose, -1: the last
  std::int64_t features = 0;                   ///< columns expected
  InputType input_type = InputType::float32;
  std::vector<std::string> feature_names;            ///< (features) or empty
  std::vector<tree::FeatureKind> feature_kinds;      ///< (features) or empty: all numeric
  std::vector<std::vector<std::string>> categories;  ///< (features): text of each code, or empty

  [[nodiscard]] bool is_linear() const noexcept { return !linear_weights.empty(); }
  [[nodiscard]] std::int64_t trees_per_round() const noexcept {
    return std::int64_t{outputs} * parallel_trees;
  }
  [[nodiscard]] std::int64_t rounds() const noexcept {
    return static_cast<std::int64_t>(trees.size()) / trees_per_round();
  }
  /// Rounds that prediction uses: up to the best one where early stopping chose it.
  [[nodiscard]] std::int64_t used_rounds() const noexcept {
    return best_round >= 0 ? (std::min)(best_round + 1, rounds()) : rounds();
  }

  /// Throws ParseError, naming \p where and the place, unless the parts fit each other: lengths,
  /// whole rounds, outputs and best round in range, finite numbers, and every tree is a tree.
  void check(const std::string& where) const;
};

namespace detail {

inline void expect_size(const std::string& where, const char* field, std::size_t expected,
                        std::size_t got, bool may_be_empty) {
  if (got == expected || (may_be_empty && got == 0)) return;
  throw ParseError(error_text(where, field, std::to_string(expected) + " entries", got));
}

}  // namespace detail

inline void Model::check(const std::string& where) const {
  const auto fail = [&](const char* field, const std::string& expected, auto got) {
    throw ParseError(error_text(where, field, expected, got));
  };
  if (outputs < 1) fail("outputs", "at least 1", outputs);
  if (!objective_params.quantile_alpha.empty())
    detail::expect_size(where, "quantile_alpha", static_cast<std::size_t>(outputs),
                        objective_params.quantile_alpha.size(), false);
  if (parallel_trees < 1) fail("parallel_trees", "at least 1", parallel_trees);
  if (features < 0 || features > (std::numeric_limits<std::int32_t>::max)())
    fail("features", "0..2^31-1", features);
  const auto columns = static_cast<std::size_t>(features);
  detail::expect_size(where, "base_margin", static_cast<std::size_t>(outputs), base_margin.size(),
                      false);
  detail::expect_size(where, "tree_outputs", trees.size(), tree_outputs.size(), false);
  detail::expect_size(where, "tree_weights", trees.size(), tree_weights.size(), true);
  detail::expect_size(where, "feature_names", columns, feature_names.size(), true);
  detail::expect_size(where, "feature_kinds", columns, feature_kinds.size(), true);
  detail::expect_size(where, "categories", columns, categories.size(), true);
  for (double b : base_margin)
    if (!is_finite_bits(b)) fail("base_margin", "finite numbers", b);
  for (double w : tree_weights)
    if (!is_finite_bits(w)) fail("tree_weights", "finite numbers", w);
  if (is_linear()) {
    detail::expect_size(where, "linear_weights", (columns + 1) * static_cast<std::size_t>(outputs),
                        linear_weights.size(), false);
    if (!trees.empty()) fail("trees", "none in a linear model", trees.size());
    for (double w : linear_weights)
      if (!is_finite_bits(w)) fail("linear_weights", "finite numbers", w);
  }
  if (static_cast<std::int64_t>(trees.size()) % trees_per_round() != 0)
    fail("trees", "whole rounds of " + std::to_string(trees_per_round()), trees.size());
  if (best_round < -1 || best_round >= (std::max)(rounds(), std::int64_t{1}))
    fail("best_round", "-1 or a round of the model", best_round);
  for (std::size_t t = 0; t < trees.size(); ++t) {
    const std::string here = where + ", tree " + std::to_string(t);
    trees[t].check(features, here);
    if (tree_outputs[t] < 0 || tree_outputs[t] + std::int64_t{trees[t].outputs} > outputs)
      throw ParseError(error_text(here, "output", "an output of the model", tree_outputs[t]));
  }
}

/// The model's trees, for what compiles them; it looks at the model.
[[nodiscard]] inline tree::ForestSource forest_source(const Model& model) {
  return {.trees = model.trees,
          .tree_outputs = model.tree_outputs,
          .tree_weights = model.tree_weights,
          .base = model.base_margin,
          .features = model.features,
          .input_type = model.input_type};
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_MODEL_HPP
