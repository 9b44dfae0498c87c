// SPDX-License-Identifier: Apache-2.0

/// \file
/// Leaf values that are set after a tree has grown.
///
/// - Losses with a leaf_quantile() (absolute, quantile): that quantile of label minus margin over
///   the leaf's rows, as XGBoost's adaptive trees and Friedman's LAD_TreeBoost have it.
///   reg_lambda, reg_alpha and max_delta_step do not apply.
/// - gradient_order = 1 (J. H. Friedman, "Greedy function approximation", 2001, algorithm 1): the
///   tree is fitted to -g / w by least squares with weights w (so a leaf's cover is its weight),
///   and each leaf takes the line search
///
///       v = argmin sum over the leaf's rows of loss(m + v) + reg_lambda v^2 / 2 + reg_alpha |v|
///
///   by Newton's steps within a bracket, to 1/1000 of the first slope, and within max_delta_step.
///   Losses of several outputs, losses that are no sums over rows (ranking, Cox, custom) and
///   sampled rows with factors take the first of these steps alone, as Friedman does for classes.
///
/// Monotone constraints are kept: where leaves on the two sides of a constrained split are in the
/// wrong order, all of them are moved to the near side of the middle of the offending two.

#ifndef QUERN_BOOSTING_LEAF_VALUES_HPP
#define QUERN_BOOSTING_LEAF_VALUES_HPP

#include "quern/boosting/objective.hpp"
#include "quern/boosting/options.hpp"
#include "quern/boosting/sampling.hpp"
#include "quern/boosting/train_state.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/split.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting::detail {

/// Moves the leaf values of \p tree into the order that \p monotone (features) wants.
inline void keep_monotone(tree::Tree& tree, std::span<const std::int8_t> monotone) {
  if (monotone.empty()) return;
  const std::size_t n = tree.nodes.size();
  std::vector<double> least(n), most(n);  // of the leaves below
  const auto limit = [&](std::int32_t root, double low, double high) {
    std::vector<std::int32_t> stack = {root};
    while (!stack.empty()) {
      tree::Node& node = tree.node(stack.back());
      stack.pop_back();
      if (node.is_leaf()) {
        node.value = (std::clamp)(node.value, low, high);
      } else {
        stack.push_back(node.left);
        stack.push_back(node.right);
      }
    }
    const auto r = static_cast<std::size_t>(root);
    least[r] = (std::clamp)(least[r], low, high);
    most[r] = (std::clamp)(most[r], low, high);
  };
  constexpr double far = 1e300;
  for (std::size_t i = n; i-- > 0;) {
    const tree::Node& node = tree.nodes[i];
    if (node.is_leaf()) {
      least[i] = most[i] = node.value;
      continue;
    }
    const int sign = monotone[static_cast<std::size_t>(node.feature)];
    const std::int32_t below = sign < 0 ? node.right : node.left;
    const std::int32_t above = sign < 0 ? node.left : node.right;
    const auto b = static_cast<std::size_t>(below), a = static_cast<std::size_t>(above);
    if (sign != 0 && most[b] > least[a]) {
      const double middle = (most[b] + least[a]) / 2;
      limit(below, -far, middle);
      limit(above, middle, far);
    }
    least[i] = (std::min)(least[b], least[a]);
    most[i] = (std::max)(most[b], most[a]);
  }
}

/// Sets leaf values of trees that a grower has just grown on the training rows.
template <class = void>
class BasicLeafSetter {
 public:
  explicit BasicLeafSetter(const TrainState& state) : state_(state) {}

  /// What a tree is grown on for \p gradients of one output: themselves, or least squares' for
  /// gradient_order = 1.
  [[nodiscard]] std::span<const tree::GradientPair> fitted(
      std::span<const tree::GradientPair> gradients, const RowSample& sample) {
    if (state_.options.gradient_order != 1) return gradients;
    if (least_squares_.size() < gradients.size())
      least_squares_ = core::Buffer<tree::GradientPair>(gradients.size());
    const Targets& targets = state_.train.targets;
    for (std::size_t i = 0; i < gradients.size(); ++i)
      least_squares_[i] = {gradients[i].g, targets.weight(static_cast<std::int64_t>(i))};
    for (std::size_t i = 0; i < sample.factors.size(); ++i)
      least_squares_[static_cast<std::size_t>(sample.rows[i])].h *= sample.factors[i];
    return {least_squares_.data(), gradients.size()};
  }

  /// Sets the leaves of \p tree, which adds to \p output; \p rate: factor of the values.
  /// \p gradients: of that output, with the factors of \p sample.
  template <class Grower>
  void set(tree::Tree& tree, const Grower& grower, std::int32_t output, double rate,
           std::span<const tree::GradientPair> gradients, const RowSample& sample) {
    const double level = state_.objective->leaf_quantile(output);
    if (level < 0 && state_.options.gradient_order != 1) return;
    const std::vector<double> values =
        level >= 0 ? quantiles(grower, output, level, gradients, !sample.factors.empty())
                   : line_search(grower, gradients, !sample.factors.empty());
    for (std::size_t leaf = 0; leaf < values.size(); ++leaf) {
      if (grower.leaf_ranges()[leaf].size() == 0) continue;  // of a symmetric tree: its parent's
      tree.node(grower.leaf_nodes()[leaf]).value = rate * values[leaf];
    }
    keep_monotone(tree, state_.options.monotone_constraints);
  }

 private:
  using Sum = tree::GradientSum<double>;

  /// A row's weight is its hessian, which these losses have it be.
  template <class Grower>
  [[nodiscard]] std::vector<double> quantiles(const Grower& grower, std::int32_t output,
                                              double level,
                                              std::span<const tree::GradientPair> gradients,
                                              bool factors) const {
    const bool weighted = factors || !state_.train.targets.weights.empty();
    const std::int64_t k = state_.model.outputs;
    const float* margins = state_.train.margins.data() + output;
    std::vector<std::vector<WeightedValue>> residuals(grower.leaf_nodes().size());
    grower.partition().for_each_row(grower.leaf_ranges(), [&](std::size_t leaf, std::int64_t row) {
      const double residual = static_cast<double>(state_.train.targets.label(row)) -
                              static_cast<double>(margins[row * k]);
      const float h = gradients[static_cast<std::size_t>(row)].h;
      residuals[leaf].push_back({residual, static_cast<double>(h)});
    });
    std::vector<double> values(residuals.size());
    parallel_for(
        static_cast<std::int64_t>(residuals.size()),
        [&](std::int64_t leaf) {
          const auto l = static_cast<std::size_t>(leaf);
          values[l] = quantile(residuals[l], level, weighted);
        },
        state_.options.nthread);
    return values;
  }

  template <class Grower>
  [[nodiscard]] std::vector<double> line_search(const Grower& grower,
                                                std::span<const tree::GradientPair> gradients,
                                                bool factors) {
    const std::size_t leaves = grower.leaf_nodes().size();
    leaf_of_.assign(gradients.size(), -1);
    grower.partition().for_each_row(grower.leaf_ranges(), [&](std::size_t leaf, std::int64_t row) {
      leaf_of_[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(leaf);
    });
    const tree::SplitOptions options = state_.options.grow().split;
    const std::vector<Sum> first = sums(gradients, leaves);
    std::vector<double> values;
    for (const Sum& s : first) values.push_back(tree::leaf_weight(s, options));
    const bool one_step = factors || state_.model.outputs > 1 || !state_.objective->separable();
    if (one_step) return values;
    std::vector<double> low(leaves, -1e30), high(leaves, 1e30);
    for (std::size_t l = 0; l < leaves; ++l) (first[l].g > 0 ? high : low)[l] = 0;
    std::vector<char> found(leaves, 0);
    constexpr int most_steps = 20;
    for (int step = 0; step < most_steps; ++step) {
      if (std::all_of(found.begin(), found.end(), [](char f) { return f != 0; })) break;
      const std::vector<Sum> now = sums(gradients_at(values), leaves);
      for (std::size_t l = 0; l < leaves; ++l) {
        if (found[l] == 0)
          found[l] = improve(now[l], first[l], options, values[l], low[l], high[l]) ? 1 : 0;
      }
    }
    return values;
  }

  /// One of Newton's steps from \p v, where the loss has the sums \p s; true at the end.
  static bool improve(const Sum& s, const Sum& first, const tree::SplitOptions& options, double& v,
                      double& low, double& high) {
    double slope = s.g + options.reg_lambda * v;
    if (v == 0 && std::fabs(slope) <= options.reg_alpha) return true;
    slope += v == 0 ? 0 : std::copysign(options.reg_alpha, v);
    if (!(s.h > 0) || std::fabs(slope) <= 1e-3 * std::fabs(first.g)) return true;
    (slope > 0 ? high : low) = v;
    double next = v - slope / (s.h + options.reg_lambda);
    if (!(next > low && next < high)) next = (low + high) / 2;
    if (options.max_delta_step > 0)
      next = (std::clamp)(next, -options.max_delta_step, options.max_delta_step);
    const bool stuck = next == v;
    v = next;
    return stuck;
  }

  /// Gradients where every row's margin has been moved by its leaf's value; one output.
  [[nodiscard]] std::span<const tree::GradientPair> gradients_at(
      const std::vector<double>& values) {
    const std::vector<float>& margins = state_.train.margins;
    moved_.resize(margins.size());
    if (trial_.size() < margins.size()) trial_ = core::Buffer<tree::GradientPair>(margins.size());
    for (std::size_t i = 0; i < margins.size(); ++i) {
      const std::int32_t leaf = leaf_of_[i];
      const double by = leaf < 0 ? 0 : values[static_cast<std::size_t>(leaf)];
      moved_[i] = static_cast<float>(static_cast<double>(margins[i]) + by);
    }
    state_.objective->all_gradients(moved_.data(), state_.train.targets, state_.round,
                                    trial_.data(), state_.options.nthread);
    return {trial_.data(), margins.size()};
  }

  /// Sums by leaf, in blocks of rows that do not depend on the number of threads.
  [[nodiscard]] std::vector<Sum> sums(std::span<const tree::GradientPair> gradients,
                                      std::size_t leaves) const {
    const auto rows = static_cast<std::int64_t>(gradients.size());
    const std::int64_t size = (std::max)(objective_block, (rows + 63) / 64);
    const std::int64_t blocks = block_count(rows, size);
    std::vector<Sum> parts(static_cast<std::size_t>(blocks) * leaves);
    parallel_for(
        blocks,
        [&](std::int64_t b) {
          const BlockRange block = block_range(rows, size, b);
          Sum* part = parts.data() + static_cast<std::size_t>(b) * leaves;
          for (std::int64_t i = block.begin; i < block.end; ++i) {
            const auto row = static_cast<std::size_t>(i);
            if (leaf_of_[row] < 0) continue;
            part[leaf_of_[row]] +=
                {static_cast<double>(gradients[row].g), static_cast<double>(gradients[row].h)};
          }
        },
        state_.options.nthread);
    std::vector<Sum> all(leaves);
    for (std::size_t i = 0; i < parts.size(); ++i) all[i % leaves] += parts[i];
    return all;
  }

  const TrainState& state_;
  core::Buffer<tree::GradientPair> least_squares_;
  core::Buffer<tree::GradientPair> trial_;
  std::vector<float> moved_;
  std::vector<std::int32_t> leaf_of_;  ///< (rows) -1: not in the sample
};
/// (A template, so that a program compiles it only where it uses it.)
using LeafSetter = BasicLeafSetter<>;

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_LEAF_VALUES_HPP
