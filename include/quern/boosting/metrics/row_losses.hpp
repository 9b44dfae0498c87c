// SPDX-License-Identifier: Apache-2.0

/// \file
/// Metrics that are weighted means of a loss over rows, in double, by XGBoost's names.

#ifndef QUERN_BOOSTING_METRICS_ROW_LOSSES_HPP
#define QUERN_BOOSTING_METRICS_ROW_LOSSES_HPP

#include "quern/boosting/metrics/base.hpp"
#include "quern/core/config.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// Root of the mean squared error.
inline double rmse(std::span<const float> p, std::int32_t, const Targets& t) {
  return std::sqrt(detail::mean_loss(p, t, [](double q, double y) { return (q - y) * (q - y); }));
}

/// Root of the mean squared difference of log(1 + x).
inline double rmsle(std::span<const float> p, std::int32_t, const Targets& t) {
  return std::sqrt(detail::mean_loss(p, t, [](double q, double y) {
    const double e = std::log1p(y) - std::log1p(q);
    return e * e;
  }));
}

/// Mean absolute error.
inline double mae(std::span<const float> p, std::int32_t, const Targets& t) {
  return detail::mean_loss(p, t, [](double q, double y) { return std::fabs(q - y); });
}

/// Mean of |prediction - label| / |label|; infinite where a label is 0.
inline double mape(std::span<const float> p, std::int32_t, const Targets& t) {
  return detail::mean_loss(p, t, [](double q, double y) { return std::fabs((q - y) / y); });
}

/// Mean pseudo-Huber loss slope^2 (sqrt(1 + (z / slope)^2) - 1).
inline double mphe(std::span<const float> p, const Targets& t, double slope) {
  return detail::mean_loss(p, t, [&](double q, double y) {
    const double z = (q - y) / slope;
    return slope * slope * (std::sqrt(1 + z * z) - 1);
  });
}

/// Log-loss of probabilities.
inline double logloss(std::span<const float> p, std::int32_t, const Targets& t) {
  return detail::mean_loss(p, t, [](double q, double y) {
    return y * detail::minus_log(q) + (1 - y) * detail::minus_log(1 - q);
  });
}

/// Share of rows on the wrong side of \p threshold: a row is called positive above it.
inline double error_at(std::span<const float> p, const Targets& t, float threshold) {
  return detail::weighted_mean(
      t, [&](std::size_t i) { return (p[i] > threshold) != (t.labels[i] > 0.5f) ? 1.0 : 0.0; });
}

/// Share of rows on the wrong side of probability 1/2.
inline double error(std::span<const float> p, std::int32_t, const Targets& t) {
  return error_at(p, t, 0.5f);
}

/// Negative log-likelihood of counts under Poisson distributions with the predicted means.
inline double poisson_nloglik(std::span<const float> p, std::int32_t, const Targets& t) {
  return detail::mean_loss(p, t, [](double q, double y) {
    q = (std::max)(q, 1e-16);
    return std::lgamma(y + 1) + q - y * std::log(q);
  });
}

/// Negative log-likelihood under gamma distributions with the predicted means and shape 1.
inline double gamma_nloglik(std::span<const float> p, std::int32_t, const Targets& t) {
  return detail::mean_loss(p, t, [](double q, double y) {
    q = (std::max)(q, 1e-6);
    return y / q + std::log(q);
  });
}

/// 2 (log(prediction / label) + label / prediction - 1), both moved by 1e-6 from 0.
inline double gamma_deviance(std::span<const float> p, std::int32_t, const Targets& t) {
  return detail::mean_loss(p, t, [](double q, double y) {
    const double ratio = (y + 1e-6) / (q + 1e-6);
    return 2 * (ratio - 1 - std::log(ratio));
  });
}

/// -y p^(1-r) / (1-r) + p^(2-r) / (2-r) with r = \p power in (1, 2).
inline double tweedie_nloglik(std::span<const float> p, const Targets& t, double power) {
  return detail::mean_loss(p, t, [&](double q, double y) {
    return std::pow(q, 2 - power) / (2 - power) - y * std::pow(q, 1 - power) / (1 - power);
  });
}

/// Pinball loss of quantiles at \p alpha, the mean over levels and rows.
inline double pinball(std::span<const float> p, const Targets& t,
                      const std::vector<double>& alpha) {
  const std::size_t k = alpha.size();
  return detail::weighted_mean(t, [&](std::size_t i) {
    double sum = 0;
    for (std::size_t c = 0; c < k; ++c) {
      const double e = static_cast<double>(t.labels[i]) - static_cast<double>(p[i * k + c]);
      sum += e >= 0 ? alpha[c] * e : (alpha[c] - 1) * e;
    }
    return sum / static_cast<double>(k);
  });
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

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_METRICS_ROW_LOSSES_HPP
