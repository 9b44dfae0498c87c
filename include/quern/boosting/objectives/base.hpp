// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a loss is to boosting: derivatives by margin, where to start, how margins become
/// predictions.

#ifndef QUERN_BOOSTING_OBJECTIVES_BASE_HPP
#define QUERN_BOOSTING_OBJECTIVES_BASE_HPP

#include "quern/boosting/objective_params.hpp"
#include "quern/boosting/transform.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/gradient.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// What goes with the rows. Empty spans: weights all one, one group of all rows, no bounds.
struct Targets {
  std::span<const float> labels;
  std::span<const float> weights;
  std::span<const std::int64_t> group_offsets = {};  ///< (groups + 1)
  std::span<const float> lower = {};                 ///< survival: bounds of the time
  std::span<const float> upper = {};

  [[nodiscard]] std::int64_t rows() const noexcept {
    return static_cast<std::int64_t>(labels.size());
  }
  [[nodiscard]] float label(std::int64_t row) const noexcept {
    return labels[static_cast<std::size_t>(row)];
  }
  [[nodiscard]] float weight(std::int64_t row) const noexcept {
    return weights.empty() ? 1.0f : weights[static_cast<std::size_t>(row)];
  }
  [[nodiscard]] std::int64_t groups() const noexcept {
    if (group_offsets.empty()) return labels.empty() ? 0 : 1;
    return static_cast<std::int64_t>(group_offsets.size()) - 1;
  }
  /// Rows [first, last) of a group.
  [[nodiscard]] std::int64_t group_begin(std::int64_t group) const noexcept {
    return group_offsets.empty() ? 0 : group_offsets[static_cast<std::size_t>(group)];
  }
  [[nodiscard]] std::int64_t group_end(std::int64_t group) const noexcept {
    return group_offsets.empty() ? rows() : group_offsets[static_cast<std::size_t>(group) + 1];
  }
};

namespace detail {

/// Rows of one task; fixed, so that results do not depend on threads.
inline constexpr std::int64_t objective_block = std::int64_t{1} << 12;

}  // namespace detail

/// A loss over rows with `outputs()` margins each. Margins are (rows, outputs) row-major; gradients
/// are (outputs, rows), since a tree takes one output's.
class Objective {
 public:
  virtual ~Objective() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual std::int32_t outputs() const { return 1; }
  /// Metric that is reported where none is asked for.
  [[nodiscard]] virtual std::string_view default_metric() const = 0;
  /// Throws ValueError at the first label outside the loss's domain.
  virtual void check_labels(std::span<const float> labels) const = 0;
  /// Throws ValueError or ShapeError where the targets do not suit: labels, groups, bounds.
  virtual void check(const Targets& targets) const { check_labels(targets.labels); }
  /// Margins (outputs) of the best constant prediction, where learning starts.
  [[nodiscard]] virtual std::vector<double> start(const Targets& targets) const = 0;
  /// Gradients of rows [begin, end), for losses that are sums over rows.
  virtual void gradients(const float* margins, const Targets& targets, std::int64_t begin,
                         std::int64_t end, tree::GradientPair* out) const = 0;
  /// Gradients of all rows in round \p round; the same bits for any number of threads.
  virtual void all_gradients(const float* margins, const Targets& targets, std::uint64_t round,
                             tree::GradientPair* out, int threads) const {
    static_cast<void>(round);
    const std::int64_t rows = targets.rows();
    parallel_for(
        block_count(rows, detail::objective_block),
        [&](std::int64_t b) {
          const BlockRange block = block_range(rows, detail::objective_block, b);
          gradients(margins, targets, block.begin, block.end, out);
        },
        threads);
  }
  /// After all_gradients() of a round of training: what the next round's are to know of this one's
  /// margins.
  virtual void finish_round(const float* margins, const Targets& targets, std::uint64_t round,
                            int threads) {
    static_cast<void>(margins);
    static_cast<void>(targets);
    static_cast<void>(round);
    static_cast<void>(threads);
  }
  /// True for losses that are sums over rows, so that gradients() serves any part of them.
  [[nodiscard]] virtual bool separable() const { return true; }
  /// Predictions from \p rows rows of margins, in place.
  virtual void transform(float* margins, std::int64_t rows) const = 0;
  /// What metrics are given: the predictions, unless they say less than metrics need.
  virtual void transform_for_metrics(float* margins, std::int64_t rows) const {
    transform(margins, rows);
  }
  /// Margin whose prediction is \p score (XGBoost's base_score); ValueError outside its range.
  [[nodiscard]] virtual double margin_of(double score) const { return score; }
  /// A level in (0, 1): after growth a leaf of \p output takes that quantile of its rows' label
  /// minus margin. Negative: it keeps the Newton step.
  [[nodiscard]] virtual double leaf_quantile(std::int32_t output) const {
    static_cast<void>(output);
    return -1;
  }
};

namespace detail {

[[noreturn]] inline void bad_label(std::string_view objective, std::size_t row,
                                   std::string_view expected, float got) {
  throw ValueError(error_text("quern::boosting::" + std::string(objective),
                              "label of row " + std::to_string(row), expected, got));
}

/// Throws at the first label that does not hold \p good.
template <class Good>
void expect_labels(std::string_view objective, std::span<const float> labels,
                   std::string_view expected, const Good& good) {
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (!good(labels[i])) bad_label(objective, i, expected, labels[i]);
  }
}

/// Weighted mean of the labels; 0 without rows or weight.
inline double mean_label(const Targets& targets) {
  double sum = 0, weight = 0;
  for (std::int64_t i = 0; i < targets.rows(); ++i) {
    const auto w = static_cast<double>(targets.weight(i));
    sum += w * static_cast<double>(targets.label(i));
    weight += w;
  }
  return weight > 0 ? sum / weight : 0;
}

inline double logit(double p) { return std::log(p) - std::log1p(-p); }

inline double sigmoid(double m) { return 1 / (1 + std::exp(-m)); }

/// A share that is neither 0 nor 1, so that its margin is finite.
inline double inner_share(double p) { return (std::clamp)(p, 1e-6, 1 - 1e-6); }

/// log of a mean; of 0 (all counts are 0) that of a very small one.
inline double log_mean(double mean) { return std::log((std::max)(mean, 1e-6)); }

inline double positive_score(std::string_view objective, double score) {
  if (score > 0 && score <= (std::numeric_limits<double>::max)()) return std::log(score);
  throw ValueError(error_text("quern::boosting::" + std::string(objective), "base_score",
                              "a positive number", score));
}

/// A value and its weight.
struct WeightedValue {
  double value = 0;
  double weight = 1;
};

/// Quantile of \p values at level \p alpha, whose order is changed; \p weighted: whether the
/// weights count. XGBoost's: without weights the 1-based position alpha (n + 1) of the sorted
/// values, linear in between and clamped to the ends; with them the first value at which the
/// cumulated weight reaches alpha of the whole. 0 without values.
inline double quantile(std::vector<WeightedValue>& values, double alpha, bool weighted) {
  if (values.empty()) return 0;
  const auto less = [](const WeightedValue& a, const WeightedValue& b) {
    return a.value != b.value ? a.value < b.value : a.weight < b.weight;
  };
  if (!weighted) {
    const auto n = static_cast<double>(values.size());
    const double position = (std::clamp)(alpha * (n + 1), 1.0, n);
    const double below = std::floor(position);
    const auto at = values.begin() + static_cast<std::ptrdiff_t>(below) - 1;
    std::nth_element(values.begin(), at, values.end(), less);
    const auto next = std::min_element(at + 1, values.end(), less);
    if (next == values.end()) return at->value;
    return at->value + (position - below) * (next->value - at->value);
  }
  std::sort(values.begin(), values.end(), less);
  double total = 0, sum = 0;
  for (const WeightedValue& v : values) total += v.weight;
  for (const WeightedValue& v : values) {
    sum += v.weight;
    if (sum >= alpha * total) return v.value;
  }
  return values.back().value;
}

/// That quantile of the labels.
inline double label_quantile(const Targets& targets, double alpha) {
  std::vector<WeightedValue> values;
  values.reserve(targets.labels.size());
  for (std::int64_t i = 0; i < targets.rows(); ++i)
    values.push_back(
        {static_cast<double>(targets.label(i)), static_cast<double>(targets.weight(i))});
  return quantile(values, alpha, !targets.weights.empty());
}

/// Margin of the best constant of a loss with one output and no closed form: Newton's steps from
/// \p margin, kept between the margins where the mean gradient was seen to change its sign.
inline double newton_start(const Objective& objective, const Targets& targets, double margin = 0) {
  const auto rows = static_cast<std::size_t>(targets.rows());
  std::vector<float> margins(rows);
  std::vector<tree::GradientPair> out(rows);
  double low = -1e30, high = 1e30;
  for (int step = 0; step < 50; ++step) {
    std::fill(margins.begin(), margins.end(), static_cast<float>(margin));
    objective.all_gradients(margins.data(), targets, 0, out.data(), 1);
    double g = 0, h = 0;
    for (const tree::GradientPair& p : out) {
      g += static_cast<double>(p.g);
      h += static_cast<double>(p.h);
    }
    if (!(h > 0)) return margin;
    (g > 0 ? high : low) = margin;
    double next = margin - g / h;
    if (next <= low || next >= high) next = (low + high) / 2;
    if (std::fabs(next) > 1e20) return margin;
    const bool settled = std::fabs(next - margin) <= 1e-7 * (1 + std::fabs(next));
    margin = next;
    if (settled) break;
  }
  return margin;
}

}  // namespace detail

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVES_BASE_HPP
