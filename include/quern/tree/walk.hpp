// SPDX-License-Identifier: Apache-2.0

/// \file
/// Walking down packed trees: several walks side by side, so that their loads overlap.

#ifndef QUERN_TREE_WALK_HPP
#define QUERN_TREE_WALK_HPP

#include "quern/core/config.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/packed_forest.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// How a walk keeps where it is, and the node there.
template <class Key>
inline const PlacedNode<Key>& node_at(const PlacedNode<Key>* nodes, std::uint64_t place) noexcept {
  return *reinterpret_cast<const PlacedNode<Key>*>(reinterpret_cast<const std::byte*>(nodes) +
                                                   8 * place);
}
template <class Key>
inline const WalkNode<Key>& node_at(const WalkNode<Key>* nodes, std::uint32_t number) noexcept {
  return nodes[number];
}

/// Where one step leads; a leaf leads to itself.
template <class Key>
inline std::uint64_t walk_step(const PlacedNode<Key>& n, Key key) noexcept {
  return n.child + (key >= n.threshold ? node_places<Key> : 0);
}
template <class Key>
inline std::uint32_t walk_step(const WalkNode<Key>& n, Key key) noexcept {
  return n.child + static_cast<std::uint32_t>(wrapping_sub(key, n.missing_right) >= n.threshold);
}

/// The key that a node wants: a slot, or PlacedNode::key_at.
template <class Key>
inline std::uint32_t wanted_key(const PlacedNode<Key>& n) noexcept {
  return n.key_at;
}
template <class Key>
inline std::uint32_t wanted_key(const WalkNode<Key>& n) noexcept {
  return n.slot;
}

/// The key at PlacedNode::key_at, of a slot's key.
template <class Key>
inline Key key_for(std::uint32_t key_at, Key key) noexcept {
  return wrapping_sub(key, static_cast<Key>(key_at & 1U));
}

template <class Node, class Place, class KeyAt, std::size_t Ways, std::size_t... Way>
inline Place walk_level(const Node* nodes, std::array<Place, Ways>& at, const KeyAt& key_at,
                        std::index_sequence<Way...>) noexcept {
  Place moved = 0;
  const auto step = [&](std::size_t way) {
    const Node& n = node_at(nodes, at[way]);
    const Place next = walk_step(n, key_at(wanted_key(n), way));
    moved |= next ^ at[way];
    at[way] = next;
  };
  (step(Way), ...);
  return moved;
}

/// Takes every walk from at[way] (a number, or a place among PlacedNodes) down to its leaf, at most
/// \p depth steps. key_at(k, way) is the key of that walk's row that a node wants.
template <class Node, class Place, class KeyAt, std::size_t Ways>
inline void walk(const Node* nodes, std::int32_t depth, std::array<Place, Ways>& at,
                 const KeyAt& key_at) noexcept {
  constexpr auto ways = std::make_index_sequence<Ways>();
  // A branch that stops early pays only in trees with some leaves much deeper than most.
  constexpr std::int32_t unchecked = 8;
  const std::int32_t first = (std::min)(depth, unchecked);
  for (std::int32_t level = 0; level < first; ++level) walk_level(nodes, at, key_at, ways);
  for (std::int32_t level = first; level < depth; ++level) {
    if (walk_level(nodes, at, key_at, ways) == 0) return;
  }
}

/// The leaf of a tree that is followed in its original form. key_at(slot) is the row's key.
template <class C, class KeyAt>
std::int32_t follow_tree(const PackedForest& forest, const Tree& tree, const KeyAt& key_at) {
  std::int32_t i = 0;
  while (!tree.node(i).is_leaf()) {
    const Node& n = tree.node(i);
    const auto key = key_at(forest.feature_slots[static_cast<std::size_t>(n.feature)]);
    const bool missing = key == kernels::missing_key<KeyOf<C>>;
    i = tree.next(n, missing ? 0.0 : static_cast<double>(float_of_key<C>(key)), missing);
  }
  return i;
}

/// What such a tree adds for a row.
template <class C, class KeyAt>
double original_value(const PackedForest& forest, const Tree& tree, const KeyAt& key_at) {
  return tree.leaf_value(
      follow_tree<C>(forest, tree, key_at), [&](std::int32_t feature, bool& missing) {
        const auto key = key_at(forest.feature_slots[static_cast<std::size_t>(feature)]);
        missing = key == kernels::missing_key<KeyOf<C>>;
        return missing ? 0.0 : static_cast<double>(float_of_key<C>(key));
      });
}

/// Sum of one output for one row; \p keys: two a slot, by WalkNode::key_at.
template <class C>
double sum_output(const PackedForest& forest, const KeyTables<KeyOf<C>>& tables,
                  const KeyOf<C>* keys, std::int64_t output, std::int64_t trees) {
  constexpr std::size_t ways = 8;
  const std::vector<std::int32_t>& list = forest.by_output[static_cast<std::size_t>(output)];
  double sum = forest.base[static_cast<std::size_t>(output)];
  const auto packed = [&](std::size_t i) -> const PackedTree& {
    return forest.packed[static_cast<std::size_t>(list[i])];
  };
  std::size_t i = 0;
  while (i < list.size() && packed(i).source < trees) {
    if (packed(i).form == TreeForm::categories) {
      const Tree& tree = forest.originals[static_cast<std::size_t>(packed(i).original)];
      sum += original_value<C>(forest, tree, [&](std::int32_t slot) { return keys[2 * slot]; });
      ++i;
      continue;
    }
    std::array<std::uint64_t, ways> at;
    std::int32_t depth = 0;
    std::size_t together = 0;
    while (together < ways && i < list.size() && packed(i).source < trees &&
           packed(i).form != TreeForm::categories) {
      depth = (std::max)(depth, packed(i).depth);
      at[together++] = packed(i++).root * node_places<KeyOf<C>>;
    }
    for (std::size_t way = together; way < ways; ++way) at[way] = at[0];
    walk(tables.nodes.data(), depth, at,
         [keys](std::uint32_t key_at, std::size_t) { return keys[key_at]; });
    for (std::size_t way = 0; way < together; ++way)
      sum += forest.walk_values[at[way] / node_places<KeyOf<C>>];
  }
  return sum;
}

/// One row through all trees; \p keys has room for two keys a slot, and for two at least.
template <class C, class T, class Out>
void sum_one(const PackedForest& forest, const KeyTables<KeyOf<C>>& tables, const T* row,
             KeyOf<C>* keys, std::int64_t trees, std::span<Out> out) {
  for (std::size_t slot = 0; slot < forest.slot_features.size(); ++slot) {
    const KeyOf<C> key = float_key(static_cast<C>(row[forest.slot_features[slot]]));
    keys[2 * slot] = key;
    keys[2 * slot + 1] = wrapping_sub(key, KeyOf<C>{1});
  }
  if (forest.slot_features.empty()) keys[0] = 0;  // leaves look at the first
  for (std::size_t k = 0; k < out.size(); ++k) {
    out[k] =
        static_cast<Out>(sum_output<C>(forest, tables, keys, static_cast<std::int64_t>(k), trees));
  }
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_WALK_HPP
