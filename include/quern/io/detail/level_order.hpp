// SPDX-License-Identifier: Apache-2.0

/// \file
/// A tree renumbered level by level, so that siblings are neighbours and pruned places are gone.

#ifndef QUERN_IO_DETAIL_LEVEL_ORDER_HPP
#define QUERN_IO_DETAIL_LEVEL_ORDER_HPP

#include "quern/core/config.hpp"
#include "quern/tree/tree.hpp"

#include <cstddef>
#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// The same tree of one value a leaf, without linear leaves: children behind their parents, right
/// children next to left ones.
[[nodiscard]] inline tree::Tree in_level_order(const tree::Tree& from) {
  tree::Tree to;
  to.nodes.clear();
  to.category_words = from.category_words;
  to.nodes.push_back(from.node(0));
  for (std::size_t i = 0; i < to.nodes.size(); ++i) {
    if (to.nodes[i].is_leaf()) continue;
    const auto next = static_cast<std::int32_t>(to.nodes.size());
    to.nodes.push_back(from.node(to.nodes[i].left));
    to.nodes.push_back(from.node(to.nodes[i].right));
    to.nodes[i].left = next;
    to.nodes[i].right = next + 1;
    to.node(next).parent = static_cast<std::int32_t>(i);
    to.node(next + 1).parent = static_cast<std::int32_t>(i);
  }
  return to;
}

/// Whether right children are next to left ones.
[[nodiscard]] inline bool siblings_are_neighbours(const tree::Tree& tree) {
  for (const tree::Node& n : tree.nodes) {
    if (!n.is_leaf() && n.right != n.left + 1) return false;
  }
  return true;
}

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_DETAIL_LEVEL_ORDER_HPP
