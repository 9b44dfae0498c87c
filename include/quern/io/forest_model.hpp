// SPDX-License-Identifier: Apache-2.0

/// \file
/// Trees and forests as models of trees that add up, which XGBoost's and LightGBM's formats hold
/// and which the explainer of boosting/ explains.

#ifndef QUERN_IO_FOREST_MODEL_HPP
#define QUERN_IO_FOREST_MODEL_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/compact_forest.hpp"
#include "quern/tree/tree.hpp"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// A model whose predictions are the forest's: the number, the probability of class 1 of two, or
/// the probability of each of more classes, one tree a class for every tree of the forest. (Those
/// formats add up leaves and have no vectors in them; leaves are divided by the number of trees,
/// and the objective is one that leaves sums as they are. LightGBM's text has a double a leaf,
/// XGBoost's a float.) ValueError for a forest without trees.
///
///     quern::io::save_xgboost_json(quern::io::forest_model(forest.forest()), "forest.json");
[[nodiscard]] inline boosting::Model forest_model(const tree::CompactForest& forest) {
  if (forest.size() == 0)
    throw ValueError(error_text("quern::io::forest_model", "forest",
                                "one that was fitted or loaded", "no trees"));
  const auto k = static_cast<std::size_t>(forest.outputs());
  const std::size_t first = k == 2 ? 1 : 0;  // of two classes the second one is told
  boosting::Model model;
  model.objective = "reg:squarederror";
  model.outputs = static_cast<std::int32_t>(k - first);
  model.base_margin.assign(k - first, 0.0);
  model.features = forest.features();
  model.parallel_trees = static_cast<std::int32_t>(forest.size());
  for (std::size_t o = first; o < k; ++o) {
    for (std::int64_t t = 0; t < forest.size(); ++t) {
      tree::Tree tree = forest.tree(t);
      for (std::size_t i = 0; i < tree.nodes.size(); ++i) {
        tree::Node& n = tree.nodes[i];
        if (k > 1) n.value = tree.vector_values[i * k + o];
        n.value /= static_cast<double>(forest.size());
      }
      tree.outputs = 1;
      tree.vector_values.clear();
      model.trees.push_back(std::move(tree));
      model.tree_outputs.push_back(static_cast<std::int32_t>(o - first));
    }
  }
  return model;
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_FOREST_MODEL_HPP
