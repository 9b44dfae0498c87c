// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a metric is, and weighted means.

#ifndef QUERN_BOOSTING_METRICS_BASE_HPP
#define QUERN_BOOSTING_METRICS_BASE_HPP

#include "quern/boosting/objectives/base.hpp"
#include "quern/core/config.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// Value of a metric, and which way is better. Predictions are (rows, outputs), row-major.
struct EvalMetric {
  using Function = std::function<double(std::span<const float> predictions, std::int32_t outputs,
                                        const Targets& targets)>;
  std::string name;
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

/// The same of loss(prediction, label) where there is one output.
template <class Loss>
double mean_loss(std::span<const float> p, const Targets& targets, const Loss& loss) {
  return weighted_mean(targets, [&](std::size_t i) {
    return loss(static_cast<double>(p[i]), static_cast<double>(targets.labels[i]));
  });
}

/// -log p, with p kept from 0 as XGBoost does.
inline double minus_log(double p) { return -std::log((std::max)(p, 1e-16)); }

inline std::size_t argmax(std::span<const float> row) {
  return static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

}  // namespace detail

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_METRICS_BASE_HPP
