// SPDX-License-Identifier: Apache-2.0

/// \file
/// Minimal cost-complexity pruning (Breiman et al., chapter 3): of all inner nodes the one whose
/// branch gains least for its leaves becomes a leaf, and again.

#ifndef QUERN_TREE_CART_PRUNE_HPP
#define QUERN_TREE_CART_PRUNE_HPP

#include "quern/core/config.hpp"
#include "quern/tree/cart.hpp"

#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// The steps of pruning a tree to its root. Entry 0 is the whole tree; entry i the tree after i
/// nodes became leaves.
struct PruningPath {
  std::vector<double> ccp_alphas;  ///< what a leaf less costs at that step; ascending
  std::vector<double> impurities;  ///< of the leaves together, by their shares of the weight
};

namespace detail {

template <class = void>
class BasicCartPruner {
 public:
  explicit BasicCartPruner(const CartGrowth& tree)
      : tree_(tree),
        parent_(tree.nodes.size(), -1),
        branch_(tree.nodes.size()),
        leaves_(tree.nodes.size(), 1) {
    for (std::size_t i = 0; i < tree.nodes.size(); ++i) {
      if (tree.nodes[i].left < 0) continue;
      const auto left = static_cast<std::size_t>(tree.nodes[i].left);
      parent_[left] = parent_[left + 1] = static_cast<std::int32_t>(i);
    }
    for (std::size_t i = tree.nodes.size(); i-- > 0;) {
      branch_[i] = cost(i);
      if (tree.nodes[i].left < 0) continue;
      const auto left = static_cast<std::size_t>(tree.nodes[i].left);
      branch_[i] = branch_[left] + branch_[left + 1];
      leaves_[i] = leaves_[left] + leaves_[left + 1];
      weakest_.insert({alpha(i), i});
    }
  }

  /// What the next step costs; false when only the root is left.
  [[nodiscard]] bool next(double& alpha) const {
    if (weakest_.empty()) return false;
    alpha = weakest_.begin()->first;
    return true;
  }
  /// Takes it.
  void step() {
    const std::size_t node = weakest_.begin()->second;
    const double more = cost(node) - branch_[node];
    const std::int64_t fewer = leaves_[node] - 1;
    drop_below(node);
    for (auto i = static_cast<std::int32_t>(node); i >= 0;
         i = parent_[static_cast<std::size_t>(i)]) {
      const auto at = static_cast<std::size_t>(i);
      weakest_.erase({alpha(at), at});
      branch_[at] += more;
      leaves_[at] -= fewer;
      if (at != node) weakest_.insert({alpha(at), at});
    }
  }
  [[nodiscard]] double impurity() const { return branch_[0]; }
  [[nodiscard]] bool is_leaf(std::size_t node) const { return leaves_[node] == 1; }

 private:
  [[nodiscard]] double cost(std::size_t i) const {
    return tree_.nodes[i].impurity * tree_.nodes[i].weight / tree_.nodes[0].weight;
  }
  [[nodiscard]] double alpha(std::size_t i) const {
    return (cost(i) - branch_[i]) / static_cast<double>(leaves_[i] - 1);
  }
  void drop_below(std::size_t node) {
    std::vector<std::size_t> stack = {node};
    while (!stack.empty()) {
      const std::size_t i = stack.back();
      stack.pop_back();
      if (leaves_[i] == 1) continue;
      if (i != node) weakest_.erase({alpha(i), i});
      stack.push_back(static_cast<std::size_t>(tree_.nodes[i].left));
      stack.push_back(static_cast<std::size_t>(tree_.nodes[i].left) + 1);
    }
  }

  const CartGrowth& tree_;
  std::vector<std::int32_t> parent_;
  std::vector<double> branch_;  ///< impurity of the leaves below
  std::vector<std::int64_t> leaves_;
  std::set<std::pair<double, std::size_t>> weakest_;
};
/// (A template, so that a program compiles it only where it uses it.)
using CartPruner = BasicCartPruner<>;

/// The tree without what is below the nodes that are to be leaves.
template <class IsLeaf>
CartGrowth without_branches(const CartGrowth& tree, const IsLeaf& is_leaf) {
  CartGrowth out;
  out.outputs = tree.outputs;
  std::vector<std::size_t> from = {0};
  for (std::size_t i = 0; i < from.size(); ++i) {
    out.nodes.push_back(tree.nodes[from[i]]);
    out.values.insert(out.values.end(), tree.value(from[i]), tree.value(from[i]) + tree.outputs);
    CartNode& n = out.nodes.back();
    if (n.left < 0) continue;
    if (is_leaf(from[i])) {
      n.left = n.feature = -1;
      n.decrease = 0;
      continue;
    }
    const auto left = static_cast<std::size_t>(n.left);
    n.left = static_cast<std::int32_t>(from.size());
    from.push_back(left);
    from.push_back(left + 1);
  }
  return out;
}

}  // namespace detail

/// All steps; see PruningPath.
[[nodiscard]] inline PruningPath pruning_path(const CartGrowth& tree) {
  detail::CartPruner pruner(tree);
  PruningPath path{{0.0}, {pruner.impurity()}};
  for (double alpha = 0; pruner.next(alpha);) {
    pruner.step();
    path.ccp_alphas.push_back(alpha);
    path.impurities.push_back(pruner.impurity());
  }
  return path;
}

/// Takes the steps that cost at most \p ccp_alpha.
[[nodiscard]] inline CartGrowth pruned(const CartGrowth& tree, double ccp_alpha) {
  detail::CartPruner pruner(tree);
  for (double alpha = 0; pruner.next(alpha) && alpha <= ccp_alpha;) pruner.step();
  return detail::without_branches(tree, [&](std::size_t i) { return pruner.is_leaf(i); });
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_CART_PRUNE_HPP
