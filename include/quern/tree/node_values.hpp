// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the nodes of a grown tree say: values, covers and gains from the sums of their gradients.

#ifndef QUERN_TREE_NODE_VALUES_HPP
#define QUERN_TREE_NODE_VALUES_HPP

#include "quern/core/config.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/grow_options.hpp"
#include "quern/tree/split.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {
namespace detail {

/// Fills in the values of one tree, parents before children.
class NodeValues {
 public:
  NodeValues(Tree& tree, std::span<const GradientSum<double>> sums, const GrowOptions& options)
      : tree_(tree), sums_(sums), options_(options), bounds_(sums.size()), weights_(sums.size()) {}

  void run() {
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      Node& node = tree_.nodes[i];
      weights_[i] = weight(i);
      node.cover = sums_[i].h;
      node.value = options_.learning_rate * weights_[i];
      if (!node.is_leaf()) split(i);
    }
  }

 private:
  /// In a symmetric tree every leaf exists, also where a test would leave too little: such a node
  /// keeps the weight of its parent.
  [[nodiscard]] bool light(std::size_t i) const {
    const double h = sums_[i].h;
    return tree_.symmetric && (!(h > 0) || h < options_.split.min_child_weight);
  }

  [[nodiscard]] double weight(std::size_t i) const {
    const std::int32_t parent = tree_.nodes[i].parent;
    if (parent < 0 || !light(i)) return leaf_weight(sums_[i], options_.split, bounds_[i]);
    return (std::clamp)(weights_[static_cast<std::size_t>(parent)], bounds_[i].lower,
                        bounds_[i].upper);
  }

  /// The gain of inner node \p i, and the bounds of its children: a monotone split bounds them by
  /// the middle of their weights.
  void split(std::size_t i) {
    Node& node = tree_.nodes[i];
    const auto l = static_cast<std::size_t>(node.left), r = static_cast<std::size_t>(node.right);
    const WeightBounds& mine = bounds_[i];
    bounds_[l] = bounds_[r] = mine;
    const double left = light(l) ? weights_[i] : leaf_weight(sums_[l], options_.split, mine);
    const double right = light(r) ? weights_[i] : leaf_weight(sums_[r], options_.split, mine);
    const int sign = options_.monotone_of(node.feature);
    const bool against = tree_.symmetric && sign * (right - left) < 0;
    node.gain = against || light(l) || light(r) ? 0
                                                : node_score(sums_[l], options_.split, mine) +
                                                      node_score(sums_[r], options_.split, mine) -
                                                      node_score(sums_[i], options_.split, mine);
    if (sign == 0) return;
    const double middle = (left + right) / 2;
    bounds_[sign > 0 ? l : r].upper = middle;
    bounds_[sign > 0 ? r : l].lower = middle;
  }

  Tree& tree_;
  std::span<const GradientSum<double>> sums_;
  const GrowOptions& options_;
  std::vector<WeightBounds> bounds_;
  std::vector<double> weights_;  ///< before the learning rate
};

}  // namespace detail

/// Values, covers and gains of \p tree from the sums of its nodes (nodes), in the loss's units.
inline void set_node_values(Tree& tree, std::span<const GradientSum<double>> sums,
                            const GrowOptions& options) {
  detail::NodeValues(tree, sums, options).run();
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_NODE_VALUES_HPP
