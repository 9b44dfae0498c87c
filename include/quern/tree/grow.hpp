// SPDX-License-Identifier: Apache-2.0

/// \file
/// Grows one tree on binned rows: histograms, best splits, partition, again.

#ifndef QUERN_TREE_GROW_HPP
#define QUERN_TREE_GROW_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/grow_options.hpp"
#include "quern/tree/histogram.hpp"
#include "quern/tree/node_values.hpp"
#include "quern/tree/row_partition.hpp"
#include "quern/tree/split.hpp"
#include "quern/tree/split_search.hpp"
#include "quern/tree/tree.hpp"
#include "quern/tree/tree_grower.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Grows trees on one binned matrix; memory is kept from tree to tree.
template <class = void>
class BasicGrower final : public TreeGrower {
 public:
  BasicGrower(const BinnedMatrix& data, const GrowOptions& options)
      : data_(&data),
        options_(options),
        histograms_(data, options.threads),
        partition_(data, options.threads),
        search_(data, options_, histograms_) {}

  [[nodiscard]] Tree grow(std::span<const GradientPair> gradients,
                          std::span<const std::int32_t> sample, std::uint64_t seed) override {
    tree_ = Tree();
    tree_.symmetric = options_.policy == GrowPolicy::symmetric;
    leaves_.clear();
    frontier_.clear();
    quantised_.assign(gradients, options_.precision, options_.threads);
    partition_.reset(sample);
    search_.reset(seed, quantised_.scale());
    Candidate root = plant();
    if (!may_split(root))
      retire(root);
    else if (tree_.symmetric)
      grow_levels(std::move(root));
    else if (options_.policy == GrowPolicy::lossguide)
      grow_best_first(std::move(root));
    else
      grow_leaves(std::move(root));
    finish(gradients);
    return std::move(tree_);
  }

  [[nodiscard]] std::span<const std::int32_t> leaf_nodes() const noexcept override {
    return leaf_nodes_;
  }
  [[nodiscard]] std::span<const RowRange> leaf_ranges() const noexcept override {
    return leaf_ranges_;
  }
  [[nodiscard]] const RowPartition& partition() const noexcept override { return partition_; }
  void set_learning_rate(double rate) noexcept override { options_.learning_rate = rate; }

 private:
  /// The histogram that a child's one is subtracted from.
  struct Pair {
    Candidate left, right;
    NodeHistogram parent;
  };

  /// A leaf that waits to be split. Its children may be there before it is: two, or none.
  struct Waiting {
    Candidate leaf;
    std::vector<Candidate> children;
  };

  /// The root with its histogram, unless there is nothing to split it by.
  Candidate plant() {
    Candidate root;
    root.range = partition_.all();
    if (histograms_.cells() == 0 || root.range.size() < 2) return root;
    const HistogramBuilder::Request request{partition_.list(root.range), &root.histogram};
    histograms_.build(quantised_, {&request, 1});
    const std::int32_t feature = data_->blocks[0].features[0];
    const std::int64_t first = histograms_.first_cell(feature);
    root.sum = root.histogram.sum(first, first + data_->cuts.bins(feature) + 1);
    return root;
  }

  void retire(Candidate& c) {
    leaves_.emplace_back(c.node, c.range);
    histograms_.recycle(std::move(c.histogram));
  }

  [[nodiscard]] bool worth(const Split& split) const {
    return split.valid() && split.gain > 1e-6 && split.gain >= options_.split.gamma;
  }

  void grow_leaves(Candidate root) {
    std::vector<Candidate> fresh;
    fresh.push_back(std::move(root));
    admit(std::move(fresh));
    while (!frontier_.empty()) {
      std::vector<Candidate> batch = std::move(frontier_);
      frontier_.clear();
      limit_leaves(batch);
      if (batch.empty()) break;
      std::vector<Candidate> children = divide_all(batch);
      for (std::size_t i = 0; i < batch.size(); ++i) attach(batch[i], &children[2 * i]);
      admit(std::move(children));
    }
  }

  /// Searches splits for \p candidates: those that have one join the frontier, the others are
  /// leaves.
  void admit(std::vector<Candidate> candidates) {
    search_.best_of_each(candidates);
    for (Candidate& c : candidates) {
      if (worth(c.best))
        frontier_.push_back(std::move(c));
      else
        retire(c);
    }
  }

  /// Splits the leaf of the largest gain (the lowest node number where gains are equal), again and
  /// again. What waits gets its children some leaves at a time, since few rows keep no two threads
  /// at work; the order in which leaves are split does not show it.
  void grow_best_first(Candidate root) {
    std::vector<Waiting> waiting;
    const auto add = [&](std::vector<Candidate>& candidates) {
      for (Candidate& c : candidates) {
        if (worth(c.best))
          waiting.push_back({std::move(c), {}});
        else
          retire(c);
      }
    };
    std::vector<Candidate> first;
    first.push_back(std::move(root));
    search_.best_of_each(first);
    add(first);
    const auto better = [&](std::size_t a, std::size_t b) {
      const Candidate &x = waiting[a].leaf, &y = waiting[b].leaf;
      return x.best.gain != y.best.gain ? x.best.gain > y.best.gain : x.node < y.node;
    };
    const auto room = [&] {
      const auto now = static_cast<std::int64_t>(leaves_.size() + waiting.size());
      return options_.max_leaves > 0 ? options_.max_leaves - now : now;
    };
    while (!waiting.empty() && room() > 0) {
      std::vector<std::size_t> order(waiting.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      const std::size_t best = *std::min_element(order.begin(), order.end(), better);
      if (waiting[best].children.empty()) {
        std::sort(order.begin(), order.end(), better);
        make_children(waiting, order, room());
      }
      Waiting now = std::move(waiting[best]);
      waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(best));
      attach(now.leaf, now.children.data());
      add(now.children);
    }
    for (Waiting& w : waiting) give_up(w);
  }

  /// Children, with their best splits, of the first leaf in \p order and of some more that have
  /// none: until there are rows enough for all threads, and of no more than may still be split.
  void make_children(std::vector<Waiting>& waiting, const std::vector<std::size_t>& order,
                     std::int64_t room) {
    constexpr std::int64_t rows_each = std::int64_t{1} << 15, leaves_each = 4;
    const std::int64_t workers = search_.samples_by_node() ? 1 : worker_count(options_.threads);
    const std::int64_t most = workers > 1 ? (std::min)(room, leaves_each * workers) : 1;
    std::vector<std::size_t> chosen;
    std::vector<Candidate> batch;
    std::int64_t rows = 0;
    for (const std::size_t i : order) {
      if (static_cast<std::int64_t>(batch.size()) == most || rows >= rows_each * workers) break;
      if (!waiting[i].children.empty()) continue;
      rows += waiting[i].leaf.range.size();
      chosen.push_back(i);
      batch.push_back(std::move(waiting[i].leaf));
    }
    std::vector<Candidate> children = divide_all(batch);
    if (batch.size() == 1) {  // columns sampled by node want the numbers, which are known here
      children[0].node = static_cast<std::int32_t>(tree_.nodes.size());
      children[1].node = children[0].node + 1;
    }
    search_.best_of_each(children);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      Waiting& w = waiting[chosen[i]];
      w.leaf = std::move(batch[i]);
      w.children.push_back(std::move(children[2 * i]));
      w.children.push_back(std::move(children[2 * i + 1]));
    }
  }

  /// A leaf that is not split after all.
  void give_up(Waiting& w) {
    for (Candidate& child : w.children) histograms_.recycle(std::move(child.histogram));
    if (!w.children.empty()) partition_.rejoin(w.leaf.range, w.children[0].range.end);
    retire(w.leaf);
  }

  /// Splits whole levels, each by one test, while that gains something.
  void grow_levels(Candidate root) {
    std::vector<Candidate> level;
    level.push_back(std::move(root));
    const auto room = [&] {
      const auto leaves = 2 * static_cast<std::int64_t>(level.size());
      const auto open = [](const Candidate& c) { return c.histogram.cells.size() != 0; };
      return level.front().depth < symmetric_max_depth &&
             (options_.max_leaves <= 0 || leaves <= options_.max_leaves) &&
             std::any_of(level.begin(), level.end(), open);
    };
    while (room()) {
      const Split split = search_.best_of_level(level);
      if (!worth(split)) break;
      for (Candidate& c : level) c.best = split;
      std::vector<Candidate> next = divide_all(level);
      for (std::size_t i = 0; i < level.size(); ++i) attach(level[i], &next[2 * i]);
      level = std::move(next);
    }
    for (Candidate& c : level) retire(c);
  }

  /// Splitting one leaf makes one leaf more: beyond max_leaves the rest of the batch stays leaves.
  void limit_leaves(std::vector<Candidate>& batch) {
    if (options_.max_leaves <= 0) return;
    const auto now = static_cast<std::int64_t>(leaves_.size() + frontier_.size() + batch.size());
    const std::int64_t room = (std::max)(std::int64_t{0}, options_.max_leaves - now);
    while (static_cast<std::int64_t>(batch.size()) > room) {
      Candidate& last = batch.back();
      retire(last);
      batch.pop_back();
    }
  }

  /// Divides every candidate by its best split. Those of its children that may be split further get
  /// their histograms; all come back, in order, to be attached to the tree.
  std::vector<Candidate> divide_all(std::vector<Candidate>& batch) {
    std::vector<RowPartition::Request> moves;
    for (const Candidate& c : batch) moves.push_back({c.range, c.best, 0});
    partition_.split(moves);
    std::vector<Pair> pairs;
    for (std::size_t i = 0; i < batch.size(); ++i)
      pairs.push_back(divide(batch[i], moves[i].lefts));
    build(pairs);
    std::vector<Candidate> children;
    for (Pair& pair : pairs) {
      children.push_back(std::move(pair.left));
      children.push_back(std::move(pair.right));
    }
    return children;
  }

  /// Makes the tree's node of a candidate's split; its two children get their numbers.
  void attach(const Candidate& c, Candidate* children) {
    const std::int32_t left = tree_.split(c.node);
    set_test(tree_.node(c.node), c.best);
    children[0].node = left;
    children[1].node = left + 1;
  }

  /// A candidate's two children, without numbers.
  Pair divide(Candidate& c, std::int64_t lefts) {
    Pair pair;
    pair.left.depth = pair.right.depth = c.depth + 1;
    pair.left.range = {c.range.begin, c.range.begin + lefts};
    pair.right.range = {c.range.begin + lefts, c.range.end};
    pair.left.path = pair.right.path = search_.interaction().extended(c.path, c.best.feature);
    if (c.histogram.cells.size() == 0) return pair;  // of a symmetric tree: too little to split
    const std::int64_t first = histograms_.first_cell(c.best.feature);
    if (c.best.categorical) {
      for (int code = 0; code <= data_->cuts.bins(c.best.feature); ++code)
        if (c.best.goes_left(code))
          pair.left.sum += c.histogram.sum(first + code, first + code + 1);
    } else {
      pair.left.sum = c.histogram.sum(first + 1, first + 1 + c.best.bin);
      if (c.best.missing_left) pair.left.sum += c.histogram.sum(first, first + 1);
    }
    pair.right.sum = {c.sum.g - pair.left.sum.g, c.sum.h - pair.left.sum.h};
    divide_bounds(c, pair);
    pair.parent = std::move(c.histogram);
    return pair;
  }

  void set_test(Node& node, const Split& split) {
    const Cuts& cuts = data_->cuts;
    node.feature = split.feature;
    node.default_left = split.missing_left;
    if (!split.categorical) {
      node.threshold = split.bin < cuts.bins(split.feature)
                           ? cuts.cut(split.feature, split.bin)
                           : static_cast<double>((std::numeric_limits<float>::max)());
      return;
    }
    node.kind = SplitKind::categorical;
    node.category_begin = static_cast<std::uint32_t>(tree_.category_words.size());
    for (int code = 1; code < cuts.bins(split.feature); ++code) {  // categories ascend with codes
      if (!split.right.contains(code)) continue;
      const std::uint32_t category = cuts.category(split.feature, code);
      node.category_count = category / 32 + 1;
      tree_.category_words.resize(node.category_begin + node.category_count, 0);
      tree_.category_words.back() |= std::uint32_t{1} << (category % 32);
    }
  }

  /// A monotone split bounds its children by the middle of their weights.
  void divide_bounds(const Candidate& c, Pair& pair) const {
    pair.left.bounds = pair.right.bounds = c.bounds;
    const int sign = options_.monotone_of(c.best.feature);
    if (sign == 0) return;
    const GradientSum<double> left = search_.in_units(pair.left.sum);
    const GradientSum<double> right = search_.in_units(pair.right.sum);
    const double middle = (leaf_weight(left, options_.split, c.bounds) +
                           leaf_weight(right, options_.split, c.bounds)) /
                          2;
    (sign > 0 ? pair.left : pair.right).bounds.upper = middle;
    (sign > 0 ? pair.right : pair.left).bounds.lower = middle;
  }

  [[nodiscard]] bool may_split(const Candidate& c) const {
    if (options_.max_depth > 0 && c.depth >= options_.max_depth) return false;
    return c.range.size() >= 2 && histograms_.cells() != 0 &&
           search_.in_units(c.sum).h >= 2 * options_.split.min_child_weight;
  }

  /// Histograms of the children that may be split: the smaller is built, the larger subtracted.
  void build(std::vector<Pair>& pairs) {
    std::vector<HistogramBuilder::Request> requests;
    std::vector<HistogramBuilder::Subtraction> subtractions;
    std::vector<NodeHistogram*> spare;
    for (Pair& pair : pairs) {
      const bool left_smaller = pair.left.range.size() <= pair.right.range.size();
      Candidate& smaller = left_smaller ? pair.left : pair.right;
      Candidate& larger = left_smaller ? pair.right : pair.left;
      if (smaller.range.size() == 0 && may_split(larger)) {  // of a symmetric tree
        larger.histogram = std::move(pair.parent);
      } else if (may_split(larger)) {
        requests.push_back({partition_.list(smaller.range), &smaller.histogram});
        subtractions.push_back(
            {&pair.parent, &smaller.histogram, &larger.histogram, larger.range.size()});
        if (!may_split(smaller)) spare.push_back(&smaller.histogram);
      } else {
        if (may_split(smaller))
          requests.push_back({partition_.list(smaller.range), &smaller.histogram});
        spare.push_back(&pair.parent);
      }
    }
    histograms_.build(quantised_, requests);
    histograms_.subtract(quantised_, subtractions);
    for (NodeHistogram* histogram : spare) histograms_.recycle(std::move(*histogram));
  }

  /// Values, covers and gains from sums in full precision, children before parents.
  void finish(std::span<const GradientPair> gradients) {
    std::sort(leaves_.begin(), leaves_.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    leaf_nodes_.clear();
    leaf_ranges_.clear();
    for (const auto& [node, range] : leaves_) {
      leaf_nodes_.push_back(node);
      leaf_ranges_.push_back(range);
    }
    const auto sums = partition_.sums(leaf_ranges_, gradients, quantised_);
    std::vector<GradientSum<std::int64_t>> by_node(tree_.nodes.size());
    for (std::size_t i = 0; i < sums.size(); ++i)
      by_node[static_cast<std::size_t>(leaf_nodes_[i])] = sums[i];
    for (std::size_t i = tree_.nodes.size() - 1; i > 0; --i)
      by_node[static_cast<std::size_t>(tree_.nodes[i].parent)] += by_node[i];
    const GradientSum<double>& scale = quantised_.sum_scale();
    std::vector<GradientSum<double>> units;
    for (const auto& sum : by_node)
      units.push_back({static_cast<double>(sum.g) / scale.g, static_cast<double>(sum.h) / scale.h});
    set_node_values(tree_, units, options_);
  }

  const BinnedMatrix* data_;
  GrowOptions options_;
  HistogramBuilder histograms_;
  RowPartition partition_;
  SplitSearch search_;
  QuantisedGradients quantised_;
  Tree tree_;
  std::vector<Candidate> frontier_;
  std::vector<std::pair<std::int32_t, RowRange>> leaves_;
  std::vector<std::int32_t> leaf_nodes_;
  std::vector<RowRange> leaf_ranges_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Grower = BasicGrower<>;

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_GROW_HPP
