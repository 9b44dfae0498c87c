// SPDX-License-Identifier: Apache-2.0

/// \file
/// A forest as it is kept and predicts: few bytes a node, values only where leaves are not pure.
///
/// A grown-out tree of a forest has thousands of nodes and almost only pure leaves. 28 bytes a node
/// hold it; tree() makes a tree::Tree of it for whatever works on those (SHAP, dumps, formats).

#ifndef QUERN_TREE_COMPACT_FOREST_HPP
#define QUERN_TREE_COMPACT_FOREST_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/cart.hpp"
#include "quern/tree/cart_tree.hpp"
#include "quern/tree/detail/compact_walk.hpp"
#include "quern/tree/float_key.hpp"
#include "quern/tree/tree.hpp"
#include "quern/tree/walk.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// One tree of a CompactForest; nodes breadth first.
struct CompactTree {
  std::vector<detail::WalkNode<std::int32_t>> nodes;  ///< the right child follows the left one
  std::vector<std::uint32_t> leaves;  ///< (nodes): of a leaf, the class that all its rows have, or
                                      ///< outputs (0 for numbers) plus its row of values
  std::vector<float> covers;          ///< (nodes): weight of the training rows
  std::vector<float> gains;           ///< (nodes): weight times decrease of impurity, 0 in leaves
  std::vector<double> values;         ///< (rows of values, outputs)
  std::int32_t depth = 0;

  [[nodiscard]] bool is_leaf(std::size_t i) const noexcept {
    return nodes[i].child == static_cast<std::uint32_t>(i) - 1U;
  }
};

/// See the file comment. Inputs are compared as floats. Prediction is const and thread-safe; the
/// same bits in any batch and for any number of threads.
template <class = void>
class BasicCompactForest {
 public:
  BasicCompactForest() = default;
  BasicCompactForest(std::int64_t features, std::int32_t outputs, bool classes)
      : features_(features), outputs_(outputs), classes_(classes) {}

  /// Beyond that many classes a hostile file asks for more memory than it has bytes.
  static constexpr std::int32_t most_outputs = 65536;

  [[nodiscard]] std::int64_t features() const noexcept { return features_; }
  [[nodiscard]] std::int32_t outputs() const noexcept { return outputs_; }
  [[nodiscard]] std::int64_t size() const noexcept {
    return static_cast<std::int64_t>(trees_.size());
  }
  [[nodiscard]] const std::vector<CompactTree>& compact_trees() const noexcept { return trees_; }

  /// The compact form of a tree, for add().
  [[nodiscard]] CompactTree compact(const CartGrowth& from) const;
  void add(CompactTree tree) { trees_.push_back(std::move(tree)); }
  /// Bytes that the trees take.
  [[nodiscard]] std::size_t bytes() const noexcept;

  /// Tree \p t. Values of inner nodes are the means of their leaves. ValueError outside of the
  /// trees.
  [[nodiscard]] Tree tree(std::int64_t t) const;

  /// out(r, k) = mean over the trees of output k of the leaf that row r reaches. \p x: (rows,
  /// features), NaN is missing; \p out: (rows, outputs), any strides. ShapeError where shapes do
  /// not fit, ValueError for a forest without trees.
  void predict(MatrixView<const float> x, MatrixView<float> out, int threads = 0) const;
  /// out(r, t) = node of tree(t) that row r reaches.
  void apply(MatrixView<const float> x, MatrixView<std::int32_t> out, int threads = 0) const;
  /// sums (outputs) += the leaf of tree \p t that \p row of x reaches.
  void add_leaf(MatrixView<const float> x, std::int64_t row, const CompactTree& tree,
                double* sums) const;

  void save(ArchiveWriter& out) const;
  /// ParseError unless the archive holds a whole, sound forest.
  void load(const ArchiveReader& in);

 private:
  /// As many rows as a cache holds the keys of, since all trees pass over them.
  [[nodiscard]] std::int64_t tile_rows() const noexcept {
    const std::int64_t fit = (std::int64_t{1} << 16) / (std::max)(features_, std::int64_t{1});
    return (std::clamp)(fit / 8 * 8, std::int64_t{8}, std::int64_t{256});
  }
  /// The same of bytes. The more rows, the seldomer each tree is read, but many threads want tiles.
  [[nodiscard]] std::int64_t byte_tile_rows(std::int64_t rows) const noexcept {
    constexpr std::int64_t group = detail::byte_group_rows;
    const std::int64_t fit = (std::int64_t{1} << 19) / (features_ + 1);
    return (std::clamp)((std::min)(fit, rows / 16) / group * group, group, 8 * group);
  }
  /// Trees for rows of bytes; none where rows are few or the first is no bytes.
  [[nodiscard]] std::vector<detail::ByteTree> byte_trees(MatrixView<const float> x,
                                                         int threads) const;
  /// tile.sums (rows of the range, outputs) += the trees' leaves.
  void sum_bytes(const std::vector<detail::ByteTree>& trees, std::int64_t rows,
                 detail::CompactTile& tile) const;
  void sum_keys(MatrixView<const float> x, const BlockRange& range,
                detail::CompactTile& tile) const;
  void check_input(const char* function, MatrixView<const float> x) const;
  void add_value(const CompactTree& tree, std::uint32_t node, double* sums) const noexcept {
    const auto k = static_cast<std::size_t>(outputs_);
    const std::size_t leaf = tree.leaves[node];
    if (classes_ && leaf < k) {
      sums[leaf] += 1.0;
      return;
    }
    const double* value = tree.values.data() + (leaf - (classes_ ? k : 0)) * k;
    for (std::size_t i = 0; i < k; ++i) sums[i] += value[i];
  }
  void check_tree(const ArchiveReader& in, const CompactTree& tree) const;

  std::int64_t features_ = 0;
  std::int32_t outputs_ = 1;
  bool classes_ = false;
  std::vector<CompactTree> trees_;
};
/// (A template, so that a program compiles it only where it uses it.)
using CompactForest = BasicCompactForest<>;

template <class Lazy>
CompactTree BasicCompactForest<Lazy>::compact(const CartGrowth& from) const {
  const std::size_t size = from.nodes.size();
  const auto k = static_cast<std::size_t>(outputs_);
  CompactTree to;
  to.nodes.resize(size);
  to.leaves.assign(size, 0);
  to.covers.resize(size);
  to.gains.assign(size, 0.0f);
  std::vector<std::pair<std::size_t, std::int32_t>> order = {{0, 0}};  // node, depth
  order.reserve(size);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto [at, depth] = order[i];
    const CartNode& n = from.nodes[at];
    detail::WalkNode<std::int32_t>& node = to.nodes[i];
    to.covers[i] = static_cast<float>(n.weight);
    to.depth = (std::max)(to.depth, depth);
    if (n.left >= 0) {
      to.gains[i] = static_cast<float>(
          (std::min)(n.decrease, static_cast<double>((std::numeric_limits<float>::max)())));
      node.missing_right = n.missing_left ? 0 : 1;
      node.slot = static_cast<std::uint32_t>(n.feature);
      node.threshold =
          float_key(round_up_to_float(above_threshold(n.threshold))) - node.missing_right;
      node.child = static_cast<std::uint32_t>(order.size());
      order.push_back({static_cast<std::size_t>(n.left), depth + 1});
      order.push_back({static_cast<std::size_t>(n.left) + 1, depth + 1});
      continue;
    }
    node.child = static_cast<std::uint32_t>(i) - 1U;
    const double* value = from.value(at);
    const std::size_t top = static_cast<std::size_t>(std::max_element(value, value + k) - value);
    if (classes_ && value[top] == 1.0) {
      to.leaves[i] = static_cast<std::uint32_t>(top);
      continue;
    }
    to.leaves[i] = static_cast<std::uint32_t>(to.values.size() / k + (classes_ ? k : 0));
    to.values.insert(to.values.end(), value, value + k);
  }
  to.values.shrink_to_fit();
  return to;
}

template <class Lazy>
std::size_t BasicCompactForest<Lazy>::bytes() const noexcept {
  std::size_t sum = 0;
  for (const CompactTree& t : trees_)
    sum += t.nodes.size() * (sizeof(t.nodes[0]) + sizeof(std::uint32_t) + 2 * sizeof(float)) +
           t.values.size() * sizeof(double) + sizeof t;
  return sum;
}

template <class Lazy>
Tree BasicCompactForest<Lazy>::tree(std::int64_t t) const {
  expect_in_range("quern::tree::CompactForest::tree", "t", t, std::int64_t{0}, size() - 1);
  const CompactTree& from = trees_[static_cast<std::size_t>(t)];
  const auto k = static_cast<std::size_t>(outputs_);
  Tree tree;
  tree.outputs = outputs_;
  tree.nodes.resize(from.nodes.size());
  std::vector<double> values(from.nodes.size() * k, 0.0);
  for (std::size_t i = from.nodes.size(); i-- > 0;) {
    Node& to = tree.nodes[i];
    to.cover = static_cast<double>(from.covers[i]);
    if (from.is_leaf(i)) {
      add_value(from, static_cast<std::uint32_t>(i), values.data() + i * k);
    } else {
      const detail::WalkNode<std::int32_t>& n = from.nodes[i];
      to.left = static_cast<std::int32_t>(n.child);
      to.right = to.left + 1;
      to.feature = static_cast<std::int32_t>(n.slot);
      to.threshold = static_cast<double>(float_of_key<float>(n.threshold + n.missing_right));
      to.gain = static_cast<double>(from.gains[i]);
      to.default_left = n.missing_right == 0;
      const double left = tree.node(to.left).cover, right = tree.node(to.right).cover;
      tree.node(to.left).parent = tree.node(to.right).parent = static_cast<std::int32_t>(i);
      for (std::size_t o = 0; o < k; ++o)
        values[i * k + o] =
            (left * values[n.child * k + o] + right * values[(n.child + 1) * k + o]) /
            (left + right);
    }
    if (k == 1) to.value = values[i];
  }
  if (k > 1) tree.vector_values = std::move(values);
  return tree;
}

template <class Lazy>
void BasicCompactForest<Lazy>::check_input(const char* function, MatrixView<const float> x) const {
  if (trees_.empty())
    throw ValueError(error_text(function, "forest", "one that was fitted or loaded", "no trees"));
  if (x.cols() != features_)
    throw ShapeError(error_text(function, "x", std::to_string(features_) + " columns", x.cols()));
}

template <class Lazy>
std::vector<detail::ByteTree> BasicCompactForest<Lazy>::byte_trees(MatrixView<const float> x,
                                                                   int threads) const {
  if (x.rows() < detail::fewest_byte_rows || features_ > detail::most_byte_columns ||
      !detail::CompactTile().read_bytes(x, {0, 1}))
    return {};
  const std::uint32_t classes = classes_ ? static_cast<std::uint32_t>(outputs_) : 0U;
  return detail::byte_trees(trees_, classes, features_, threads);
}

template <class Lazy>
void BasicCompactForest<Lazy>::sum_bytes(const std::vector<detail::ByteTree>& trees,
                                         std::int64_t rows, detail::CompactTile& tile) const {
  const auto k = static_cast<std::int64_t>(outputs_);
  for (std::size_t t = 0; t < trees.size(); ++t) {
    const CompactTree& tree = trees_[t];
    for (std::int64_t g = 0; g < block_count(rows, detail::byte_group_rows); ++g) {
      const BlockRange range = block_range(rows, detail::byte_group_rows, g);
      double* sums = tile.sums.data() + range.begin * k;
      detail::walk_byte_rows(trees[t], tree.depth, tile.group_bytes(g, features_), range.size(),
                             [&](std::int64_t r, std::uint32_t node, std::uint32_t label) {
                               if (label != detail::no_class) {
                                 sums[r * k + static_cast<std::int64_t>(label)] += 1.0;
                               } else {
                                 add_value(tree, node, sums + r * k);
                               }
                             });
    }
  }
}

template <class Lazy>
void BasicCompactForest<Lazy>::sum_keys(MatrixView<const float> x, const BlockRange& range,
                                        detail::CompactTile& tile) const {
  const auto k = static_cast<std::int64_t>(outputs_);
  for (std::int64_t b = 0; b < block_count(range.size(), tile_rows()); ++b) {
    const BlockRange part = block_range(range.size(), tile_rows(), b);
    double* sums = tile.sums.data() + part.begin * k;
    tile.read_keys(x, {range.begin + part.begin, range.begin + part.end});
    for (const CompactTree& tree : trees_) {
      detail::walk_key_rows(
          tree.nodes.data(), tree.depth, tile.keys.data(), static_cast<std::size_t>(features_),
          part.size(),
          [&](std::int64_t r, std::uint32_t node) { add_value(tree, node, sums + r * k); });
    }
  }
}

template <class Lazy>
void BasicCompactForest<Lazy>::predict(MatrixView<const float> x, MatrixView<float> out,
                                       int threads) const {
  static constexpr const char* function = "quern::tree::CompactForest::predict";
  check_input(function, x);
  expect_shape(function, "out", out, {x.rows(), Index{outputs_}});
  const auto k = static_cast<std::size_t>(outputs_);
  const auto n = static_cast<double>(trees_.size());
  const std::vector<detail::ByteTree> trees = byte_trees(x, threads);
  const std::int64_t rows = trees.empty() ? tile_rows() : byte_tile_rows(x.rows());
  std::vector<detail::CompactTile> tiles(static_cast<std::size_t>(worker_count(threads)));
  parallel_for(
      block_count(x.rows(), rows),
      [&](std::int64_t b) {
        const BlockRange range = block_range(x.rows(), rows, b);
        detail::CompactTile& tile = tiles[static_cast<std::size_t>(this_worker())];
        tile.sums.assign(static_cast<std::size_t>(range.size()) * k, 0.0);
        if (!trees.empty() && tile.read_bytes(x, range)) {
          sum_bytes(trees, range.size(), tile);
        } else {
          sum_keys(x, range, tile);
        }
        for (std::int64_t r = 0; r < range.size(); ++r) {
          for (std::size_t o = 0; o < k; ++o)
            out(range.begin + r, static_cast<Index>(o)) =
                static_cast<float>(tile.sums[static_cast<std::size_t>(r) * k + o] / n);
        }
      },
      threads);
}

template <class Lazy>
void BasicCompactForest<Lazy>::apply(MatrixView<const float> x, MatrixView<std::int32_t> out,
                                     int threads) const {
  static constexpr const char* function = "quern::tree::CompactForest::apply";
  check_input(function, x);
  expect_shape(function, "out", out, {x.rows(), size()});
  std::vector<detail::CompactTile> tiles(static_cast<std::size_t>(worker_count(threads)));
  parallel_for(
      block_count(x.rows(), tile_rows()),
      [&](std::int64_t b) {
        const BlockRange range = block_range(x.rows(), tile_rows(), b);
        detail::CompactTile& tile = tiles[static_cast<std::size_t>(this_worker())];
        tile.read_keys(x, range);
        for (std::size_t t = 0; t < trees_.size(); ++t) {
          detail::walk_key_rows(trees_[t].nodes.data(), trees_[t].depth, tile.keys.data(),
                                static_cast<std::size_t>(features_), range.size(),
                                [&](std::int64_t r, std::uint32_t node) {
                                  out(range.begin + r, static_cast<Index>(t)) =
                                      static_cast<std::int32_t>(node);
                                });
        }
      },
      threads);
}

template <class Lazy>
void BasicCompactForest<Lazy>::add_leaf(MatrixView<const float> x, std::int64_t row,
                                        const CompactTree& tree, double* sums) const {
  std::uint32_t at = 0;
  while (!tree.is_leaf(at)) {
    const detail::WalkNode<std::int32_t>& n = tree.nodes[at];
    at = detail::walk_step(n, float_key(x(row, static_cast<Index>(n.slot))));
  }
  add_value(tree, at, sums);
}

template <class Lazy>
void BasicCompactForest<Lazy>::save(ArchiveWriter& out) const {
  std::vector<std::uint64_t> sizes, value_sizes;
  std::vector<std::int32_t> depths, thresholds;
  std::vector<std::uint32_t> slots, children, leaves;
  std::vector<std::uint8_t> missing_right;
  std::vector<float> covers, gains;
  std::vector<double> values;
  for (const CompactTree& t : trees_) {
    sizes.push_back(t.nodes.size());
    value_sizes.push_back(t.values.size());
    depths.push_back(t.depth);
    for (const auto& n : t.nodes) {
      thresholds.push_back(n.threshold);
      slots.push_back(n.slot);
      children.push_back(n.child);
      missing_right.push_back(static_cast<std::uint8_t>(n.missing_right));
    }
    leaves.insert(leaves.end(), t.leaves.begin(), t.leaves.end());
    covers.insert(covers.end(), t.covers.begin(), t.covers.end());
    gains.insert(gains.end(), t.gains.begin(), t.gains.end());
    values.insert(values.end(), t.values.begin(), t.values.end());
  }
  out.scalar<std::int64_t>("features", features_);
  out.scalar<std::int32_t>("outputs", outputs_);
  out.scalar<std::uint8_t>("classes", classes_ ? 1 : 0);
  out.array<std::uint64_t>("node_sizes", sizes);
  out.array<std::uint64_t>("value_sizes", value_sizes);
  out.array<std::int32_t>("depths", depths);
  out.array<std::int32_t>("thresholds", thresholds);
  out.array<std::uint32_t>("slots", slots);
  out.array<std::uint32_t>("children", children);
  out.array<std::uint8_t>("missing_right", missing_right);
  out.array<std::uint32_t>("leaves", leaves);
  out.array<float>("covers", covers);
  out.array<float>("gains", gains);
  out.array<double>("values", values);
}

template <class Lazy>
void BasicCompactForest<Lazy>::check_tree(const ArchiveReader& in, const CompactTree& tree) const {
  const auto fail = [&](const char* section, const char* expected, auto got) {
    in.fail_section(section, expected, std::to_string(got));
  };
  const auto k = static_cast<std::size_t>(outputs_);
  const std::size_t rows = tree.values.size() / k + (classes_ ? k : 0);
  std::vector<std::int32_t> level(tree.nodes.size(), -1);
  level[0] = 0;
  std::int32_t depth = 0;
  for (std::size_t i = 0; i < tree.nodes.size(); ++i) {
    const auto& n = tree.nodes[i];
    if (level[i] < 0) fail("children", "every node to have a parent", i);
    depth = (std::max)(depth, level[i]);
    if (tree.is_leaf(i)) {
      if (n.slot != 0 || n.missing_right != 0 ||
          n.threshold != (std::numeric_limits<std::int32_t>::min)())
        fail("thresholds", "leaves without a test", n.threshold);
      if (tree.leaves[i] >= rows) fail("leaves", "rows of values", tree.leaves[i]);
      continue;
    }
    if (n.child <= i || std::size_t{n.child} + 1 >= tree.nodes.size() || level[n.child] >= 0 ||
        level[n.child + 1] >= 0)
      fail("children", "later nodes, each once", n.child);
    if (std::int64_t{n.slot} >= features_) fail("slots", "columns of the forest", n.slot);
    level[n.child] = level[n.child + 1] = level[i] + 1;
  }
  if (depth != tree.depth) fail("depths", "the depths of the trees", tree.depth);
  for (const double v : tree.values)
    if (!is_finite_bits(v)) fail("values", "finite numbers", v);
  for (const float v : tree.covers)
    if (!is_finite_bits(v) || v <= 0) fail("covers", "numbers above 0", v);
  for (const float v : tree.gains)
    if (!is_finite_bits(v)) fail("gains", "finite numbers", v);
}

template <class Lazy>
void BasicCompactForest<Lazy>::load(const ArchiveReader& in) {
  CompactForest loaded(in.scalar<std::int64_t>("features"), in.scalar<std::int32_t>("outputs"),
                       in.scalar<std::uint8_t>("classes") != 0);
  if (loaded.features_ < 1 || loaded.features_ > (std::numeric_limits<std::int32_t>::max)())
    in.fail_section("features", "1..2^31-1", std::to_string(loaded.features_));
  if (loaded.outputs_ < 1 || loaded.outputs_ > most_outputs)
    in.fail_section("outputs", "1.." + std::to_string(most_outputs),
                    std::to_string(loaded.outputs_));
  const auto sizes = in.array<std::uint64_t>("node_sizes");
  const auto value_sizes = in.array<std::uint64_t>("value_sizes", sizes.size());
  const auto depths = in.array<std::int32_t>("depths", sizes.size());
  const auto thresholds = in.array<std::int32_t>("thresholds");
  const auto slots = in.array<std::uint32_t>("slots", thresholds.size());
  const auto children = in.array<std::uint32_t>("children", thresholds.size());
  const auto missing_right = in.array<std::uint8_t>("missing_right", thresholds.size());
  const auto leaves = in.array<std::uint32_t>("leaves", thresholds.size());
  const auto covers = in.array<float>("covers", thresholds.size());
  const auto gains = in.array<float>("gains", thresholds.size());
  const auto values = in.array<double>("values");
  std::size_t at = 0, value_at = 0;
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    if (sizes[t] == 0 || sizes[t] > thresholds.size() - at)
      in.fail_section("node_sizes", "sizes that add up", std::to_string(sizes[t]));
    if (value_sizes[t] > values.size() - value_at ||
        value_sizes[t] % static_cast<std::uint64_t>(loaded.outputs_) != 0)
      in.fail_section("value_sizes", "sizes that add up", std::to_string(value_sizes[t]));
    CompactTree tree;
    tree.depth = depths[t];
    const auto size = static_cast<std::size_t>(sizes[t]);
    for (std::size_t i = at; i < at + size; ++i) {
      if (missing_right[i] > 1) in.fail_section("missing_right", "0 or 1", "another number");
      tree.nodes.push_back({thresholds[i], slots[i], children[i], missing_right[i]});
    }
    const auto part = [&](const auto& all, auto& to, std::size_t begin, std::size_t count) {
      to.assign(all.begin() + static_cast<std::ptrdiff_t>(begin),
                all.begin() + static_cast<std::ptrdiff_t>(begin + count));
    };
    part(leaves, tree.leaves, at, size);
    part(covers, tree.covers, at, size);
    part(gains, tree.gains, at, size);
    part(values, tree.values, value_at, static_cast<std::size_t>(value_sizes[t]));
    at += size;
    value_at += static_cast<std::size_t>(value_sizes[t]);
    loaded.check_tree(in, tree);
    loaded.add(std::move(tree));
  }
  if (at != thresholds.size() || value_at != values.size())
    in.fail_section("node_sizes", "sizes that add up", "fewer");
  *this = std::move(loaded);
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_COMPACT_FOREST_HPP
