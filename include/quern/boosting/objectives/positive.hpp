// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses of counts and positive amounts: the prediction is exp(margin).

#ifndef QUERN_BOOSTING_OBJECTIVES_POSITIVE_HPP
#define QUERN_BOOSTING_OBJECTIVES_POSITIVE_HPP

#include "quern/boosting/objectives/base.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/kernels.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// What losses with prediction exp(margin) have in common. They start at log(mean of the labels),
/// the best constant of each of them.
class LogLinkObjective : public Objective {
 public:
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    return {detail::log_mean(detail::mean_label(targets))};
  }
  void transform(float* margins, std::int64_t rows) const override {
    apply_link(Link::exponential, margins, rows, 1);
  }
  [[nodiscard]] double margin_of(double score) const override {
    return detail::positive_score(name(), score);
  }

 protected:
  static const float* weights_at(const Targets& targets, std::int64_t begin) {
    return targets.weights.empty() ? nullptr : targets.weights.data() + begin;
  }
};

/// e^m - y m, the negative log-likelihood of a Poisson count; labels >= 0. XGBoost's second
/// derivative is e^(m + max_delta_step), not e^m, so that steps stay small.
template <class = void>
class BasicPoisson final : public LogLinkObjective {
 public:
  explicit BasicPoisson(double max_delta_step = 0.7) : step_(max_delta_step) {
    if (!(step_ >= 0 && step_ <= 80))
      throw ValueError(
          error_text("quern::boosting::count:poisson", "max_delta_step", "0..80", max_delta_step));
  }
  [[nodiscard]] std::string_view name() const override { return "count:poisson"; }
  [[nodiscard]] std::string_view default_metric() const override { return "poisson-nloglik"; }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_labels(name(), labels, "a number >= 0", [](float y) { return y >= 0; });
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    QUERN_DISPATCH(poisson_gradients<float>(margins + begin, targets.labels.data() + begin,
                                            weights_at(targets, begin), end - begin, step_,
                                            &out[begin].g));
  }

 private:
  double step_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Poisson = BasicPoisson<>;

/// y e^-m + m, the negative log-likelihood of a gamma distribution up to its shape; labels > 0.
template <class = void>
class BasicGamma final : public LogLinkObjective {
 public:
  [[nodiscard]] std::string_view name() const override { return "reg:gamma"; }
  [[nodiscard]] std::string_view default_metric() const override { return "gamma-nloglik"; }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_labels(name(), labels, "a number > 0", [](float y) { return y > 0; });
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    QUERN_DISPATCH(gamma_gradients<float>(margins + begin, targets.labels.data() + begin,
                                          weights_at(targets, begin), end - begin, &out[begin].g));
  }
};
/// (A template, so that a program compiles it only where it uses it.)
using Gamma = BasicGamma<>;

/// -y e^((1-r) m) / (1-r) + e^((2-r) m) / (2-r), the deviance of a Tweedie distribution whose
/// variance is mean^r, 1 < r < 2; labels >= 0.
template <class = void>
class BasicTweedie final : public LogLinkObjective {
 public:
  explicit BasicTweedie(double variance_power = 1.5) : power_(variance_power) {
    if (!(power_ > 1 && power_ < 2))
      throw ValueError(error_text("quern::boosting::reg:tweedie", "tweedie_variance_power",
                                  "a number between 1 and 2", variance_power));
    const std::string text = std::to_string(power_);
    const std::size_t last = text.find_last_not_of('0');
    metric_ = "tweedie-nloglik@" + text.substr(0, last + 1);
  }
  [[nodiscard]] std::string_view name() const override { return "reg:tweedie"; }
  [[nodiscard]] std::string_view default_metric() const override { return metric_; }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_labels(name(), labels, "a number >= 0", [](float y) { return y >= 0; });
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    QUERN_DISPATCH(tweedie_gradients<float>(margins + begin, targets.labels.data() + begin,
                                            weights_at(targets, begin), end - begin, power_,
                                            &out[begin].g));
  }

 private:
  double power_;
  std::string metric_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Tweedie = BasicTweedie<>;

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVES_POSITIVE_HPP
