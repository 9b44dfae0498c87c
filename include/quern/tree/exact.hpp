// SPDX-License-Identifier: Apache-2.0

/// \file
/// Exact greedy trees: every boundary between two neighbouring values of a feature is tried, on
/// pre-sorted columns (Chen and Guestrin, 2016, algorithm 1), as XGBoost's `exact` does it.
///
/// A level at a time, every column is walked up and down once, with running sums for each node of
/// the level. Sums are sequential in double, nothing is quantised. Gains are compared as floats, so
/// that splits which differ by rounding alone tie, and the first wins: lower features, then
/// "missing right" (walked up), then "missing left" (walked down). The tree is grown to its depth
/// and pruned from below where a split gains less than gamma.

#ifndef QUERN_TREE_EXACT_HPP
#define QUERN_TREE_EXACT_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/column_sampler.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/grow_options.hpp"
#include "quern/tree/interaction.hpp"
#include "quern/tree/node_values.hpp"
#include "quern/tree/row_partition.hpp"
#include "quern/tree/sorted_columns.hpp"
#include "quern/tree/split.hpp"
#include "quern/tree/tree.hpp"
#include "quern/tree/tree_grower.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// A split at a value, not at a code.
struct ExactSplit {
  float gain = 0;
  std::int32_t feature = -1;
  double threshold = 0;
  bool missing_left = false;
};

namespace detail {

/// A leaf of the present level.
struct ExactNode {
  std::int32_t node = 0;
  GradientSum<double> sum;
  WeightBounds bounds;
  InteractionConstraints::Path path;
  std::vector<std::uint8_t> features;  ///< (features) 1: may be tested; empty: all
  float score = 0;
  ExactSplit best;
};

/// Finds the best split of every node of a level by one feature.
template <class = void>
class BasicExactScan {
 public:
  BasicExactScan(const SortedColumns& columns, const GrowOptions& options,
                 std::span<const GradientPair> gradients, std::span<const std::int32_t> slots,
                 std::span<const ExactNode> nodes)
      : columns_(columns),
        options_(options),
        gradients_(gradients),
        slots_(slots),
        nodes_(nodes),
        running_(nodes.size()) {}

  /// Score of a leaf, rounded to float.
  static float score(const GradientSum<double>& s, const SplitOptions& o,
                     const WeightBounds& bounds, bool bounded) {
    if (!(s.h > 0)) return 0;
    if (bounded || o.max_delta_step > 0) return bounded_score(s, o, leaf_weight(s, o, bounds));
    const double shrunk = (std::max)(std::fabs(s.g) - o.reg_alpha, 0.0);
    return static_cast<float>(shrunk * shrunk / (s.h + o.reg_lambda));
  }

  /// Score of a leaf whose weight was bounded: -(2 g w + (h + lambda) w^2), every step in float as
  /// XGBoost takes them. Where all weights are at the bound, every split gains nothing but rounding
  /// errors, and those then are its. (It has no penalty alpha |w| here; with one it is in double.)
  static float bounded_score(const GradientSum<double>& s, const SplitOptions& o, double weight) {
    const auto product = [](float a, float b) {  // volatile: not fused with an addition
      const volatile float rounded = a * b;
      return float{rounded};
    };
    const auto w = static_cast<float>(weight);
    if (o.reg_alpha > 0)
      return static_cast<float>(-(2 * (s.g * weight + o.reg_alpha * std::fabs(weight)) +
                                  (s.h + o.reg_lambda) * weight * weight));
    const float linear = product(2 * static_cast<float>(s.g), w);
    const float h = static_cast<float>(s.h) + static_cast<float>(o.reg_lambda);
    return -(linear + product(h, product(w, w)));
  }

  /// Improves \p best (nodes) by splits of feature \p f. Without missing values in the whole column
  /// only one direction is walked, and a value that is missing later goes left.
  void run(std::int32_t f, std::span<ExactSplit> best) {
    if (columns_.has_missing(f)) walk(f, true, best);
    walk(f, false, best);
  }

 private:
  struct Running {
    GradientSum<double> sum;
    double last = 0;
    bool started = false;
  };

  /// Up: rows pass from right to left, missing ones stay right. Down: the other way round.
  void walk(std::int32_t f, bool up, std::span<ExactSplit> best) {
    std::fill(running_.begin(), running_.end(), Running());
    const SortedColumn& column = columns_.column(f);
    const std::size_t size = column.size();
    for (std::size_t k = 0; k < size; ++k) {
      const std::size_t i = up ? k : size - 1 - k;
      const std::int32_t row = column.rows[i];
      const std::int32_t slot = slots_[static_cast<std::size_t>(row)];
      if (slot < 0) continue;
      const auto s = static_cast<std::size_t>(slot);
      if (!nodes_[s].features.empty() && nodes_[s].features[static_cast<std::size_t>(f)] == 0)
        continue;
      Running& r = running_[s];
      const double value = column.values[i];
      if (r.started && value != r.last) {
        const double low = up ? r.last : value, high = up ? value : r.last;
        consider(
            s, f, up, r.sum, [&] { return columns_.middle(low, high); }, best[s]);
      }
      const GradientPair p = gradients_[static_cast<std::size_t>(row)];
      r.sum += {static_cast<double>(p.g), static_cast<double>(p.h)};
      r.last = value;
      r.started = true;
    }
    for (std::size_t s = 0; s < nodes_.size(); ++s) {  // all values against the missing ones
      const Running& r = running_[s];
      if (r.started)
        consider(
            s, f, up, r.sum, [&] { return columns_.beyond(r.last, up ? 1 : -1); }, best[s]);
    }
  }

  /// The split that has \p passed on one side.
  template <class Threshold>
  void consider(std::size_t s, std::int32_t f, bool up, const GradientSum<double>& passed,
                const Threshold& threshold, ExactSplit& best) const {
    const ExactNode& node = nodes_[s];
    const GradientSum<double> rest{node.sum.g - passed.g, node.sum.h - passed.h};
    const SplitOptions& o = options_.split;
    if (!(passed.h > 0) || !(rest.h > 0) || passed.h < o.min_child_weight ||
        rest.h < o.min_child_weight)
      return;
    const GradientSum<double>&left = up ? passed : rest, &right = up ? rest : passed;
    const bool bounded = !options_.monotone.empty();
    if (const int sign = options_.monotone_of(f); sign != 0) {
      const double rise = leaf_weight(right, o, node.bounds) - leaf_weight(left, o, node.bounds);
      if (sign * rise < 0) return;
    }
    const float gain =
        score(left, o, node.bounds, bounded) + score(right, o, node.bounds, bounded) - node.score;
    if (gain > best.gain) best = {gain, f, threshold(), !up};
  }

  const SortedColumns& columns_;
  const GrowOptions& options_;
  std::span<const GradientPair> gradients_;
  std::span<const std::int32_t> slots_;  ///< (rows): place of the row's node in the level, or -1
  std::span<const ExactNode> nodes_;
  std::vector<Running> running_;
};
/// (A template, so that a program compiles it only where it uses it.)
using ExactScan = BasicExactScan<>;

}  // namespace detail

/// Grows exact greedy trees, depth-wise, on dense or CSR features; what is missing in CSR is
/// missing.
template <class Lazy = void>
class BasicExactGrower final : public TreeGrower {
 public:
  /// The features are copied. Throws ValueError for an infinite one, and for options that exact
  /// trees do not have: another policy than depthwise, max_leaves.
  BasicExactGrower(const FeatureView& features, const GrowOptions& options)
      : options_(options),
        columns_(features, options.threads),
        partition_(options.threads),
        interaction_(options.interaction) {
    const auto refuse = [](const char* option, const char* expected, std::int32_t got) {
      throw ValueError(error_text("quern::tree::ExactGrower", option, expected, got));
    };
    if (options.policy != GrowPolicy::depthwise)
      refuse("policy", "depthwise", static_cast<std::int32_t>(options.policy));
    if (options.max_leaves != 0) refuse("max_leaves", "0", options.max_leaves);
  }

  [[nodiscard]] Tree grow(std::span<const GradientPair> gradients,
                          std::span<const std::int32_t> sample, std::uint64_t seed) override {
    gradients_ = gradients;
    sampler_.reset(columns_.features(), options_.columns, seed);
    start(sample);
    for (std::int32_t depth = 0; !level_.empty(); ++depth) {
      sum_level();
      if (options_.max_depth > 0 && depth >= options_.max_depth) break;
      search(depth);
      split_level();
    }
    prune();
    finish();
    return std::move(tree_);
  }

  void set_learning_rate(double rate) noexcept override { options_.learning_rate = rate; }
  [[nodiscard]] std::span<const std::int32_t> leaf_nodes() const noexcept override {
    return leaf_nodes_;
  }
  [[nodiscard]] std::span<const RowRange> leaf_ranges() const noexcept override {
    return leaf_ranges_;
  }
  [[nodiscard]] const RowPartition& partition() const noexcept override { return partition_; }
  [[nodiscard]] const SortedColumns& columns() const noexcept { return columns_; }

 private:
  static constexpr std::int64_t feature_batch = 64;  ///< results kept before they are compared

  void start(std::span<const std::int32_t> sample) {
    const auto rows = static_cast<std::size_t>(columns_.rows());
    tree_ = Tree();
    sums_.clear();
    gains_.assign(1, 0);
    slots_.assign(rows, sample.empty() ? 0 : -1);
    node_of_.assign(rows, sample.empty() ? 0 : -1);
    for (const std::int32_t row : sample)
      slots_[static_cast<std::size_t>(row)] = node_of_[static_cast<std::size_t>(row)] = 0;
    level_.assign(1, {});
  }

  /// Sums of the level's nodes, rows in ascending order.
  void sum_level() {
    for (std::size_t row = 0; row < slots_.size(); ++row) {
      if (slots_[row] < 0) continue;
      const GradientPair p = gradients_[row];
      level_[static_cast<std::size_t>(slots_[row])].sum +=
          GradientSum<double>{static_cast<double>(p.g), static_cast<double>(p.h)};
    }
    sums_.resize(tree_.nodes.size());
    for (detail::ExactNode& n : level_) {
      sums_[static_cast<std::size_t>(n.node)] = n.sum;
      n.score =
          detail::ExactScan::score(n.sum, options_.split, n.bounds, !options_.monotone.empty());
    }
  }

  void choose_features(std::int32_t depth) {
    const ColumnSampling& c = options_.columns;
    if (c.by_tree >= 1 && c.by_level >= 1 && c.by_node >= 1 && interaction_.empty()) return;
    for (detail::ExactNode& n : level_) {
      n.features.assign(static_cast<std::size_t>(columns_.features()), 0);
      for (const std::int32_t f : interaction_.allowed(sampler_.features(depth, n.node), n.path))
        n.features[static_cast<std::size_t>(f)] = 1;
    }
  }

  void search(std::int32_t depth) {
    choose_features(depth);
    const std::int64_t features = columns_.features();
    std::vector<detail::BasicExactScan<Lazy>> scans;
    for (int w = 0; w < worker_count(options_.threads); ++w)
      scans.emplace_back(columns_, options_, gradients_, slots_, level_);
    for (std::int64_t first = 0; first < features; first += feature_batch) {
      const std::int64_t count = (std::min)(feature_batch, features - first);
      std::vector<std::vector<ExactSplit>> found(static_cast<std::size_t>(count));
      parallel_for(
          count,
          [&](std::int64_t i) {
            auto& best = found[static_cast<std::size_t>(i)];
            best.resize(level_.size());
            scans[static_cast<std::size_t>(this_worker())].run(static_cast<std::int32_t>(first + i),
                                                               best);
          },
          options_.threads);
      for (const auto& best : found)
        for (std::size_t s = 0; s < level_.size(); ++s)
          if (best[s].gain > level_[s].best.gain) level_[s].best = best[s];
    }
  }

  /// Splits the nodes that gain by it; their children are the next level.
  void split_level() {
    std::vector<detail::ExactNode> next;
    std::vector<std::int32_t> first_child(level_.size(), -1);  // place in the next level
    for (std::size_t s = 0; s < level_.size(); ++s) {
      if (!(level_[s].best.gain > 1e-6f)) continue;
      first_child[s] = static_cast<std::int32_t>(next.size());
      split_node(level_[s], next);
    }
    route(first_child, next);
    level_ = std::move(next);
  }

  void split_node(const detail::ExactNode& n, std::vector<detail::ExactNode>& next) {
    const std::int32_t left = tree_.split(n.node);
    Node& node = tree_.node(n.node);
    node.feature = n.best.feature;
    node.threshold = n.best.threshold;
    node.default_left = n.best.missing_left;
    gains_.resize(tree_.nodes.size(), 0);
    gains_[static_cast<std::size_t>(n.node)] = n.best.gain;
    for (const std::int32_t child : {left, left + 1}) {
      detail::ExactNode c;
      c.node = child;
      c.bounds = n.bounds;
      c.path = interaction_.extended(n.path, n.best.feature);
      next.push_back(std::move(c));
    }
  }

  /// Moves rows to the children of their nodes: missing ones first, then those with a value.
  void route(const std::vector<std::int32_t>& first_child, std::vector<detail::ExactNode>& next) {
    std::vector<std::int32_t> moved(slots_.size(), -1);
    std::vector<std::uint8_t> used(static_cast<std::size_t>(columns_.features()), 0);
    for (std::size_t row = 0; row < slots_.size(); ++row) {
      if (slots_[row] < 0) continue;
      const auto s = static_cast<std::size_t>(slots_[row]);
      if (first_child[s] >= 0) moved[row] = first_child[s] + (level_[s].best.missing_left ? 0 : 1);
    }
    for (std::size_t s = 0; s < level_.size(); ++s)
      if (first_child[s] >= 0) used[static_cast<std::size_t>(level_[s].best.feature)] = 1;
    parallel_for(
        columns_.features(),
        [&](std::int64_t f) {
          if (used[static_cast<std::size_t>(f)] == 0) return;
          const SortedColumn& column = columns_.column(static_cast<std::int32_t>(f));
          for (std::size_t i = 0; i < column.size(); ++i) {
            const auto row = static_cast<std::size_t>(column.rows[i]);
            if (slots_[row] < 0) continue;
            const auto s = static_cast<std::size_t>(slots_[row]);
            if (first_child[s] < 0 || level_[s].best.feature != f) continue;
            moved[row] = first_child[s] + (column.values[i] < level_[s].best.threshold ? 0 : 1);
          }
        },
        options_.threads);
    for (std::size_t row = 0; row < moved.size(); ++row)
      if (moved[row] >= 0) node_of_[row] = next[static_cast<std::size_t>(moved[row])].node;
    slots_ = std::move(moved);
    bound_children(first_child, next);
  }

  /// A monotone split bounds its children by the middle of their weights.
  void bound_children(const std::vector<std::int32_t>& first_child,
                      std::vector<detail::ExactNode>& next) const {
    if (options_.monotone.empty()) return;
    std::vector<GradientSum<double>> sums(next.size());
    for (std::size_t row = 0; row < slots_.size(); ++row)
      if (slots_[row] >= 0)
        sums[static_cast<std::size_t>(slots_[row])] += GradientSum<double>{
            static_cast<double>(gradients_[row].g), static_cast<double>(gradients_[row].h)};
    for (std::size_t s = 0; s < level_.size(); ++s) {
      if (first_child[s] < 0) continue;
      const int sign = options_.monotone_of(level_[s].best.feature);
      if (sign == 0) continue;
      const auto l = static_cast<std::size_t>(first_child[s]);
      const double middle = (leaf_weight(sums[l], options_.split, level_[s].bounds) +
                             leaf_weight(sums[l + 1], options_.split, level_[s].bounds)) /
                            2;
      next[sign > 0 ? l : l + 1].bounds.upper = middle;
      next[sign > 0 ? l + 1 : l].bounds.lower = middle;
    }
  }

  /// From below: a split into two leaves that gains less than gamma is undone. Its leaves' places
  /// stay, unused, as XGBoost leaves them.
  void prune() {
    std::vector<std::int32_t> now(tree_.nodes.size());  // where rows of a node are after it
    for (std::size_t i = 0; i < now.size(); ++i) now[i] = static_cast<std::int32_t>(i);
    for (std::int32_t i = static_cast<std::int32_t>(tree_.size()) - 1; i >= 0; --i) {
      Node& n = tree_.node(i);
      if (n.is_leaf() || !tree_.node(n.left).is_leaf() || !tree_.node(n.right).is_leaf()) continue;
      if (static_cast<double>(gains_[static_cast<std::size_t>(i)]) >= options_.split.gamma)
        continue;
      for (const std::int32_t child : {n.left, n.right}) {
        now[static_cast<std::size_t>(child)] = i;
        sums_[static_cast<std::size_t>(child)] = {};
        tree_.node(child) = Node();
      }
      const std::int32_t parent = n.parent;
      n = Node();
      n.parent = parent;
    }
    for (std::int32_t& node : node_of_)
      while (node >= 0 && now[static_cast<std::size_t>(node)] != node)
        node = now[static_cast<std::size_t>(node)];
  }

  void finish() {
    set_node_values(tree_, sums_, options_);
    leaf_nodes_.clear();
    std::vector<std::int32_t> leaf_at(tree_.nodes.size(), -1);
    for (std::int32_t i = 0; i < tree_.size(); ++i) {
      if (!tree_.in_use(i) || !tree_.node(i).is_leaf()) continue;
      leaf_at[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(leaf_nodes_.size());
      leaf_nodes_.push_back(i);
    }
    for (std::int32_t& node : node_of_)
      if (node >= 0) node = leaf_at[static_cast<std::size_t>(node)];
    leaf_ranges_.resize(leaf_nodes_.size());
    partition_.group(node_of_, leaf_ranges_);
  }

  GrowOptions options_;
  SortedColumns columns_;
  RowPartition partition_;
  InteractionConstraints interaction_;
  ColumnSampler sampler_;
  std::span<const GradientPair> gradients_;
  Tree tree_;
  std::vector<GradientSum<double>> sums_;  ///< by node
  std::vector<float> gains_;               ///< by node
  std::vector<detail::ExactNode> level_;
  std::vector<std::int32_t> slots_;    ///< (rows): place of the row's node in level_, -1: a leaf
  std::vector<std::int32_t> node_of_;  ///< (rows): node, -1 outside of the sample
  std::vector<std::int32_t> leaf_nodes_;
  std::vector<RowRange> leaf_ranges_;
};
/// (A template, so that a program compiles it only where it uses it.)
using ExactGrower = BasicExactGrower<>;

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_EXACT_HPP
