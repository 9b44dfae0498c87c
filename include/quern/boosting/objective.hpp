// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses: their derivatives by margin, and how margins become predictions.

#ifndef QUERN_BOOSTING_OBJECTIVE_HPP
#define QUERN_BOOSTING_OBJECTIVE_HPP

#include "quern/boosting/transform.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/tree/gradient.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// Second derivatives that softmax reports.
enum class SoftmaxHessian : std::uint8_t {
  doubled,  ///< 2 p (1 - p): XGBoost's, an upper bound that damps the steps
  exact,    ///< p (1 - p)
};

/// Labels and weights of the rows; weights may be empty (all one).
struct Targets {
  std::span<const float> labels;
  std::span<const float> weights;

  [[nodiscard]] std::int64_t rows() const noexcept {
    return static_cast<std::int64_t>(labels.size());
  }
  [[nodiscard]] float weight(std::int64_t row) const noexcept {
    return weights.empty() ? 1.0f : weights[static_cast<std::size_t>(row)];
  }
};

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
  /// Margins (outputs) of the best constant prediction, where learning starts.
  [[nodiscard]] virtual std::vector<double> start(const Targets& targets) const = 0;
  /// Gradients of rows [begin, end).
  virtual void gradients(const float* margins, const Targets& targets, std::int64_t begin,
                         std::int64_t end, tree::GradientPair* out) const = 0;
  /// Predictions from \p rows rows of margins, in place.
  virtual void transform(float* margins, std::int64_t rows) const = 0;
  /// Margin whose prediction is \p score (XGBoost's base_score).
  [[nodiscard]] virtual double margin_of(double score) const { return score; }
};

namespace detail {

inline constexpr std::int64_t objective_block = std::int64_t{1} << 12;

[[noreturn]] inline void bad_label(std::string_view objective, std::size_t row,
                                   std::string_view expected, float got) {
  throw ValueError(error_text("quern::boosting::" + std::string(objective),
                              "label of row " + std::to_string(row), expected, got));
}

/// Weighted mean of the labels; 0 without rows or weight.
inline double mean_label(const Targets& targets) {
  double sum = 0, weight = 0;
  for (std::int64_t i = 0; i < targets.rows(); ++i) {
    const auto w = static_cast<double>(targets.weight(i));
    sum += w * static_cast<double>(targets.labels[static_cast<std::size_t>(i)]);
    weight += w;
  }
  return weight > 0 ? sum / weight : 0;
}

inline double logit(double p) { return std::log(p) - std::log1p(-p); }

/// A share that is neither 0 nor 1, so that its margin is finite.
inline double inner_share(double p) { return (std::clamp)(p, 1e-6, 1 - 1e-6); }

}  // namespace detail

/// (margin - y)^2 / 2.
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
      out[i] = {w * (margins[i] - targets.labels[static_cast<std::size_t>(i)]), w};
    }
  }
  void transform(float*, std::int64_t) const override {}
};

/// Log-loss of a probability sigmoid(margin); labels in [0, 1].
class Logistic final : public Objective {
 public:
  /// \p name "binary:logistic" or "reg:logistic"; \p positive_weight multiplies the weight of rows
  /// with label 1 (XGBoost's scale_pos_weight).
  explicit Logistic(std::string_view name = "binary:logistic", double positive_weight = 1)
      : name_(name), positive_weight_(static_cast<float>(positive_weight)) {}

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::string_view default_metric() const override {
    return name_ == "binary:logistic" ? "logloss" : "rmse";
  }
  void check_labels(std::span<const float> labels) const override {
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if (!(labels[i] >= 0 && labels[i] <= 1))
        detail::bad_label(name_, i, "a number in [0, 1]", labels[i]);
    }
  }
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    return {detail::logit(detail::inner_share(detail::mean_label(targets)))};
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    const float* weights = targets.weights.empty() ? nullptr : targets.weights.data() + begin;
    QUERN_DISPATCH(logistic_gradients<float>(margins + begin, targets.labels.data() + begin,
                                             weights, end - begin, &out[begin].g));
    if (positive_weight_ == 1.0f) return;
    for (std::int64_t i = begin; i < end; ++i) {
      if (targets.labels[static_cast<std::size_t>(i)] != 1.0f) continue;
      out[i].g *= positive_weight_;
      out[i].h *= positive_weight_;
    }
  }
  void transform(float* margins, std::int64_t rows) const override {
    apply_link(Link::logistic, margins, rows, 1);
  }
  [[nodiscard]] double margin_of(double score) const override {
    if (!(score > 0 && score < 1))
      throw ValueError(error_text("quern::boosting::" + name_, "base_score",
                                  "a probability between 0 and 1", score));
    return detail::logit(score);
  }

 private:
  std::string name_;
  float positive_weight_;
};

/// Cross-entropy of softmax(margins); labels 0 .. classes - 1.
class Softmax final : public Objective {
 public:
  /// \p name "multi:softprob" (predicts probabilities) or "multi:softmax" (the class).
  Softmax(std::string_view name, std::int32_t classes, SoftmaxHessian hessian)
      : name_(name), classes_(classes), factor_(hessian == SoftmaxHessian::doubled ? 2.0f : 1.0f) {
    if (classes < 2)
      throw ValueError(error_text("quern::boosting::" + name_, "num_class", ">= 2", classes));
  }

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::int32_t outputs() const override { return classes_; }
  [[nodiscard]] std::string_view default_metric() const override { return "mlogloss"; }
  void check_labels(std::span<const float> labels) const override {
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const bool whole = labels[i] == std::floor(labels[i]);
      if (!(labels[i] >= 0 && labels[i] < static_cast<float>(classes_)) || !whole)
        detail::bad_label(name_, i, "a class 0.." + std::to_string(classes_ - 1), labels[i]);
    }
  }
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    std::vector<double> share(static_cast<std::size_t>(classes_), 0.0);
    double total = 0;
    for (std::int64_t i = 0; i < targets.rows(); ++i) {
      const auto w = static_cast<double>(targets.weight(i));
      share[static_cast<std::size_t>(targets.labels[static_cast<std::size_t>(i)])] += w;
      total += w;
    }
    for (double& s : share) s = std::log(detail::inner_share(total > 0 ? s / total : 0.5));
    return share;
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    const std::int64_t k = classes_, rows = targets.rows();
    core::Buffer<float> p(static_cast<std::size_t>((end - begin) * k));
    QUERN_DISPATCH(softmax_probabilities<float>(margins + begin * k, end - begin, k, p.data()));
    for (std::int64_t c = 0; c < k; ++c) {
      tree::GradientPair* to = out + c * rows;
      for (std::int64_t i = begin; i < end; ++i) {
        const float q = p[static_cast<std::size_t>((i - begin) * k + c)];
        const float w = targets.weight(i);
        const bool hit = targets.labels[static_cast<std::size_t>(i)] == static_cast<float>(c);
        const float h = factor_ * q * (1.0f - q);
        to[i] = {w * (hit ? q - 1.0f : q), w * (h > 1e-16f ? h : 1e-16f)};
      }
    }
  }
  void transform(float* margins, std::int64_t rows) const override {
    apply_link(Link::softmax, margins, rows, classes_);
  }

 private:
  std::string name_;
  std::int32_t classes_;
  float factor_;
};

/// The objective of an XGBoost name; ValueError for one that is not known.
[[nodiscard]] inline std::unique_ptr<Objective> make_objective(
    std::string_view name, std::int32_t classes, SoftmaxHessian hessian = SoftmaxHessian::doubled,
    double positive_weight = 1) {
  if (name == "reg:squarederror") return std::make_unique<SquaredError>();
  if (name == "binary:logistic" || name == "reg:logistic")
    return std::make_unique<Logistic>(name, positive_weight);
  if (name == "multi:softprob" || name == "multi:softmax")
    return std::make_unique<Softmax>(name, classes, hessian);
  throw ValueError(error_text("quern::boosting::make_objective", "objective",
                              "reg:squarederror, reg:logistic, binary:logistic, multi:softmax or "
                              "multi:softprob",
                              name));
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVE_HPP
