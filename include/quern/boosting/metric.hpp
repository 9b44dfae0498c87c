// SPDX-License-Identifier: Apache-2.0

/// \file
/// Metrics of predictions, by XGBoost's names. All are weighted means over rows, in double.

#ifndef QUERN_BOOSTING_METRIC_HPP
#define QUERN_BOOSTING_METRIC_HPP

#include "quern/boosting/objective.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// Value of a metric, and which way is better.
struct EvalMetric {
  using Function = double (*)(std::span<const float> predictions, std::int32_t outputs,
                              const Targets& targets);
  std::string_view name;
  Function value;
  bool larger_is_better = false;
};

namespace detail {

/// Weighted mean of loss(row) over rows; NaN without weight.
template <class Loss>
double weighted_mean(const Targets& targets, const Loss& loss) {
  double sum = 0, weight = 0;
  for (std::int64_t i = 0; i < targets.rows(); ++i) {
    const auto w = static_cast<double>(targets.weight(i));
    sum += w * loss(static_cast<std::size_t>(i));
    weight += w;
  }
  return weight > 0 ? sum / weight : std::numeric_limits<double>::quiet_NaN();
}

/// -log p, with p kept from 0 as XGBoost does.
inline double minus_log(double p) { return -std::log((std::max)(p, 1e-16)); }

inline std::size_t argmax(std::span<const float> row) {
  return static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

inline double mean_squared_error(std::span<const float> p, const Targets& t) {
  return weighted_mean(t, [&](std::size_t i) {
    const double e = static_cast<double>(p[i]) - static_cast<double>(t.labels[i]);
    return e * e;
  });
}

}  // namespace detail

/// Root of the mean squared error.
inline double rmse(std::span<const float> p, std::int32_t, const Targets& t) {
  return std::sqrt(detail::mean_squared_error(p, t));
}

/// Mean absolute error.
inline double mae(std::span<const float> p, std::int32_t, const Targets& t) {
  return detail::weighted_mean(t, [&](std::size_t i) {
    return std::fabs(static_cast<double>(p[i]) - static_cast<double>(t.labels[i]));
  });
}

/// Log-loss of probabilities.
inline double logloss(std::span<const float> p, std::int32_t, const Targets& t) {
  return detail::weighted_mean(t, [&](std::size_t i) {
    const auto y = static_cast<double>(t.labels[i]), q = static_cast<double>(p[i]);
    return y * detail::minus_log(q) + (1 - y) * detail::minus_log(1 - q);
  });
}

/// Share of rows on the wrong side of probability 1/2.
inline double error(std::span<const float> p, std::int32_t, const Targets& t) {
  return detail::weighted_mean(
      t, [&](std::size_t i) { return (p[i] > 0.5f) != (t.labels[i] > 0.5f) ? 1.0 : 0.0; });
}

/// Area under the ROC curve, ties counting half: the probability that a positive row scores above a
/// negative one. NaN where one of the classes has no weight.
inline double auc(std::span<const float> p, std::int32_t, const Targets& t) {
  std::vector<std::uint32_t> order(p.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(),
            [&](std::uint32_t a, std::uint32_t b) { return p[a] < p[b]; });
  double below = 0, positives = 0, area = 0;  // `below`: negative weight at smaller scores
  for (std::size_t i = 0; i < order.size();) {
    double positive = 0, negative = 0;
    const float score = p[order[i]];
    for (; i < order.size() && p[order[i]] == score; ++i) {
      const auto w = static_cast<double>(t.weight(order[i]));
      const auto y = static_cast<double>(t.labels[order[i]]);
      positive += w * y;
      negative += w * (1 - y);
    }
    area += positive * (below + negative / 2);
    below += negative;
    positives += positive;
  }
  const double pairs = positives * below;
  return pairs > 0 ? area / pairs : std::numeric_limits<double>::quiet_NaN();
}

/// Cross-entropy of class probabilities (rows, outputs).
inline double mlogloss(std::span<const float> p, std::int32_t outputs, const Targets& t) {
  return detail::weighted_mean(t, [&](std::size_t i) {
    const auto k = static_cast<std::size_t>(t.labels[i]);
    return detail::minus_log(static_cast<double>(p[i * static_cast<std::size_t>(outputs) + k]));
  });
}

/// Share of rows whose most probable class (the lowest on a tie) is not the label.
inline double merror(std::span<const float> p, std::int32_t outputs, const Targets& t) {
  const auto k = static_cast<std::size_t>(outputs);
  return detail::weighted_mean(t, [&](std::size_t i) {
    return static_cast<float>(detail::argmax(p.subspan(i * k, k))) != t.labels[i] ? 1.0 : 0.0;
  });
}

/// The metric of a name, for an objective of \p outputs outputs; ValueError where it is unknown or
/// does not fit.
[[nodiscard]] inline EvalMetric make_metric(std::string_view name, std::int32_t outputs) {
  static constexpr EvalMetric single[] = {{"rmse", rmse, false},
                                          {"mae", mae, false},
                                          {"logloss", logloss, false},
                                          {"error", error, false},
                                          {"auc", auc, true}};
  static constexpr EvalMetric multiple[] = {{"mlogloss", mlogloss, false},
                                            {"merror", merror, false}};
  for (const EvalMetric& m : single) {
    if (m.name == name && outputs == 1) return m;
  }
  for (const EvalMetric& m : multiple) {
    if (m.name == name && outputs > 1) return m;
  }
  throw ValueError(error_text("quern::boosting::make_metric", "eval_metric",
                              outputs == 1 ? "rmse, mae, logloss, error or auc"
                                           : "mlogloss or merror, as there are several classes",
                              name));
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_METRIC_HPP
