// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses of real numbers whose margin is the prediction: squares, logarithms, absolute values,
/// pseudo-Huber, quantiles.

#ifndef QUERN_BOOSTING_OBJECTIVES_REGRESSION_HPP
#define QUERN_BOOSTING_OBJECTIVES_REGRESSION_HPP

#include "quern/boosting/objectives/base.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// (m - y)^2 / 2.
class SquaredError final : public Objective {
 public:
  [[nodiscard]] std::string_view name() const override { return "reg:squarederror"; }
  [[nodiscard]] std::string_view default_metric() const override { return "rmse"; }
  void check_labels(std::span<const float>) const override {}
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    return {detail::mean_label(targets)};
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    for (std::int64_t i = begin; i < end; ++i) {
      const float w = targets.weight(i);
      out[i] = {w * (margins[i] - targets.label(i)), w};
    }
  }
  void transform(float*, std::int64_t) const override {}
};

/// (log(1 + m) - log(1 + y))^2 / 2; labels > -1. The margin is kept above -1 + 1e-6, the second
/// derivative (1 - log(1 + m) + log(1 + y)) / (1 + m)^2 above 1e-6, as in XGBoost.
class SquaredLogError final : public Objective {
 public:
  [[nodiscard]] std::string_view name() const override { return "reg:squaredlogerror"; }
  [[nodiscard]] std::string_view default_metric() const override { return "rmsle"; }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_labels(name(), labels, "a number > -1", [](float y) { return y > -1; });
  }
  /// exp(mean of log(1 + y)) - 1, which is where the mean gradient vanishes.
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    double sum = 0, weight = 0;
    for (std::int64_t i = 0; i < targets.rows(); ++i) {
      const auto w = static_cast<double>(targets.weight(i));
      sum += w * std::log1p(static_cast<double>(targets.label(i)));
      weight += w;
    }
    return {weight > 0 ? std::expm1(sum / weight) : 0};
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    for (std::int64_t i = begin; i < end; ++i) {
      const double m = (std::max)(static_cast<double>(margins[i]), -1 + 1e-6);
      const double z = std::log1p(m) - std::log1p(static_cast<double>(targets.label(i)));
      const auto w = static_cast<double>(targets.weight(i));
      const double h = (std::max)((1 - z) / ((m + 1) * (m + 1)), 1e-6);
      out[i] = {static_cast<float>(w * z / (m + 1)), static_cast<float>(w * h)};
    }
  }
  void transform(float*, std::int64_t) const override {}
};

/// |m - y|: g = sign(m - y), h = 1; after growth each leaf takes the median of its residuals.
class AbsoluteError final : public Objective {
 public:
  [[nodiscard]] std::string_view name() const override { return "reg:absoluteerror"; }
  [[nodiscard]] std::string_view default_metric() const override { return "mae"; }
  void check_labels(std::span<const float>) const override {}
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    return {detail::label_quantile(targets, 0.5)};
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    for (std::int64_t i = begin; i < end; ++i) {
      const float w = targets.weight(i), z = margins[i] - targets.label(i);
      out[i] = {z > 0 ? w : z < 0 ? -w : 0.0f, w};
    }
  }
  void transform(float*, std::int64_t) const override {}
  [[nodiscard]] double leaf_quantile(std::int32_t) const override { return 0.5; }
};

/// slope^2 (sqrt(1 + (z / slope)^2) - 1) with z = m - y: squares near 0, lines far away.
template <class = void>
class BasicPseudoHuber final : public Objective {
 public:
  explicit BasicPseudoHuber(double slope = 1) : slope_(slope) {
    if (!(slope > 0 && slope <= 1e30))
      throw ValueError(error_text("quern::boosting::reg:pseudohubererror", "huber_slope",
                                  "a positive number", slope));
  }
  [[nodiscard]] std::string_view name() const override { return "reg:pseudohubererror"; }
  [[nodiscard]] std::string_view default_metric() const override { return "mphe"; }
  void check_labels(std::span<const float>) const override {}
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    return {detail::newton_start(*this, targets, detail::label_quantile(targets, 0.5))};
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    const float* weights = targets.weights.empty() ? nullptr : targets.weights.data() + begin;
    QUERN_DISPATCH(pseudo_huber_gradients<float>(margins + begin, targets.labels.data() + begin,
                                                 weights, end - begin, slope_, &out[begin].g));
  }
  void transform(float*, std::int64_t) const override {}

 private:
  double slope_;
};
/// (A template, so that a program compiles it only where it uses it.)
using PseudoHuber = BasicPseudoHuber<>;

/// Pinball loss: alpha (y - m) where y >= m, (1 - alpha) (m - y) else; one output for each level.
/// After growth each leaf takes its residuals' alpha quantile.
///
/// Predictions of rising levels do not cross: transform() sorts each row's margins (rearrangement:
/// Chernozhukov, Fernandez-Val and Galichon, 2010, who show that it brings estimates nearer to the
/// truth). Margins are left as they are, and so are predictions of levels in another order.
class QuantileError final : public Objective {
 public:
  explicit QuantileError(std::vector<double> alpha) : alpha_(std::move(alpha)) {
    if (alpha_.empty())
      throw ValueError(error_text("quern::boosting::reg:quantileerror", "quantile_alpha",
                                  "at least one level", 0));
    for (const double a : alpha_) {
      if (!(a > 0 && a < 1))
        throw ValueError(error_text("quern::boosting::reg:quantileerror", "quantile_alpha",
                                    "levels between 0 and 1", a));
    }
    rising_ = std::is_sorted(alpha_.begin(), alpha_.end());
  }

  [[nodiscard]] std::string_view name() const override { return "reg:quantileerror"; }
  [[nodiscard]] std::int32_t outputs() const override {
    return static_cast<std::int32_t>(alpha_.size());
  }
  [[nodiscard]] std::string_view default_metric() const override { return "quantile"; }
  void check_labels(std::span<const float>) const override {}
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    std::vector<double> margins;
    for (const double a : alpha_) margins.push_back(detail::label_quantile(targets, a));
    return margins;
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    const auto k = static_cast<std::int64_t>(alpha_.size());
    for (std::int64_t c = 0; c < k; ++c) {
      const auto alpha = static_cast<float>(alpha_[static_cast<std::size_t>(c)]);
      tree::GradientPair* to = out + c * targets.rows();
      for (std::int64_t i = begin; i < end; ++i) {
        const float w = targets.weight(i);
        to[i] = {margins[i * k + c] >= targets.label(i) ? w * (1 - alpha) : -w * alpha, w};
      }
    }
  }
  void transform(float* margins, std::int64_t rows) const override {
    if (rising_) apply_link(Link::sorted, margins, rows, outputs());
  }
  [[nodiscard]] double leaf_quantile(std::int32_t output) const override {
    return alpha_[static_cast<std::size_t>(output)];
  }

 private:
  std::vector<double> alpha_;
  bool rising_ = true;
};

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVES_REGRESSION_HPP
