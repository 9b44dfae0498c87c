// SPDX-License-Identifier: Apache-2.0

/// \file
/// Metrics of survival models.

#ifndef QUERN_BOOSTING_METRICS_SURVIVAL_HPP
#define QUERN_BOOSTING_METRICS_SURVIVAL_HPP

#include "quern/boosting/metrics/base.hpp"
#include "quern/boosting/objectives/survival.hpp"
#include "quern/core/config.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// Negative partial log-likelihood an event, of hazard ratios; weights do not count, as in XGBoost.
inline double cox_nloglik(std::span<const float> p, std::int32_t, const Targets& t) {
  const std::vector<std::size_t> order = detail::by_time(t.labels);
  double at_risk = 0, sum = 0, events = 0;
  for (const float hazard : p) at_risk += static_cast<double>(hazard);
  for (std::size_t i = 0; i < order.size();) {
    const std::size_t end = detail::end_of_ties(t.labels, order, i);
    double gone = 0;
    for (; i < end; ++i) {
      const auto hazard = static_cast<double>(p[order[i]]);
      gone += hazard;
      if (t.labels[order[i]] < 0) continue;
      sum += std::log((std::max)(at_risk, 1e-300)) - std::log((std::max)(hazard, 1e-300));
      events += 1;
    }
    at_risk -= gone;
  }
  return events > 0 ? sum / events : std::numeric_limits<double>::quiet_NaN();
}

/// Negative log-likelihood of the times' intervals under the predicted times.
inline double aft_nloglik(std::span<const float> p, const Targets& t, AftDistribution distribution,
                          double scale) {
  const detail::AftDensity density{distribution};
  return detail::weighted_mean(t, [&](std::size_t i) {
    const detail::AftInterval interval(t, static_cast<std::int64_t>(i));
    const double m = std::log((std::max)(static_cast<double>(p[i]), 1e-300));
    if (!interval.exact())
      return -std::log((std::max)(detail::aft_mass(density, interval, m, scale), 1e-12));
    const double density_of_time =
        density.pdf((interval.lower - m) / scale) / (scale * std::exp(interval.lower));
    return -std::log((std::max)(density_of_time, 1e-12));
  });
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_METRICS_SURVIVAL_HPP
