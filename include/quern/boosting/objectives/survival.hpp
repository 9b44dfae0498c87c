// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses of times until an event, some of them only known within bounds (censored).

#ifndef QUERN_BOOSTING_OBJECTIVES_SURVIVAL_HPP
#define QUERN_BOOSTING_OBJECTIVES_SURVIVAL_HPP

#include "quern/boosting/objectives/base.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

namespace detail {

/// Rows by rising time, which is |label|; ties keep their order.
inline std::vector<std::size_t> by_time(std::span<const float> labels) {
  std::vector<std::size_t> order(labels.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::fabs(labels[a]) < std::fabs(labels[b]);
  });
  return order;
}

/// Place after the last of order[i...] with the same time as order[i].
inline std::size_t end_of_ties(std::span<const float> labels, const std::vector<std::size_t>& order,
                               std::size_t i) {
  const float time = std::fabs(labels[order[i]]);
  while (i < order.size() && std::fabs(labels[order[i]]) == time) ++i;
  return i;
}

}  // namespace detail

/// Cox's partial likelihood: a positive label is the time of an event, a negative one minus the
/// time at which the row was last seen. Predicts the hazard ratio exp(m). Ties by Breslow's method:
/// the gradient of a row counts all events up to its own time (XGBoost leaves out those of the same
/// time that come after it in the data).
template <class = void>
class BasicCox final : public Objective {
 public:
  [[nodiscard]] std::string_view name() const override { return "survival:cox"; }
  [[nodiscard]] std::string_view default_metric() const override { return "cox-nloglik"; }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_labels(name(), labels, "a time > 0, or minus it where censored",
                          [](float y) { return y != 0; });
  }
  /// 0: the likelihood does not depend on a constant.
  [[nodiscard]] std::vector<double> start(const Targets&) const override { return {0}; }
  [[nodiscard]] bool separable() const override { return false; }
  /// Of all rows, whatever the range.
  void gradients(const float* margins, const Targets& targets, std::int64_t, std::int64_t,
                 tree::GradientPair* out) const override {
    const std::vector<std::size_t> order = detail::by_time(targets.labels);
    // Hazards relative to the largest, so that none overflows; the likelihood does not mind.
    const std::size_t n = order.size();
    const float top = n > 0 ? *std::max_element(margins, margins + n) : 0;
    std::vector<double> at_risk(n + 1, 0.0);  // hazards of the rows still there, from the end
    for (std::size_t i = n; i-- > 0;) at_risk[i] = at_risk[i + 1] + hazard(margins[order[i]], top);
    double first = 0, second = 0;  // sums over events so far of 1 / at risk, and of its square
    for (std::size_t i = 0; i < n;) {
      const std::size_t end = detail::end_of_ties(targets.labels, order, i);
      for (std::size_t j = i; j < end; ++j) {
        if (targets.labels[order[j]] < 0) continue;
        first += 1 / at_risk[i];
        second += 1 / (at_risk[i] * at_risk[i]);
      }
      for (std::size_t j = i; j < end; ++j) {
        const std::size_t row = order[j];
        const double e = hazard(margins[row], top);
        const double w = static_cast<double>(targets.weight(static_cast<std::int64_t>(row)));
        const double g = e * first - (targets.labels[row] > 0 ? 1 : 0);
        const double h = (std::max)(e * first - e * e * second, 1e-16);
        out[row] = {static_cast<float>(w * g), static_cast<float>(w * h)};
      }
      i = end;
    }
  }
  void all_gradients(const float* margins, const Targets& targets, std::uint64_t,
                     tree::GradientPair* out, int) const override {
    gradients(margins, targets, 0, targets.rows(), out);
  }
  void transform(float* margins, std::int64_t rows) const override {
    apply_link(Link::exponential, margins, rows, 1);
  }
  [[nodiscard]] double margin_of(double score) const override {
    return detail::positive_score(name(), score);
  }

 private:
  static double hazard(float margin, float top) {
    return (std::max)(std::exp(static_cast<double>(margin) - static_cast<double>(top)), 1e-300);
  }
};
/// (A template, so that a program compiles it only where it uses it.)
using Cox = BasicCox<>;

namespace detail {

/// The distribution of z = (log time - margin) / scale.
struct AftDensity {
  AftDistribution kind = AftDistribution::normal;

  [[nodiscard]] double pdf(double z) const {
    if (kind == AftDistribution::normal) return std::exp(-z * z / 2) * 0.3989422804014327;
    const double w = std::exp((std::min)(z, 700.0));
    if (kind == AftDistribution::extreme) return w * std::exp(-w);
    return sigmoid(z) * sigmoid(-z);
  }
  [[nodiscard]] double cdf(double z) const {
    if (kind == AftDistribution::normal) return std::erfc(-z * 0.7071067811865476) / 2;
    if (kind == AftDistribution::extreme) return -std::expm1(-std::exp((std::min)(z, 700.0)));
    return sigmoid(z);
  }
  /// 1 - cdf.
  [[nodiscard]] double tail(double z) const {
    if (kind == AftDistribution::normal) return std::erfc(z * 0.7071067811865476) / 2;
    if (kind == AftDistribution::extreme) return std::exp(-std::exp((std::min)(z, 700.0)));
    return sigmoid(-z);
  }
  /// pdf'(z) / pdf(z).
  [[nodiscard]] double slope(double z) const {
    if (kind == AftDistribution::normal) return -z;
    if (kind == AftDistribution::extreme) return 1 - std::exp((std::min)(z, 700.0));
    return 1 - 2 * sigmoid(z);
  }
  /// -(log pdf)''(z).
  [[nodiscard]] double curvature(double z) const {
    if (kind == AftDistribution::normal) return 1;
    if (kind == AftDistribution::extreme) return std::exp((std::min)(z, 700.0));
    return 2 * sigmoid(z) * sigmoid(-z);
  }
};

/// One row's interval of times; an end that is 0 or infinite bounds nothing.
struct AftInterval {
  double lower = 0, upper = 0;  ///< logarithms
  bool has_lower = true, has_upper = true;

  AftInterval(const Targets& targets, std::int64_t row) {
    const auto i = static_cast<std::size_t>(row);
    const float low = targets.lower.empty() ? targets.labels[i] : targets.lower[i];
    const float high = targets.upper.empty() ? low : targets.upper[i];
    has_lower = low > 0;
    has_upper = is_finite_bits(high);
    if (has_lower) lower = std::log(static_cast<double>(low));
    if (has_upper) upper = std::log((std::max)(static_cast<double>(high), 1e-300));
  }
  [[nodiscard]] bool exact() const { return has_lower && has_upper && lower == upper; }
};

/// Probability of an interval, seen from the margin \p m.
inline double aft_mass(const AftDensity& density, const AftInterval& t, double m, double scale) {
  const double l = (t.lower - m) / scale, u = (t.upper - m) / scale;
  if (t.has_lower && l > 0) return density.tail(l) - (t.has_upper ? density.tail(u) : 0.0);
  return (t.has_upper ? density.cdf(u) : 1.0) - (t.has_lower ? density.cdf(l) : 0.0);
}

}  // namespace detail

/// Accelerated failure time: log(time) = m + scale * noise. Bounds of the time come with the data
/// (`label_lower_bound`, `label_upper_bound`; equal: seen, infinite upper: still alive), or the
/// labels are times that were all seen. Predicts exp(m). As in XGBoost |g| <= 15 and
/// 1e-16 <= h <= 15.
template <class = void>
class BasicAft final : public Objective {
 public:
  explicit BasicAft(const ObjectiveParams& params)
      : density_{params.aft_loss_distribution}, scale_(params.aft_loss_distribution_scale) {
    if (!(scale_ > 0 && scale_ <= 1e30))
      throw ValueError(error_text("quern::boosting::survival:aft", "aft_loss_distribution_scale",
                                  "a positive number", scale_));
  }
  [[nodiscard]] std::string_view name() const override { return "survival:aft"; }
  [[nodiscard]] std::string_view default_metric() const override { return "aft-nloglik"; }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_labels(name(), labels, "a time >= 0", [](float y) { return y >= 0; });
  }
  void check(const Targets& targets) const override {
    check_labels(targets.labels);
    for (std::size_t i = 0; i < targets.upper.size(); ++i) {
      const float low = targets.lower.empty() ? targets.labels[i] : targets.lower[i];
      if (!(low >= 0) || !(targets.upper[i] >= low) || !(targets.upper[i] > 0))
        detail::bad_label(name(), i, "bounds with 0 <= lower <= upper, 0 < upper",
                          low >= 0 ? targets.upper[i] : low);
    }
  }
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    return {detail::newton_start(*this, targets)};
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    for (std::int64_t i = begin; i < end; ++i) {
      const detail::AftInterval t(targets, i);
      double g = 0, h = 0;
      derivatives(t, static_cast<double>(margins[i]), g, h);
      const auto w = static_cast<double>(targets.weight(i));
      out[i] = {static_cast<float>(w * (std::clamp)(g, -15.0, 15.0)),
                static_cast<float>(w * (std::clamp)(h, 1e-16, 15.0))};
    }
  }
  void transform(float* margins, std::int64_t rows) const override {
    apply_link(Link::exponential, margins, rows, 1);
  }
  [[nodiscard]] double margin_of(double score) const override {
    return detail::positive_score(name(), score);
  }

 private:
  void derivatives(const detail::AftInterval& t, double m, double& g, double& h) const {
    const double mass = t.exact() ? 0 : detail::aft_mass(density_, t, m, scale_);
    if (!(mass > 1e-12)) {  // exact, or so far out that the nearer end decides
      const double l = (t.lower - m) / scale_, u = (t.upper - m) / scale_;
      const double z = t.has_lower && (l > 0 || !t.has_upper) ? l : u;
      g = density_.slope(z) / scale_;
      h = density_.curvature(z) / (scale_ * scale_);
      return;
    }
    double pdf = 0, slope = 0;  // upper end less lower end
    if (t.has_upper) {
      const double u = (t.upper - m) / scale_, p = density_.pdf(u);
      pdf += p;
      slope += p > 0 ? p * density_.slope(u) : 0;
    }
    if (t.has_lower) {
      const double l = (t.lower - m) / scale_, p = density_.pdf(l);
      pdf -= p;
      slope -= p > 0 ? p * density_.slope(l) : 0;
    }
    g = pdf / (scale_ * mass);
    h = (pdf * pdf - mass * slope) / (scale_ * scale_ * mass * mass);
  }

  detail::AftDensity density_;
  double scale_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Aft = BasicAft<>;

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVES_SURVIVAL_HPP
