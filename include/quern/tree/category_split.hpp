// SPDX-License-Identifier: Apache-2.0

/// \file
/// The best set of categories to send right, for one node or for all nodes of a level together.
///
/// Sorted by G / (H + lambda), the best two groups of categories are neighbours (Fisher, 1958), so
/// only sets at either end of that order are tried: of every length up to max_cat_threshold. Few
/// categories (fewer than max_cat_to_onehot) are tried one against the rest. What is not in the set
/// goes left: the other categories, those that share the last code because they are rare, and in
/// prediction those that were never seen. Missing rows are tried on both sides.

#ifndef QUERN_TREE_CATEGORY_SPLIT_HPP
#define QUERN_TREE_CATEGORY_SPLIT_HPP

#include "quern/core/config.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/grow_options.hpp"
#include "quern/tree/split.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Finds the best split by one categorical feature. Sums are in fixed point, so that what is left
/// of a node is exact.
template <class = void>
class BasicCategorySearch {
 public:
  using FixedSum = GradientSum<std::int64_t>;

  /// \p bins: those of the feature, the last one shared by all other categories. \p scale:
  /// fixed-point units per unit of the loss.
  BasicCategorySearch(std::int32_t feature, std::int32_t bins, const GradientSum<double>& scale,
                      const GrowOptions& options)
      : bins_(bins), scale_(scale), options_(options) {
    best_.feature = feature;
    best_.categorical = true;
  }

  /// Adds a node. \p by_code: sums of the codes 0 (missing) .. bins, \p sum: of the node.
  void add_node(std::vector<FixedSum> by_code, const FixedSum& sum, const WeightBounds& bounds) {
    const double score = node_score(in_units(sum), options_.split, bounds);
    missing_ |= by_code[0].h != 0;
    nodes_.push_back({std::move(by_code), sum, bounds, score});
  }

  /// The split with the largest sum of gains; of equal ones the smaller set. Invalid where there is
  /// none.
  [[nodiscard]] Split best() {
    const std::vector<int> order = sorted_codes();
    const auto count = static_cast<int>(order.size());
    if (bins_ - 1 < options_.max_cat_to_onehot) {
      for (const int code : order) {
        clear();
        take(code);
        try_directions();
      }
    } else {
      scan(order, (std::min)(count, options_.max_cat_threshold));
    }
    if (!found_) best_.feature = -1;
    return best_;
  }

 private:
  struct NodeSums {
    std::vector<FixedSum> by_code;
    FixedSum sum;
    WeightBounds bounds;
    double score;
  };

  [[nodiscard]] GradientSum<double> in_units(const FixedSum& s) const {
    return {static_cast<double>(s.g) / scale_.g, static_cast<double>(s.h) / scale_.h};
  }

  /// Codes that occur in the nodes, by G / (H + lambda).
  [[nodiscard]] std::vector<int> sorted_codes() const {
    std::vector<std::pair<double, int>> keyed;
    for (int code = 1; code < bins_; ++code) {
      FixedSum total;
      for (const NodeSums& node : nodes_) total += node.by_code[static_cast<std::size_t>(code)];
      const GradientSum<double> s = in_units(total);
      if (s.h > 0) keyed.emplace_back(s.g / (s.h + options_.split.reg_lambda), code);
    }
    std::sort(keyed.begin(), keyed.end());
    std::vector<int> order;
    for (const auto& [key, code] : keyed) order.push_back(code);
    return order;
  }

  /// Sets of growing length from both ends of the order.
  void scan(const std::vector<int>& order, int longest) {
    const std::size_t count = order.size();
    std::vector<FixedSum> low(nodes_.size()), high(nodes_.size());
    CodeSet low_set, high_set;
    for (std::size_t i = 0; i < static_cast<std::size_t>(longest); ++i) {
      for (const bool from_low : {true, false}) {
        if (!from_low && i + 1 == count) break;  // all of them: tried already
        taken_ = std::exchange(from_low ? low : high, {});
        set_ = from_low ? low_set : high_set;
        take(order[from_low ? i : count - 1 - i]);
        try_directions();
        (from_low ? low : high) = std::move(taken_);
        (from_low ? low_set : high_set) = set_;
      }
    }
  }

  void clear() {
    taken_.assign(nodes_.size(), {});
    set_ = {};
  }

  void take(int code) {
    set_.insert(code);
    for (std::size_t n = 0; n < nodes_.size(); ++n)
      taken_[n] += nodes_[n].by_code[static_cast<std::size_t>(code)];
  }

  void try_directions() {
    for (const bool missing_left : {false, true}) {
      if (missing_left && !missing_) break;
      double gain = 0;
      for (std::size_t n = 0; n < nodes_.size(); ++n) gain += gain_in(n, missing_left);
      if (!(gain > best_.gain)) continue;
      found_ = true;
      best_.gain = gain;
      best_.missing_left = missing_left;
      best_.right = set_;
    }
  }

  /// What the present set gains in a node; nothing where it is not allowed.
  [[nodiscard]] double gain_in(std::size_t n, bool missing_left) const {
    const NodeSums& node = nodes_[n];
    FixedSum right = taken_[n];
    if (!missing_left) right += node.by_code[0];
    const FixedSum left{node.sum.g - right.g, node.sum.h - right.h};
    if (left.h <= 0 || right.h <= 0) return 0;
    const GradientSum<double> l = in_units(left), r = in_units(right);
    const SplitOptions& o = options_.split;
    if (l.h < o.min_child_weight || r.h < o.min_child_weight) return 0;
    return node_score(l, o, node.bounds) + node_score(r, o, node.bounds) - node.score;
  }

  std::int32_t bins_;
  GradientSum<double> scale_;
  const GrowOptions& options_;
  std::vector<NodeSums> nodes_;
  bool missing_ = false;
  std::vector<FixedSum> taken_;  ///< by node: sums of the present set
  CodeSet set_;
  bool found_ = false;
  Split best_;
};
/// (A template, so that a program compiles it only where it uses it.)
using CategorySearch = BasicCategorySearch<>;

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_CATEGORY_SPLIT_HPP
