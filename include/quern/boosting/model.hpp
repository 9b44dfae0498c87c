// SPDX-License-Identifier: Apache-2.0

/// \file
/// What boosting leaves behind: an additive model of trees, whoever trained it.

#ifndef QUERN_BOOSTING_MODEL_HPP
#define QUERN_BOOSTING_MODEL_HPP

#include "quern/core/config.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/tree.hpp"

#include <cstdint>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

using InputType = tree::InputType;

/// An additive model: margin_k(x) = base_margin_k + sum over trees t of output k of weight_t leaf_t(x).
struct Model {
  std::string objective = "reg:squarederror";  ///< XGBoost's name
  std::int32_t outputs = 1;                    ///< margins a row: classes of softmax, else 1
  std::vector<double> base_margin = {0.0};     ///< (outputs), in margin space
  std::vector<tree::Tree> trees;               ///< round-major, then output, then parallel tree
  std::vector<std::int32_t> tree_outputs;      ///< (trees): the output that a tree adds to
  std::vector<double> tree_weights;            ///< (trees): dart's weights, or empty: all one
  std::int32_t parallel_trees = 1;             ///< trees of one round and output (forests)
  std::int64_t best_round = -1;                ///< round that early stopping chose, -1: the last
  std::int64_t features = 0;                   ///< columns expected
  InputType input_type = InputType::float32;
  std::vector<std::string> feature_names;            ///< (features) or empty
  std::vector<tree::FeatureKind> feature_kinds;      ///< (features) or empty: all numeric
  std::vector<std::vector<std::string>> categories;  ///< (features): text of each code, or empty

  [[nodiscard]] std::int64_t trees_per_round() const noexcept {
    return std::int64_t{outputs} * parallel_trees;
  }
  [[nodiscard]] std::int64_t rounds() const noexcept {
    return static_cast<std::int64_t>(trees.size()) / trees_per_round();
  }
  /// Rounds that prediction uses: up to the best one where early stopping chose it.
  [[nodiscard]] std::int64_t used_rounds() const noexcept {
    return best_round >= 0 ? best_round + 1 : rounds();
  }
};

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_MODEL_HPP
