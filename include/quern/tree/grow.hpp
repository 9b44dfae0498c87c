// SPDX-License-Identifier: Apache-2.0

/// \file
/// Grows one tree on binned rows: histograms, best splits, partition, again.

#ifndef QUERN_TREE_GROW_HPP
#define QUERN_TREE_GROW_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/column_sampler.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/histogram.hpp"
#include "quern/tree/row_partition.hpp"
#include "quern/tree/split.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Which leaf is split next.
enum class GrowPolicy : std::uint8_t {
  depthwise,  ///< all of one depth, then the next
  lossguide,  ///< the one with the largest gain
};

/// How a tree is grown; names and defaults as XGBoost's.
struct GrowOptions {
  SplitOptions split;
  double learning_rate = 0.3;   ///< factor of leaf values
  std::int32_t max_depth = 6;   ///< longest path in edges, 0: no limit
  std::int32_t max_leaves = 0;  ///< 0: no limit
  GrowPolicy policy = GrowPolicy::depthwise;
  HistogramPrecision precision = HistogramPrecision::automatic;
  ColumnSampling columns;
  std::vector<std::int8_t> monotone;  ///< (features) -1, 0, +1, or empty
  int threads = 0;                    ///< 0: default_threads()
};

/// Grows trees on one binned matrix; memory is kept from tree to tree.
class Grower {
 public:
  Grower(const BinnedMatrix& data, const GrowOptions& options)
      : data_(&data),
        options_(options),
        histograms_(data, options.threads),
        partition_(data, options.threads) {}

  /// One tree for \p gradients (rows). Rows not in \p sample (ascending; empty: all) are left out.
  /// \p seed keys the sampling of columns.
  [[nodiscard]] Tree grow(std::span<const GradientPair> gradients,
                          std::span<const std::int32_t> sample, std::uint64_t seed) {
    tree_ = Tree();
    leaves_.clear();
    frontier_.clear();
    columns_.reset(data_->features(), options_.columns, seed);
    quantised_.assign(gradients, options_.precision, options_.threads);
    partition_.reset(sample);
    plant();
    while (!frontier_.empty()) expand(take_batch());
    finish(gradients);
    return std::move(tree_);
  }

  /// After grow(): the leaves' node numbers and, at the same places, their rows.
  [[nodiscard]] std::span<const std::int32_t> leaf_nodes() const noexcept { return leaf_nodes_; }
  [[nodiscard]] std::span<const RowRange> leaf_ranges() const noexcept { return leaf_ranges_; }
  [[nodiscard]] const RowPartition& partition() const noexcept { return partition_; }
  void set_learning_rate(double rate) noexcept { options_.learning_rate = rate; }

 private:
  /// A leaf that may still be split.
  struct Candidate {
    std::int32_t node = 0;
    std::int32_t depth = 0;
    RowRange range;
    GradientSum<std::int64_t> sum;  ///< in units of the histogram
    WeightBounds bounds;
    NodeHistogram histogram;
    Split best;
  };

  /// The histogram that a child's one is subtracted from.
  struct Pair {
    Candidate left, right;
    NodeHistogram parent;
  };

  static constexpr std::int64_t feature_chunk = 16;  ///< features a task of the split search

  void plant() {
    Candidate root;
    root.range = partition_.all();
    if (histograms_.cells() == 0 || root.range.size() < 2) {
      leaves_.emplace_back(0, root.range);
      return;
    }
    const HistogramBuilder::Request request{partition_.list(root.range), &root.histogram};
    histograms_.build(quantised_, {&request, 1});
    const std::int32_t feature = data_->blocks[0].features[0];
    const std::int64_t first = histograms_.first_cell(feature);
    root.sum = root.histogram.sum(first, first + data_->cuts.bins(feature) + 1);
    std::vector<Candidate> roots;
    roots.push_back(std::move(root));
    admit(std::move(roots));
  }

  /// Searches splits for \p candidates: those that have one join the frontier, the others are
  /// leaves.
  void admit(std::vector<Candidate> candidates) {
    search(candidates);
    for (Candidate& c : candidates) {
      const bool worth =
          c.best.valid() && c.best.gain > 1e-6 && c.best.gain >= options_.split.gamma;
      if (worth) {
        frontier_.push_back(std::move(c));
      } else {
        leaves_.emplace_back(c.node, c.range);
        histograms_.recycle(std::move(c.histogram));
      }
    }
  }

  /// The next leaves to split: all that wait (depth-wise) or the best one (loss-guided; the lowest
  /// node number where gains are equal).
  std::vector<Candidate> take_batch() {
    std::vector<Candidate> batch;
    if (options_.policy == GrowPolicy::depthwise) {
      batch = std::move(frontier_);
      frontier_.clear();
    } else {
      const auto worse = [](const Candidate& a, const Candidate& b) {
        return a.best.gain != b.best.gain ? a.best.gain < b.best.gain : a.node > b.node;
      };
      const auto best = std::max_element(frontier_.begin(), frontier_.end(), worse);
      batch.push_back(std::move(*best));
      frontier_.erase(best);
    }
    limit_leaves(batch);
    return batch;
  }

  /// Splitting one leaf makes one leaf more: beyond max_leaves the rest of the batch stays leaves.
  void limit_leaves(std::vector<Candidate>& batch) {
    if (options_.max_leaves <= 0) return;
    const auto now = static_cast<std::int64_t>(leaves_.size() + frontier_.size() + batch.size());
    const std::int64_t room = (std::max)(std::int64_t{0}, options_.max_leaves - now);
    while (static_cast<std::int64_t>(batch.size()) > room) {
      Candidate& last = batch.back();
      leaves_.emplace_back(last.node, last.range);
      histograms_.recycle(std::move(last.histogram));
      batch.pop_back();
    }
  }

  void expand(std::vector<Candidate> batch) {
    if (batch.empty()) {
      for (Candidate& c : frontier_) leaves_.emplace_back(c.node, c.range);
      frontier_.clear();
      return;
    }
    std::vector<RowPartition::Request> moves;
    for (const Candidate& c : batch) moves.push_back({c.range, c.best, 0});
    partition_.split(moves);
    std::vector<Pair> pairs;
    for (std::size_t i = 0; i < batch.size(); ++i)
      pairs.push_back(divide(batch[i], moves[i].lefts));
    build(pairs);
    std::vector<Candidate> next;
    for (Pair& pair : pairs) {
      for (Candidate* child : {&pair.left, &pair.right}) {
        if (child->histogram.cells.size() != 0)
          next.push_back(std::move(*child));
        else
          leaves_.emplace_back(child->node, child->range);
      }
    }
    admit(std::move(next));
  }

  /// Makes the tree's node of a candidate's split and its two children.
  Pair divide(Candidate& c, std::int64_t lefts) {
    const std::int32_t left = tree_.split(c.node);
    Node& node = tree_.node(c.node);
    node.feature = c.best.feature;
    node.threshold = c.best.bin < data_->cuts.bins(c.best.feature)
                         ? data_->cuts.cut(c.best.feature, c.best.bin)
                         : static_cast<double>((std::numeric_limits<float>::max)());
    node.default_left = c.best.missing_left;
    Pair pair;
    pair.left.node = left;
    pair.right.node = left + 1;
    pair.left.depth = pair.right.depth = c.depth + 1;
    pair.left.range = {c.range.begin, c.range.begin + lefts};
    pair.right.range = {c.range.begin + lefts, c.range.end};
    const std::int64_t first = histograms_.first_cell(c.best.feature);
    pair.left.sum = c.histogram.sum(first + 1, first + 1 + c.best.bin);
    if (c.best.missing_left) pair.left.sum += c.histogram.sum(first, first + 1);
    pair.right.sum = {c.sum.g - pair.left.sum.g, c.sum.h - pair.left.sum.h};
    divide_bounds(c, pair);
    pair.parent = std::move(c.histogram);
    return pair;
  }

  /// A monotone split bounds its children by the middle of their weights.
  void divide_bounds(const Candidate& c, Pair& pair) const {
    pair.left.bounds = pair.right.bounds = c.bounds;
    if (options_.monotone.empty()) return;
    const int sign = options_.monotone[static_cast<std::size_t>(c.best.feature)];
    if (sign == 0) return;
    const double middle = (leaf_weight(in_units(pair.left.sum), options_.split, c.bounds) +
                           leaf_weight(in_units(pair.right.sum), options_.split, c.bounds)) /
                          2;
    (sign > 0 ? pair.left : pair.right).bounds.upper = middle;
    (sign > 0 ? pair.right : pair.left).bounds.lower = middle;
  }

  [[nodiscard]] bool may_split(const Candidate& c) const {
    if (options_.max_depth > 0 && c.depth >= options_.max_depth) return false;
    return c.range.size() >= 2 && in_units(c.sum).h >= 2 * options_.split.min_child_weight;
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
      if (may_split(larger)) {
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

  [[nodiscard]] GradientSum<double> in_units(const GradientSum<std::int64_t>& sum) const {
    return {static_cast<double>(sum.g) / quantised_.scale().g,
            static_cast<double>(sum.h) / quantised_.scale().h};
  }

  /// Best split of every candidate, over chunks of features in parallel; equal gains go to the
  /// feature that comes first.
  void search(std::vector<Candidate>& candidates) {
    struct Task {
      std::size_t candidate;
      std::size_t begin, end;
      Split best;
    };
    std::vector<std::vector<std::int32_t>> features(candidates.size());
    std::vector<Task> tasks;
    for (std::size_t c = 0; c < candidates.size(); ++c) {
      features[c] = columns_.features(candidates[c].depth, candidates[c].node);
      for (std::size_t b = 0; b < features[c].size(); b += feature_chunk)
        tasks.push_back({c, b, (std::min)(features[c].size(), b + feature_chunk), {}});
    }
    parallel_for(
        static_cast<std::int64_t>(tasks.size()),
        [&](std::int64_t t) {
          Task& task = tasks[static_cast<std::size_t>(t)];
          const std::span<const std::int32_t> all = features[task.candidate];
          task.best = search_features(candidates[task.candidate],
                                      all.subspan(task.begin, task.end - task.begin));
        },
        options_.threads);
    for (const Task& task : tasks) {
      Split& best = candidates[task.candidate].best;
      if (task.best.valid() && task.best.gain > best.gain) best = task.best;
    }
  }

  Split search_features(const Candidate& c, std::span<const std::int32_t> features) const {
    const double parent = node_score(in_units(c.sum), options_.split, c.bounds);
    kernels::SplitScan scan = scan_of(c);
    Split best;
    for (const std::int32_t f : features) {
      const std::int64_t first = histograms_.first_cell(f);
      if (first < 0) continue;
      if (!options_.monotone.empty())
        scan.monotone = options_.monotone[static_cast<std::size_t>(f)];
      const std::int64_t* cells = c.histogram.cells.data() + first * c.histogram.words;
      const std::int32_t bins = data_->cuts.bins(f);
      const kernels::SplitResult found = c.histogram.words == 1
                                             ? QUERN_DISPATCH(best_split<1>(cells, bins, scan))
                                             : QUERN_DISPATCH(best_split<2>(cells, bins, scan));
      if (found.bin > 0 && found.score - parent > best.gain)
        best = {found.score - parent, f, found.bin, found.missing_left};
    }
    return best;
  }

  [[nodiscard]] kernels::SplitScan scan_of(const Candidate& c) const {
    const SplitOptions& o = options_.split;
    kernels::SplitScan scan{};
    scan.sum_g = static_cast<double>(c.sum.g);
    scan.sum_h = static_cast<double>(c.sum.h);
    scan.unit_g = 1 / quantised_.scale().g;
    scan.unit_h = 1 / quantised_.scale().h;
    scan.lambda = o.reg_lambda;
    scan.alpha = o.reg_alpha;
    scan.min_child_weight = o.min_child_weight;
    scan.max_delta_step = o.max_delta_step;
    scan.lower = c.bounds.lower;
    scan.upper = c.bounds.upper;
    if (o.max_delta_step > 0) {
      scan.lower = (std::max)(scan.lower, -o.max_delta_step);
      scan.upper = (std::min)(scan.upper, o.max_delta_step);
    }
    return scan;
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
    value_nodes(by_node);
  }

  void value_nodes(const std::vector<GradientSum<std::int64_t>>& fixed) {
    const GradientSum<double>& scale = quantised_.sum_scale();
    std::vector<GradientSum<double>> sums;
    for (const auto& s : fixed)
      sums.push_back({static_cast<double>(s.g) / scale.g, static_cast<double>(s.h) / scale.h});
    std::vector<WeightBounds> bounds(sums.size());
    for (std::size_t i = 0; i < sums.size(); ++i) {
      Node& node = tree_.nodes[i];
      node.cover = sums[i].h;
      node.value = options_.learning_rate * leaf_weight(sums[i], options_.split, bounds[i]);
      if (node.is_leaf()) continue;
      const auto l = static_cast<std::size_t>(node.left), r = static_cast<std::size_t>(node.right);
      node.gain = node_score(sums[l], options_.split, bounds[i]) +
                  node_score(sums[r], options_.split, bounds[i]) -
                  node_score(sums[i], options_.split, bounds[i]);
      bound_children(node, sums[l], sums[r], bounds);
    }
  }

  void bound_children(const Node& node, const GradientSum<double>& left,
                      const GradientSum<double>& right, std::vector<WeightBounds>& bounds) const {
    if (options_.monotone.empty()) return;
    const auto l = static_cast<std::size_t>(node.left), r = static_cast<std::size_t>(node.right);
    const WeightBounds mine = bounds[static_cast<std::size_t>(tree_.node(node.left).parent)];
    bounds[l] = bounds[r] = mine;
    const int sign = options_.monotone[static_cast<std::size_t>(node.feature)];
    if (sign == 0) return;
    const double middle =
        (leaf_weight(left, options_.split, mine) + leaf_weight(right, options_.split, mine)) / 2;
    bounds[sign > 0 ? l : r].upper = middle;
    bounds[sign > 0 ? r : l].lower = middle;
  }

  const BinnedMatrix* data_;
  GrowOptions options_;
  HistogramBuilder histograms_;
  RowPartition partition_;
  ColumnSampler columns_;
  QuantisedGradients quantised_;
  Tree tree_;
  std::vector<Candidate> frontier_;
  std::vector<std::pair<std::int32_t, RowRange>> leaves_;
  std::vector<std::int32_t> leaf_nodes_;
  std::vector<RowRange> leaf_ranges_;
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_GROW_HPP
