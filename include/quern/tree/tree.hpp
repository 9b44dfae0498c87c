// SPDX-License-Identifier: Apache-2.0

/// \file
/// One decision tree, whoever grew it: boosters, forests and loaded models all hold this type, and
/// the same code predicts, saves and explains it.

#ifndef QUERN_TREE_TREE_HPP
#define QUERN_TREE_TREE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/linear_leaves.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// What a split asks of a row.
enum class SplitKind : std::uint8_t {
  numeric,      ///< x < threshold goes left
  categorical,  ///< a category in the node's set goes right (XGBoost's convention)
};

/// Which values of a numeric split's feature go its default way. Categorical splits: only NaN.
enum class MissingRule : std::uint8_t {
  nan,   ///< NaN does
  zero,  ///< NaN and what is within zero_bound of 0 do (LightGBM's zero_as_missing)
  none,  ///< none does: NaN is read as 0 (LightGBM, where training saw no missing value)
};

/// Largest distance from 0 that MissingRule::zero takes for 0: the float next to 1e-35.
inline constexpr double zero_bound = static_cast<double>(1e-35f);

/// The type to which a model's maker cast its input before comparing it with thresholds.
/// XGBoost's models mean float, LightGBM's double; comparing in the other type moves rows.
enum class InputType : std::uint8_t { float32, float64 };

/// One node. A leaf has no children; an inner node keeps the value that it would have as a leaf.
struct Node {
  std::int32_t left = -1;     ///< index of the left child, -1 in a leaf
  std::int32_t right = -1;    ///< index of the right child, -1 in a leaf
  std::int32_t parent = -1;   ///< index of the parent, -1 in the root
  std::int32_t feature = -1;  ///< column that is tested, -1 in a leaf
  double threshold = 0;       ///< numeric: x < threshold goes left
  double value = 0;           ///< leaf: what is added to the margin; inner node: the same, unused
  double gain = 0;            ///< G_L^2/(H_L+l) + G_R^2/(H_R+l) - G^2/(H+l), without the factor 1/2
  double cover = 0;           ///< sum of hessians (weights in a forest) of the training rows here
  bool default_left = false;  ///< where a missing value goes
  SplitKind kind = SplitKind::numeric;
  MissingRule missing = MissingRule::nan;  ///< numeric: what counts as missing
  std::uint32_t category_begin = 0;        ///< categorical: first word of the node's bit set
  std::uint32_t category_count = 0;        ///< categorical: number of 32-bit words

  [[nodiscard]] bool is_leaf() const noexcept { return left < 0; }
  /// Where NaN goes.
  [[nodiscard]] bool missing_left() const noexcept {
    const bool as_zero = kind == SplitKind::numeric && missing == MissingRule::none;
    return as_zero ? 0 < threshold : default_left;
  }
  /// Whether a numeric split is "NaN goes as missing_left() says, anything else by x < threshold".
  /// Only some splits with MissingRule::zero are not.
  [[nodiscard]] bool is_plain() const noexcept {
    if (missing != MissingRule::zero) return true;
    return default_left ? threshold > zero_bound : threshold <= -zero_bound;
  }
};

/// A binary tree in an array: node 0 is the root and children come after their parents. A node
/// other than the root without a parent belongs to nobody: pruning leaves such places behind, and
/// they stay so that the leaves keep their numbers.
///
/// With `outputs > 1` every node holds a vector: `vector_values[node * outputs + k]`.
class Tree {
 public:
  std::vector<Node> nodes = std::vector<Node>(1);
  std::vector<std::uint32_t> category_words;  ///< bit sets of the categorical splits
  std::int32_t outputs = 1;                   ///< values a leaf holds
  std::vector<double> vector_values;          ///< (nodes, outputs) when outputs > 1, else empty
  /// True for a symmetric (oblivious) tree: full, in level order (the children of node i are
  /// 2i + 1 and 2i + 2), every inner node of a level with the same test and the same default side.
  bool symmetric = false;
  LinearLeaves linear;  ///< leaves that are linear functions, or empty

  [[nodiscard]] std::int64_t size() const noexcept {
    return static_cast<std::int64_t>(nodes.size());
  }
  [[nodiscard]] const Node& node(std::int32_t i) const {
    return nodes[static_cast<std::size_t>(i)];
  }
  [[nodiscard]] Node& node(std::int32_t i) { return nodes[static_cast<std::size_t>(i)]; }

  /// Whether node \p i can be reached from the root.
  [[nodiscard]] bool in_use(std::int32_t i) const { return i == 0 || node(i).parent >= 0; }
  [[nodiscard]] std::int64_t leaves() const noexcept;
  /// Longest path from the root to a leaf, in edges.
  [[nodiscard]] std::int32_t depth() const;

  /// Makes leaf \p parent an inner node with two new leaves and returns the left one's index; the
  /// right one follows it.
  std::int32_t split(std::int32_t parent);

  /// True if \p category is in the bit set of categorical node \p n.
  [[nodiscard]] bool in_category_set(const Node& n, std::uint32_t category) const noexcept {
    const std::uint32_t word = category / 32;
    return word < n.category_count &&
           (category_words[n.category_begin + word] >> (category % 32) & 1u) != 0;
  }

  /// The child of inner node \p n that value \p x goes to. A category that is negative or too large
  /// for the set is not in it and goes left; a fractional one counts as its integer part.
  [[nodiscard]] std::int32_t next(const Node& n, double x, bool missing) const noexcept {
    if (n.kind == SplitKind::numeric) {
      if (n.missing == MissingRule::zero && x >= -zero_bound && x <= zero_bound) missing = true;
      return (missing ? n.missing_left() : x < n.threshold) ? n.left : n.right;
    }
    if (missing) return n.default_left ? n.left : n.right;
    const bool known = x >= 0 && x < 4294967296.0;
    return known && in_category_set(n, static_cast<std::uint32_t>(x)) ? n.right : n.left;
  }

  /// What leaf \p i adds to the margin of a row; see LinearLeaves::value. One output.
  template <class ValueAt>
  [[nodiscard]] double leaf_value(std::int32_t i, const ValueAt& value_at) const {
    return linear.empty() ? node(i).value : linear.value(i, node(i).value, value_at);
  }

  /// Throws ParseError unless this is a tree: children in range and after their parent, each node
  /// in use reached once, features in [0, \p features), finite thresholds and values, sets in
  /// range, and symmetric only where it is. \p where names the place for the message ("tree 3 of
  /// model.json").
  void check(std::int64_t features, const std::string& where) const;
};

inline std::int64_t Tree::leaves() const noexcept {
  std::int64_t count = 0;
  for (std::int32_t i = 0; i < size(); ++i) count += in_use(i) && node(i).is_leaf() ? 1 : 0;
  return count;
}

inline std::int32_t Tree::depth() const {
  std::vector<std::int32_t> level(nodes.size(), 0);
  std::int32_t deepest = 0;
  for (std::size_t i = 1; i < nodes.size(); ++i) {
    if (nodes[i].parent < 0) continue;
    level[i] = level[static_cast<std::size_t>(nodes[i].parent)] + 1;
    deepest = level[i] > deepest ? level[i] : deepest;
  }
  return deepest;
}

inline std::int32_t Tree::split(std::int32_t parent) {
  const auto left = static_cast<std::int32_t>(nodes.size());
  nodes.resize(nodes.size() + 2);
  node(parent).left = left;
  node(parent).right = left + 1;
  node(left).parent = parent;
  node(left + 1).parent = parent;
  return left;
}

namespace detail {

inline void check_node(const Tree& tree, std::int32_t i, std::int64_t features,
                       const std::string& where) {
  const Node& n = tree.node(i);
  const std::string here = where + ", node " + std::to_string(i);
  const auto fail = [&](const char* field, const char* expected, auto got) {
    throw ParseError(error_text(here, field, expected, got));
  };
  if (!is_finite_bits(n.value)) fail("value", "a finite number", n.value);
  if (n.is_leaf()) {
    if (n.right >= 0) fail("right child", "none beside a missing left child", n.right);
    return;
  }
  if (n.left <= i || n.left >= tree.size()) fail("left child", "a later node", n.left);
  if (n.right <= i || n.right >= tree.size() || n.right == n.left)
    fail("right child", "another later node", n.right);
  if (n.feature < 0 || n.feature >= features) fail("feature", "a column of the model", n.feature);
  if (n.kind == SplitKind::numeric && is_nan_bits(n.threshold))
    fail("threshold", "a number", n.threshold);
  if (std::uint64_t{n.category_begin} + n.category_count > tree.category_words.size())
    fail("category set", "a range of stored words", n.category_begin);
  if (tree.node(n.left).parent != i || tree.node(n.right).parent != i)
    fail("children", "nodes whose parent is this one", n.left);
}

/// Whether nodes \p a and \p b send every row the same way.
inline bool same_test(const Tree& tree, const Node& a, const Node& b) {
  if (a.feature != b.feature || a.kind != b.kind || a.default_left != b.default_left ||
      a.missing != b.missing)
    return false;
  if (a.kind == SplitKind::numeric) return a.threshold == b.threshold;
  const auto words = [&](const Node& n) {
    return std::span<const std::uint32_t>(tree.category_words)
        .subspan(n.category_begin, n.category_count);
  };
  return std::equal(words(a).begin(), words(a).end(), words(b).begin(), words(b).end());
}

/// What Tree::symmetric promises; the nodes themselves are sound already.
inline void check_symmetric(const Tree& tree, const std::string& where) {
  const std::int64_t size = tree.size();
  if (((size + 1) & size) != 0)
    throw ParseError(error_text(where, "nodes of a symmetric tree", "2^(depth + 1) - 1", size));
  std::int32_t first = 0;  // of the level
  for (std::int32_t i = 0; i < size / 2; ++i) {
    if (i == 2 * first + 1) first = i;
    const Node& n = tree.node(i);
    if (n.left == 2 * i + 1 && n.right == 2 * i + 2 && same_test(tree, n, tree.node(first)))
      continue;
    throw ParseError(error_text(
        where + ", node " + std::to_string(i), "symmetric tree",
        "children 2i + 1 and 2i + 2 and the test of node " + std::to_string(first), "another"));
  }
}

}  // namespace detail

inline void Tree::check(std::int64_t features, const std::string& where) const {
  if (nodes.empty()) throw ParseError(error_text(where, "nodes", "at least one", 0));
  if (nodes[0].parent >= 0)
    throw ParseError(error_text(where, "root's parent", "none", nodes[0].parent));
  if (outputs < 1 ||
      vector_values.size() != (outputs > 1 ? nodes.size() * std::size_t(outputs) : 0))
    throw ParseError(error_text(where, "vector_values",
                                "(nodes, outputs) numbers where outputs > 1",
                                vector_values.size()));
  for (double v : vector_values)
    if (!is_finite_bits(v))
      throw ParseError(error_text(where, "vector_values", "finite numbers", v));
  linear.check(nodes.size(), features, where);
  if (!linear.empty() && outputs > 1)
    throw ParseError(error_text(where, "linear leaves", "one value a leaf", outputs));
  std::int64_t owned = 0;
  std::int64_t children = 0;
  for (std::int32_t i = 0; i < size(); ++i) {
    detail::check_node(*this, i, features, where);
    owned += node(i).is_leaf() ? 0 : 2;
    children += node(i).parent >= 0 ? 1 : 0;
    if (!in_use(i) && !node(i).is_leaf())
      throw ParseError(
          error_text(where, "node " + std::to_string(i), "a parent or no children", "none"));
  }
  // Inner nodes own two children each, which name them as parents, and parents come first: with
  // equal counts every node that names a parent is reached, once.
  if (owned != children)
    throw ParseError(error_text(where, "reached nodes", std::to_string(children + 1), owned + 1));
  if (symmetric) detail::check_symmetric(*this, where);
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_TREE_HPP
