// SPDX-License-Identifier: Apache-2.0

/// \file
/// A classification or regression tree as the tree::Tree that prediction, SHAP and dumps work on.

#ifndef QUERN_TREE_CART_TREE_HPP
#define QUERN_TREE_CART_TREE_HPP

#include "quern/core/config.hpp"
#include "quern/tree/cart.hpp"
#include "quern/tree/tree.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// The value t for which x < t is x <= threshold.
[[nodiscard]] inline double above_threshold(double threshold) {
  constexpr double infinity = (std::numeric_limits<double>::infinity)();
  constexpr double largest = (std::numeric_limits<double>::max)();
  return threshold >= largest ? infinity : std::nextafter(threshold, largest);
}

/// A grown tree with all its nodes and values. Outputs > 1: vector leaves.
[[nodiscard]] inline Tree to_tree(const CartGrowth& from) {
  Tree tree;
  tree.outputs = from.outputs;
  tree.nodes.resize(from.nodes.size());
  if (from.outputs > 1) tree.vector_values = from.values;
  for (std::size_t i = 0; i < from.nodes.size(); ++i) {
    const CartNode& n = from.nodes[i];
    Node& to = tree.nodes[i];
    to.cover = n.weight;
    if (from.outputs == 1) to.value = from.values[i];
    if (n.left < 0) continue;
    to.left = n.left;
    to.right = n.left + 1;
    to.feature = n.feature;
    to.threshold = above_threshold(n.threshold);
    to.gain = n.decrease;
    to.default_left = n.missing_left;
    tree.node(to.left).parent = tree.node(to.right).parent = static_cast<std::int32_t>(i);
  }
  return tree;
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_CART_TREE_HPP
