// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses of classes: logistic, hinge, softmax, one against all.

#ifndef QUERN_BOOSTING_OBJECTIVES_CLASSIFICATION_HPP
#define QUERN_BOOSTING_OBJECTIVES_CLASSIFICATION_HPP

#include "quern/boosting/objectives/base.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/kernels.hpp"

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

namespace detail {

inline double probability_margin(std::string_view objective, double score) {
  if (score > 0 && score < 1) return logit(score);
  throw ValueError(error_text("quern::boosting::" + std::string(objective), "base_score",
                              "a probability between 0 and 1", score));
}

inline void expect_classes(std::string_view objective, std::span<const float> labels,
                           std::int32_t classes) {
  const auto most = static_cast<float>(classes);
  expect_labels(objective, labels, "a class 0.." + std::to_string(classes - 1),
                [&](float y) { return y >= 0 && y < most && y == std::floor(y); });
}

/// Weighted share of each class; 1/2 without weight.
inline std::vector<double> class_shares(const Targets& targets, std::int32_t classes) {
  std::vector<double> share(static_cast<std::size_t>(classes), 0.0);
  double total = 0;
  for (std::int64_t i = 0; i < targets.rows(); ++i) {
    const auto w = static_cast<double>(targets.weight(i));
    share[static_cast<std::size_t>(targets.label(i))] += w;
    total += w;
  }
  for (double& s : share) s = inner_share(total > 0 ? s / total : 0.5);
  return share;
}

}  // namespace detail

/// Log-loss of a probability sigmoid(m), log(1 + e^m) - y m; labels in [0, 1].
template <class = void>
class BasicLogistic final : public Objective {
 public:
  /// \p name "binary:logistic", "reg:logistic" or "binary:logitraw" (predicts the margin);
  /// \p positive_weight multiplies the weight of rows with label 1 (XGBoost's scale_pos_weight).
  explicit BasicLogistic(std::string_view name = "binary:logistic", double positive_weight = 1)
      : name_(name), positive_weight_(static_cast<float>(positive_weight)) {}

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::string_view default_metric() const override {
    return name_ == "reg:logistic" ? "rmse" : "logloss";
  }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_labels(name_, labels, "a number in [0, 1]",
                          [](float y) { return y >= 0 && y <= 1; });
  }
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    double positive = 0, total = 0;
    for (std::int64_t i = 0; i < targets.rows(); ++i) {
      const float y = targets.label(i);
      const double w = static_cast<double>(targets.weight(i)) *
                       static_cast<double>(y == 1.0f ? positive_weight_ : 1.0f);
      positive += w * static_cast<double>(y);
      total += w;
    }
    return {detail::logit(detail::inner_share(total > 0 ? positive / total : 0))};
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    const float* weights = targets.weights.empty() ? nullptr : targets.weights.data() + begin;
    QUERN_DISPATCH(logistic_gradients<float>(margins + begin, targets.labels.data() + begin,
                                             weights, end - begin, &out[begin].g));
    if (positive_weight_ == 1.0f) return;
    for (std::int64_t i = begin; i < end; ++i) {
      if (targets.label(i) != 1.0f) continue;
      out[i].g *= positive_weight_;
      out[i].h *= positive_weight_;
    }
  }
  void transform(float* margins, std::int64_t rows) const override {
    if (name_ != "binary:logitraw") apply_link(Link::logistic, margins, rows, 1);
  }
  void transform_for_metrics(float* margins, std::int64_t rows) const override {
    apply_link(Link::logistic, margins, rows, 1);
  }
  [[nodiscard]] double margin_of(double score) const override {
    return name_ == "binary:logitraw" ? score : detail::probability_margin(name_, score);
  }

 private:
  std::string name_;
  float positive_weight_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Logistic = BasicLogistic<>;

/// max(0, 1 - s m) with s = 2 y - 1; labels in [0, 1]. Predicts 1 where m > 0, else 0. Beyond the
/// margin g = 0 and h is the smallest float, as in XGBoost.
class Hinge final : public Objective {
 public:
  [[nodiscard]] std::string_view name() const override { return "binary:hinge"; }
  [[nodiscard]] std::string_view default_metric() const override { return "error"; }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_labels(name(), labels, "0 or 1", [](float y) { return y == 0 || y == 1; });
  }
  /// Newton's step from 0: share of ones less that of zeros.
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    return {2 * detail::mean_label(targets) - 1};
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    for (std::int64_t i = begin; i < end; ++i) {
      const float s = 2 * targets.label(i) - 1, w = targets.weight(i);
      out[i] = margins[i] * s < 1 ? tree::GradientPair{-s * w, w}
                                  : tree::GradientPair{0, (std::numeric_limits<float>::min)()};
    }
  }
  void transform(float* margins, std::int64_t rows) const override {
    apply_link(Link::hinge, margins, rows, 1);
  }
};

/// Cross-entropy of softmax(margins); labels 0 .. classes - 1.
template <class = void>
class BasicSoftmax final : public Objective {
 public:
  /// \p name "multi:softprob" (predicts probabilities) or "multi:softmax" (the class).
  BasicSoftmax(std::string_view name, std::int32_t classes, SoftmaxHessian hessian)
      : name_(name), classes_(classes), factor_(hessian == SoftmaxHessian::doubled ? 2.0f : 1.0f) {
    if (classes < 2)
      throw ValueError(error_text("quern::boosting::" + name_, "num_class", ">= 2", classes));
    if (hessian == SoftmaxHessian::friedman)
      factor_ = static_cast<float>(classes) / static_cast<float>(classes - 1);
  }

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::int32_t outputs() const override { return classes_; }
  [[nodiscard]] std::string_view default_metric() const override { return "mlogloss"; }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_classes(name_, labels, classes_);
  }
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    std::vector<double> margins = detail::class_shares(targets, classes_);
    for (double& s : margins) s = std::log(s);
    return margins;
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
        const bool hit = targets.label(i) == static_cast<float>(c);
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
/// (A template, so that a program compiles it only where it uses it.)
using Softmax = BasicSoftmax<>;

/// A logistic loss for each class against all others, summed; labels 0 .. classes - 1. Predicts
/// each class's probability on its own, so that a row's need not add up to 1 (LightGBM's
/// multiclassova).
template <class = void>
class BasicOneVsAll final : public Objective {
 public:
  explicit BasicOneVsAll(std::int32_t classes) : classes_(classes) {
    if (classes < 2)
      throw ValueError(error_text("quern::boosting::multi:ova", "num_class", ">= 2", classes));
  }
  [[nodiscard]] std::string_view name() const override { return "multi:ova"; }
  [[nodiscard]] std::int32_t outputs() const override { return classes_; }
  [[nodiscard]] std::string_view default_metric() const override { return "mlogloss"; }
  void check_labels(std::span<const float> labels) const override {
    detail::expect_classes(name(), labels, classes_);
  }
  [[nodiscard]] std::vector<double> start(const Targets& targets) const override {
    std::vector<double> margins = detail::class_shares(targets, classes_);
    for (double& s : margins) s = detail::logit(s);
    return margins;
  }
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    const std::int64_t k = classes_, rows = end - begin;
    const float* weights = targets.weights.empty() ? nullptr : targets.weights.data() + begin;
    core::Buffer<float> column(static_cast<std::size_t>(rows)), label(column.size());
    for (std::int64_t c = 0; c < k; ++c) {
      for (std::int64_t i = 0; i < rows; ++i) {
        column[static_cast<std::size_t>(i)] = margins[(begin + i) * k + c];
        label[static_cast<std::size_t>(i)] =
            targets.label(begin + i) == static_cast<float>(c) ? 1.0f : 0.0f;
      }
      QUERN_DISPATCH(logistic_gradients<float>(column.data(), label.data(), weights, rows,
                                               &out[c * targets.rows() + begin].g));
    }
  }
  void transform(float* margins, std::int64_t rows) const override {
    apply_link(Link::logistic, margins, rows, classes_);
  }
  [[nodiscard]] double margin_of(double score) const override {
    return detail::probability_margin(name(), score);
  }

 private:
  std::int32_t classes_;
};
/// (A template, so that a program compiles it only where it uses it.)
using OneVsAll = BasicOneVsAll<>;

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVES_CLASSIFICATION_HPP
