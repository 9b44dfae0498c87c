// SPDX-License-Identifier: Apache-2.0

/// \file
/// Trees compiled for prediction: built once, then only read, by any number of threads.
///
/// Every tree is kept as *walk nodes* (children side by side, features as integer keys, a leaf that
/// leads to itself), which serve single rows and large trees; a tree of at most 256 leaves without
/// categories also over columns of byte codes, which serve batches: as the levels of a symmetric
/// tree, as a full tree of up to 6 levels, or else as *lane nodes*. All take the same decisions and
/// find the same leaves, so the way that is chosen never shows in the result.

#ifndef QUERN_TREE_PACKED_FOREST_HPP
#define QUERN_TREE_PACKED_FOREST_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/tree_predict_types.hpp"
#include "quern/tree/detail/code_buckets.hpp"
#include "quern/tree/detail/full_tree.hpp"
#include "quern/tree/float_key.hpp"
#include "quern/tree/forest_source.hpp"
#include "quern/tree/scratch.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

namespace detail {

/// One step of a walk: goes to child + (key - missing_right >= threshold), where the subtraction
/// wraps, so that a missing value's key is either the smallest or the largest. A leaf: itself.
template <class Key>
struct WalkNode {
  Key threshold = (std::numeric_limits<Key>::min)();
  std::uint32_t slot = 0;
  std::uint32_t child = 0;
  Key missing_right = 0;
};

/// The same with less to do at each step, of which a row takes hundreds: which of a slot's two keys
/// is looked at (the second is one lower and wraps) and where the children lie is worked out
/// beforehand.
template <class Key>
struct PlacedNode {
  Key threshold = (std::numeric_limits<Key>::min)();
  std::uint32_t key_at = 0;  ///< 2 * slot, one more where missing values go right
  std::uint64_t child = 0;   ///< place of the left child; the right one follows
};

/// Places count eight bytes, by which addresses are scaled for nothing.
template <class Key>
inline constexpr std::uint64_t node_places = sizeof(PlacedNode<Key>) / 8;

template <class Key>
[[nodiscard]] constexpr Key wrapping_sub(Key a, Key b) noexcept {
  using Unsigned = std::make_unsigned_t<Key>;
  return static_cast<Key>(static_cast<Unsigned>(a) - static_cast<Unsigned>(b));
}

/// What the nodes of one kind of key are: floats always, doubles where the maker compared those.
template <class Key>
struct KeyTables {
  std::vector<PlacedNode<Key>> nodes;  ///< of all trees, each breadth first
  std::vector<Key> codes;              ///< (columns, code_table_size)
};

/// Rows that are taken through all trees together: their codes stay in the cache.
inline constexpr std::int64_t predict_tile_rows = 256;

/// Up to 255 thresholds of one feature, for nodes that send missing values one way.
struct CodeColumn {
  std::int32_t slot = 0;
  std::int32_t thresholds = 0;
  bool missing_right = false;
  bool as_previous = false;  ///< the same thresholds as the column before, which is for the left
  kernels::CodeBuckets buckets = {};  ///< for float keys
};

enum class TreeForm : std::uint8_t {
  symmetric,   ///< one test a level, up to 8 levels
  full,        ///< 3 to 6 levels, filled up where leaves are missing
  lanes,       ///< at most 256 leaves, numeric splits only
  walk,        ///< numeric splits only
  categories,  ///< has other splits (categories, zeros that are missing) or linear leaves: the
               ///< original is followed
};

struct PackedTree {
  TreeForm form = TreeForm::walk;
  std::int32_t source = 0;  ///< number of the tree it was made from
  std::int32_t output = 0;
  std::int32_t depth = 0;
  std::uint32_t root = 0;       ///< first walk node
  std::int32_t original = -1;   ///< categories: index into PackedForest::originals
  std::int64_t lane_begin = 0;  ///< first lane node, or split node of symmetric and full trees
  std::int64_t lane_count = 0;  ///< lane nodes, or levels of symmetric and full trees
  std::int64_t leaf_begin = 0;  ///< but for walk: first entry of leaf_values, leaf_nodes

  /// Whether batches find its leaves by codes.
  [[nodiscard]] bool by_codes() const noexcept { return form <= TreeForm::lanes; }
};

/// Distinct thresholds of one feature, ascending; filled while packing.
struct FeatureThresholds {
  std::vector<double> values;
  std::array<bool, 2> used = {false, false};  ///< missing directions that occur: left, right
  std::int32_t first_column = 0;

  /// Column of the threshold of that rank for a missing direction.
  [[nodiscard]] std::int32_t column(std::int32_t rank, std::size_t side) const noexcept {
    const std::int32_t sides = used[0] && used[1] ? 2 : 1;
    const std::int32_t second = used[0] && side == 1 ? 1 : 0;
    return first_column + rank / kernels::code_thresholds * sides + second;
  }
};

/// Where a threshold is found: its column, and the code up to which rows are below it.
struct CodePlace {
  std::int32_t column = 0;
  std::int32_t code = 0;
};

}  // namespace detail

/// See the file comment. Members are for predict.hpp; all are written by the constructor only.
class PackedForest : public ForestFrame {
 public:
  PackedForest() = default;
  /// Throws ShapeError where lengths do not fit each other, ValueError for an output out of range
  /// or a forest of more than 2^32 - 1 nodes.
  explicit PackedForest(const ForestSource& source);

  std::vector<detail::CodeColumn> columns;  ///< by slot
  std::vector<detail::PackedTree> packed;   ///< in the order in which they are added
  std::vector<kernels::LaneNode> lane_nodes;
  std::vector<kernels::SplitNode> split_nodes;
  std::vector<std::uint8_t> bucket_starts;   ///< (columns, code_buckets)
  std::vector<double> leaf_values;           ///< weighted, as the tree's form numbers its leaves
  std::vector<std::int32_t> leaf_nodes;      ///< the same leaves: node of the original tree
  std::vector<double> walk_values;           ///< (walk nodes): weighted, inner nodes 0
  std::vector<std::int32_t> walk_originals;  ///< (walk nodes): node of the original tree
  std::vector<Tree> originals;               ///< trees of the form categories
  detail::KeyTables<std::int32_t> float_tables;
  detail::KeyTables<std::int64_t> double_tables;  ///< empty unless the input type is float64
  bool any_walk = false;                          ///< a tree that codes do not serve
  /// Working memory of predictions; copies of a forest share it.
  std::shared_ptr<detail::ScratchPool> scratch = std::make_shared<detail::ScratchPool>();

 private:
  static void expect_walk_nodes(const ForestSource& source);
  void add_tree(const ForestSource& source, std::size_t t, std::int32_t output,
                std::int32_t vector);
  void add_walk(const Tree& tree, double weight, std::int32_t vector, detail::PackedTree& packed);
  void add_leaves(const Tree& tree, double weight, std::int32_t vector, detail::PackedTree& packed);
  void add_thresholds(const Tree& tree);
  [[nodiscard]] double comparable(double threshold) const noexcept;
  void collect_thresholds();
  void make_columns();
  void add_code_table(const double* values, std::int32_t count);
  [[nodiscard]] detail::CodePlace place_of(const Node& n) const;
  void make_lane_nodes(const Tree& tree, detail::PackedTree& packed);
  void make_split_nodes(const Tree& tree, detail::PackedTree& packed);

  std::vector<detail::FeatureThresholds> thresholds_;  // (slots), while packing
};

namespace detail {

/// The entries of one column's table from `count` ascending thresholds.
template <class T, class Key>
void fill_code_table(const double* values, std::int32_t count, Key* table) {
  for (std::int32_t i = 0; i < 256; ++i) {
    if (i >= count) {
      table[i] = (std::numeric_limits<Key>::max)();
    } else if constexpr (sizeof(T) == 4) {
      table[i] = float_key(round_up_to_float(values[i])) - 1;
    } else {
      table[i] = float_key(values[i]) - 1;
    }
  }
  for (std::int32_t i = 0; i < 16; ++i) table[256 + i] = table[16 * i + 15];
}

inline std::uint32_t four_bytes(std::int32_t byte) {
  return static_cast<std::uint32_t>(byte & 0xff) * 0x01010101U;
}

}  // namespace detail

inline void PackedForest::expect_walk_nodes(const ForestSource& source) {
  std::uint64_t nodes = 0;
  for (const Tree& tree : source.trees)
    nodes += tree.nodes.size() * static_cast<std::uint64_t>(tree.outputs);
  if (nodes >= (std::numeric_limits<std::uint32_t>::max)())
    throw ValueError(
        error_text("quern::tree::PackedForest", "trees", "fewer than 2^32 - 1 nodes", nodes));
}

inline double PackedForest::comparable(double threshold) const noexcept {
  return compares_doubles() ? threshold : static_cast<double>(round_up_to_float(threshold));
}

inline void PackedForest::add_walk(const Tree& tree, double weight, std::int32_t vector,
                                   detail::PackedTree& out) {
  // Breadth first, so that the first steps of all rows share cache lines.
  std::vector<std::int32_t> order = {0};
  out.root = static_cast<std::uint32_t>(walk_values.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int32_t original = order[i];
    const Node& n = tree.node(original);
    detail::PlacedNode<std::int32_t> node32;
    detail::PlacedNode<std::int64_t> node64;
    // A leaf takes its right turn, to itself.
    std::uint64_t child = std::uint64_t{out.root} + i - 1;
    if (!n.is_leaf()) {
      const std::int32_t right = n.missing_left() ? 0 : 1;
      node32.key_at = node64.key_at =
          2 * static_cast<std::uint32_t>(feature_slots[static_cast<std::size_t>(n.feature)]) +
          static_cast<std::uint32_t>(right);
      child = std::uint64_t{out.root} + order.size();
      node32.threshold = float_key(round_up_to_float(n.threshold)) - right;
      node64.threshold = float_key(n.threshold) - right;
      order.push_back(n.left);
      order.push_back(n.right);
    }
    node32.child = child * detail::node_places<std::int32_t>;
    node64.child = child * detail::node_places<std::int64_t>;
    float_tables.nodes.push_back(node32);
    if (compares_doubles()) double_tables.nodes.push_back(node64);
    walk_values.push_back(n.is_leaf() ? weight * detail::leaf_value(tree, original, vector) : 0.0);
    walk_originals.push_back(original);
  }
}

inline void PackedForest::add_thresholds(const Tree& tree) {
  for (std::int32_t i = 0; i < tree.size(); ++i) {
    const Node& n = tree.node(i);
    if (n.is_leaf()) continue;
    const auto slot = static_cast<std::size_t>(feature_slots[static_cast<std::size_t>(n.feature)]);
    thresholds_[slot].values.push_back(comparable(n.threshold));
    thresholds_[slot].used[n.missing_left() ? 0 : 1] = true;
  }
}

inline void PackedForest::add_leaves(const Tree& tree, double weight, std::int32_t vector,
                                     detail::PackedTree& out) {
  out.leaf_begin = static_cast<std::int64_t>(leaf_values.size());
  const auto add = [&](std::int32_t i) {
    leaf_values.push_back(weight * detail::leaf_value(tree, i, vector));
    leaf_nodes.push_back(i);
  };
  if (out.form == detail::TreeForm::lanes) {
    std::vector<std::int32_t> stack = {0};
    while (!stack.empty()) {
      const std::int32_t i = stack.back();
      stack.pop_back();
      if (tree.node(i).is_leaf()) {
        add(i);
      } else {
        stack.push_back(tree.node(i).right);
        stack.push_back(tree.node(i).left);
      }
    }
    return;
  }
  detail::full_leaves(tree, 0, static_cast<std::int32_t>(out.lane_count), add);
}

inline void PackedForest::add_tree(const ForestSource& source, std::size_t t, std::int32_t output,
                                   std::int32_t vector) {
  const Tree& tree = source.trees[t];
  const double weight = source.tree_weights.empty() ? 1.0 : source.tree_weights[t];
  detail::PackedTree out;
  out.source = static_cast<std::int32_t>(t);
  out.output = output + vector;
  out.depth = tree.depth();
  if (detail::has_special_splits(tree) || !tree.linear.empty()) {
    out.form = detail::TreeForm::categories;
    out.original = static_cast<std::int32_t>(originals.size());
    originals.push_back(tree);
    Tree& copy = originals.back();
    for (std::int32_t i = 0; i < copy.size(); ++i) {
      copy.node(i).value = weight * detail::leaf_value(tree, i, vector);
    }
    for (double& c : copy.linear.constants) c *= weight;
    for (double& c : copy.linear.coefficients) c *= weight;
  } else {
    add_walk(tree, weight, vector, out);
    if (tree.leaves() <= 256) {
      out.form = detail::TreeForm::lanes;
      if (const std::int32_t levels = detail::symmetric_levels(tree); levels > 0) {
        out.form = detail::TreeForm::symmetric;
        out.lane_count = levels;
      } else if (const std::int32_t full = detail::full_levels(tree, out.depth); full > 0) {
        out.form = detail::TreeForm::full;
        out.lane_count = full;
      }
      add_leaves(tree, weight, vector, out);
      add_thresholds(tree);
    }
  }
  any_walk = any_walk || !out.by_codes();
  by_output[static_cast<std::size_t>(out.output)].push_back(
      static_cast<std::int32_t>(packed.size()));
  packed.push_back(out);
}

inline void PackedForest::collect_thresholds() {
  for (detail::FeatureThresholds& feature : thresholds_) {
    std::sort(feature.values.begin(), feature.values.end());
    feature.values.erase(std::unique(feature.values.begin(), feature.values.end()),
                         feature.values.end());
  }
}

inline void PackedForest::make_columns() {
  constexpr std::size_t most = kernels::code_thresholds;
  for (std::size_t slot = 0; slot < thresholds_.size(); ++slot) {
    detail::FeatureThresholds& feature = thresholds_[slot];
    feature.first_column = static_cast<std::int32_t>(columns.size());
    for (std::size_t at = 0; at < feature.values.size(); at += most) {
      const std::size_t count = (std::min)(feature.values.size() - at, most);
      for (std::size_t side = 0; side < 2; ++side) {
        if (!feature.used[side]) continue;
        columns.push_back({.slot = static_cast<std::int32_t>(slot),
                           .thresholds = static_cast<std::int32_t>(count),
                           .missing_right = side == 1,
                           .as_previous = side == 1 && feature.used[0]});
        add_code_table(feature.values.data() + at, static_cast<std::int32_t>(count));
      }
    }
  }
}

inline void PackedForest::add_code_table(const double* values, std::int32_t count) {
  const std::size_t begin = (columns.size() - 1) * std::size_t{kernels::code_table_size};
  const std::size_t end = begin + std::size_t{kernels::code_table_size};
  float_tables.codes.resize(end);
  detail::fill_code_table<float>(values, count, float_tables.codes.data() + begin);
  bucket_starts.resize(columns.size() * std::size_t{kernels::code_buckets});
  columns.back().buckets = detail::choose_buckets(
      float_tables.codes.data() + begin, count,
      bucket_starts.data() + bucket_starts.size() - std::size_t{kernels::code_buckets});
  if (!compares_doubles()) return;
  double_tables.codes.resize(end);
  detail::fill_code_table<double>(values, count, double_tables.codes.data() + begin);
}

inline detail::CodePlace PackedForest::place_of(const Node& n) const {
  const auto slot = static_cast<std::size_t>(feature_slots[static_cast<std::size_t>(n.feature)]);
  const std::vector<double>& values = thresholds_[slot].values;
  const auto rank = static_cast<std::int32_t>(
      std::lower_bound(values.begin(), values.end(), comparable(n.threshold)) - values.begin());
  return {thresholds_[slot].column(rank, n.missing_left() ? 0 : 1),
          rank % kernels::code_thresholds - 128};
}

inline void PackedForest::make_split_nodes(const Tree& tree, detail::PackedTree& out) {
  out.lane_begin = static_cast<std::int64_t>(split_nodes.size());
  const auto add = [&](std::int32_t i) {
    const Node& n = tree.node(i);
    // Where a leaf stands for a node, both ways lead to it: any test does.
    const detail::CodePlace place = n.is_leaf() ? detail::CodePlace{} : place_of(n);
    split_nodes.push_back({static_cast<std::uint32_t>(place.column) *
                               static_cast<std::uint32_t>(detail::predict_tile_rows),
                           detail::four_bytes(place.code + 1), 0});
  };
  if (out.form == detail::TreeForm::full) {
    const auto levels = static_cast<std::int32_t>(out.lane_count);
    detail::full_preorder(tree, 0, levels, [&](std::int32_t i, std::int32_t below, int leaf) {
      add(i);
      if (below == 1) split_nodes.back().right_leaf = detail::four_bytes(leaf + 1);
    });
  } else {
    for (std::int32_t i = 0; !tree.node(i).is_leaf(); i = tree.node(i).left) add(i);
  }
}

inline void PackedForest::make_lane_nodes(const Tree& tree, detail::PackedTree& out) {
  out.lane_begin = static_cast<std::int64_t>(lane_nodes.size());
  // Leaves below each node; children come after their parents.
  std::vector<std::int32_t> below(tree.nodes.size(), 1);
  for (std::int32_t i = static_cast<std::int32_t>(tree.size()) - 1; i >= 0; --i) {
    const Node& n = tree.node(i);
    if (n.is_leaf()) continue;
    below[static_cast<std::size_t>(i)] =
        below[static_cast<std::size_t>(n.left)] + below[static_cast<std::size_t>(n.right)];
  }
  std::vector<std::pair<std::int32_t, std::int32_t>> stack = {{0, 0}};  // node, its first leaf
  while (!stack.empty()) {
    const auto [i, first] = stack.back();
    stack.pop_back();
    const Node& n = tree.node(i);
    if (n.is_leaf()) continue;
    const detail::CodePlace place = place_of(n);
    const std::int32_t right_first = first + below[static_cast<std::size_t>(n.left)];
    lane_nodes.push_back({static_cast<std::uint32_t>(place.column), detail::four_bytes(place.code),
                          detail::four_bytes(first), detail::four_bytes(right_first)});
    stack.push_back({n.right, right_first});
    stack.push_back({n.left, first});
  }
  out.lane_count = static_cast<std::int64_t>(lane_nodes.size()) - out.lane_begin;
}

inline PackedForest::PackedForest(const ForestSource& source)
    : ForestFrame(source, "quern::tree::PackedForest") {
  expect_walk_nodes(source);
  thresholds_.resize(slot_features.size());
  for (std::size_t t = 0; t < source.trees.size(); ++t) {
    const std::int32_t output = source.tree_outputs.empty() ? 0 : source.tree_outputs[t];
    for (std::int32_t v = 0; v < source.trees[t].outputs; ++v) add_tree(source, t, output, v);
  }
  collect_thresholds();
  make_columns();
  for (detail::PackedTree& tree : packed) {
    if (!tree.by_codes()) continue;
    const Tree& original = source.trees[static_cast<std::size_t>(tree.source)];
    tree.form == detail::TreeForm::lanes ? make_lane_nodes(original, tree)
                                         : make_split_nodes(original, tree);
  }
  thresholds_.clear();
  thresholds_.shrink_to_fit();
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_PACKED_FOREST_HPP
