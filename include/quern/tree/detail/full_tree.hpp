// SPDX-License-Identifier: Apache-2.0

/// \file
/// Trees brought to the shapes that batches are predicted with fastest: symmetric ones, and full
/// ones, where a leaf above the last level stands for all that would be below it.

#ifndef QUERN_TREE_DETAIL_FULL_TREE_HPP
#define QUERN_TREE_DETAIL_FULL_TREE_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/tree_predict_types.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Levels of a symmetric tree of plain numeric splits: all leaves at one depth, and one test a
/// level. 0 for any other, also for a lone leaf. (Looked for in every tree, since most formats have
/// no word for it.)
[[nodiscard]] inline std::int32_t symmetric_levels(const Tree& tree) {
  std::vector<std::int32_t> level = {0}, next;
  std::int32_t levels = 0;
  while (true) {
    const Node& first = tree.node(level[0]);
    next.clear();
    for (const std::int32_t i : level) {
      const Node& n = tree.node(i);
      if (n.is_leaf() != first.is_leaf()) return 0;
      if (n.is_leaf()) continue;
      if (n.feature != first.feature || n.threshold != first.threshold ||
          n.missing_left() != first.missing_left())
        return 0;
      next.push_back(n.left);
      next.push_back(n.right);
    }
    if (first.is_leaf()) return levels;
    std::swap(level, next);
    ++levels;
  }
}

/// Levels of the full tree that a tree is better predicted as, or 0. Filled up it costs two
/// instructions a node, otherwise four.
[[nodiscard]] inline std::int32_t full_levels(const Tree& tree, std::int32_t depth) {
  if (depth < 2 || depth > kernels::full_tree_levels) return 0;
  const std::int32_t levels = (std::max)(depth, 3);
  const std::int64_t filled = (std::int64_t{1} << levels) - 1;
  return filled <= 2 * (tree.leaves() - 1) ? levels : 0;
}

/// Calls use(node) for the leaf at each of the 2^levels places below node \p i, from the left.
template <class Use>
void full_leaves(const Tree& tree, std::int32_t i, std::int32_t levels, const Use& use) {
  const Node& n = tree.node(i);
  if (n.is_leaf()) {
    for (std::int32_t place = 0; place < 1 << levels; ++place) use(i);
    return;
  }
  full_leaves(tree, n.left, levels - 1, use);
  full_leaves(tree, n.right, levels - 1, use);
}

/// Calls use(node, levels, first leaf) for each of the 2^levels - 1 inner places below node \p i in
/// preorder, with a leaf for node where the place stands for one.
template <class Use>
void full_preorder(const Tree& tree, std::int32_t i, std::int32_t levels, const Use& use,
                   std::int32_t first = 0) {
  if (levels == 0) return;
  const Node& n = tree.node(i);
  use(i, levels, first);
  full_preorder(tree, n.is_leaf() ? i : n.left, levels - 1, use, first);
  full_preorder(tree, n.is_leaf() ? i : n.right, levels - 1, use, first + (1 << (levels - 1)));
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_FULL_TREE_HPP
