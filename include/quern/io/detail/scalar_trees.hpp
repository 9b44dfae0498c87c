// SPDX-License-Identifier: Apache-2.0

/// \file
/// Trees whose leaves are vectors as trees of one value a leaf, for formats that have no others.

#ifndef QUERN_IO_DETAIL_SCALAR_TREES_HPP
#define QUERN_IO_DETAIL_SCALAR_TREES_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/forest_source.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

[[nodiscard]] inline bool has_vector_leaves(const boosting::Model& model) {
  return std::any_of(model.trees.begin(), model.trees.end(),
                     [](const tree::Tree& t) { return t.outputs > 1; });
}

/// The same margins from a tree for each output of every tree, which makes a round of it.
/// ValueError for a tree that does not hold all outputs: rounds would not be whole.
[[nodiscard]] inline boosting::Model with_scalar_trees(const boosting::Model& model,
                                                       const std::string& function) {
  boosting::Model split = model;
  split.trees.clear();
  split.tree_outputs.clear();
  split.tree_weights.clear();
  for (std::size_t t = 0; t < model.trees.size(); ++t) {
    const tree::Tree& all = model.trees[t];
    if (all.outputs != model.outputs)
      throw ValueError(error_text(
          function, "model, tree " + std::to_string(t),
          "leaves of all " + std::to_string(model.outputs) + " outputs, as other trees have",
          std::to_string(all.outputs) + " a leaf"));
    for (std::int32_t k = 0; k < all.outputs; ++k) {
      tree::Tree one = all;
      one.outputs = 1;
      one.vector_values.clear();
      for (std::int32_t i = 0; i < one.size(); ++i)
        one.node(i).value = tree::detail::leaf_value(all, i, k);
      split.trees.push_back(std::move(one));
      split.tree_outputs.push_back(k);
      if (!model.tree_weights.empty()) split.tree_weights.push_back(model.tree_weights[t]);
    }
  }
  split.parallel_trees = 1;
  if (model.best_round >= 0) split.best_round = model.used_rounds() * model.trees_per_round() - 1;
  return split;
}

/// A model that is looked at as it is, or, with vector leaves, split.
class ScalarModel {
 public:
  ScalarModel(const boosting::Model& model, const std::string& function) : model_(&model) {
    model.check(function);
    if (!has_vector_leaves(model)) return;
    split_ = with_scalar_trees(model, function);
    model_ = &split_;
  }
  ScalarModel(const ScalarModel&) = delete;
  ScalarModel& operator=(const ScalarModel&) = delete;

  [[nodiscard]] const boosting::Model& get() const noexcept { return *model_; }

 private:
  boosting::Model split_;
  const boosting::Model* model_;
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_DETAIL_SCALAR_TREES_HPP
