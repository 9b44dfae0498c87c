// SPDX-License-Identifier: Apache-2.0

/// \file
/// Logistic regression of two or many classes.

#ifndef QUERN_ENSEMBLE_LEARNERS_LOGISTIC_REGRESSION_HPP
#define QUERN_ENSEMBLE_LEARNERS_LOGISTIC_REGRESSION_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ensemble/detail/linear_map.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/optim/lbfgs.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

struct LogisticRegressionOptions {
  double l2 = 1;  ///< >= 0; half of it times |coefficients|^2 is added to the sum of losses (1 / C)
  double tolerance = 1e-6;  ///< of the gradient of the mean loss, over standardised features
  std::int32_t max_iterations = 1000;
};

namespace detail {

/// Mean logistic loss with its penalty, as a function of coefficients over standardised features:
/// a change of variables for the minimiser's sake, the minimum is that of the features as they are.
template <class = void>
class BasicLogisticLoss {
 public:
  BasicLogisticLoss(Features x, Classes y, std::span<const float> weights, double l2)
      : x_(x), y_(y), weights_(weights), l2_(l2), outputs_(y.count == 2 ? 1 : y.count) {
    for (std::size_t i = 0; i < y.size(); ++i) total_ += weight_of(weights, i);
    standardise();
  }

  [[nodiscard]] Index size() const { return (x_.cols() + 1) * outputs_; }

  /// The map of variables (features + 1, outputs), the intercepts last.
  [[nodiscard]] LinearMap map_of(std::span<const double> at) const {
    const Eigen::Map<const Eigen::VectorXd> v(at.data(), static_cast<Index>(at.size()));
    LinearMap map(x_.cols(), outputs_);
    for (Index c = 0; c < outputs_; ++c) {
      double& intercept = map.intercepts[static_cast<std::size_t>(c)];
      intercept = v[x_.cols() * outputs_ + c];
      for (Index f = 0; f < x_.cols(); ++f) {
        map.weights(f, c) = v[f * outputs_ + c] / scale_[f];
        intercept -= map.weights(f, c) * mean_[f];
      }
    }
    return map;
  }

  /// The loss at (coefficients of standardised features, then intercepts), and its gradient there.
  double operator()(std::span<const double> at, std::span<double> gradient) const {
    const LinearMap map = map_of(at);
    Sums sums = parallel_reduce(
        block_count(x_.rows(), row_block), Sums{0, Eigen::VectorXd::Zero(size())},
        [&](std::int64_t b) { return block_sums(map, block_range(x_.rows(), row_block, b)); },
        [](Sums a, const Sums& b) {
          a.loss += b.loss;
          a.gradient += b.gradient;
          return a;
        });
    for (Index f = 0; f < x_.cols(); ++f) {
      for (Index c = 0; c < outputs_; ++c) {
        const double w = map.weights(f, c);
        double& g = sums.gradient[f * outputs_ + c];
        g = (g - mean_[f] * sums.gradient[x_.cols() * outputs_ + c] + l2_ * w) / scale_[f];
        sums.loss += 0.5 * l2_ * w * w;
      }
    }
    for (std::size_t i = 0; i < gradient.size(); ++i)
      gradient[i] = sums.gradient[static_cast<Index>(i)] / total_;
    return sums.loss / total_;
  }

 private:
  struct Sums {
    double loss;
    Eigen::VectorXd gradient;
  };

  void standardise() {
    mean_ = Eigen::VectorXd::Zero(x_.cols());
    scale_ = Eigen::VectorXd::Zero(x_.cols());
    for (Index i = 0; i < x_.rows(); ++i) {
      const double w = weight_of(weights_, static_cast<std::size_t>(i)) / total_;
      for (Index f = 0; f < x_.cols(); ++f) mean_[f] += w * static_cast<double>(x_(i, f));
    }
    for (Index i = 0; i < x_.rows(); ++i) {
      const double w = weight_of(weights_, static_cast<std::size_t>(i)) / total_;
      for (Index f = 0; f < x_.cols(); ++f) {
        const double d = static_cast<double>(x_(i, f)) - mean_[f];
        scale_[f] += w * d * d;
      }
    }
    for (Index f = 0; f < x_.cols(); ++f) {
      const bool constant = scale_[f] <= 1e-20 * mean_[f] * mean_[f];  // but for rounding
      scale_[f] = constant ? 1 : std::sqrt(scale_[f]);
    }
  }

  /// Loss of a row; its scores become the derivatives by them.
  double row_loss(std::span<double> s, std::int32_t code) const {
    if (outputs_ == 1 && y_.count == 2) {
      const double sign = code == 1 ? 1 : -1, margin = sign * s[0];
      s[0] = -sign * sigmoid(-margin);
      return std::log1p(std::exp(-std::abs(margin))) + (std::max)(-margin, 0.0);
    }
    const auto own = static_cast<std::size_t>(code);
    const double most = *std::max_element(s.begin(), s.end()), score = s[own];
    double sum = 0;
    for (const double v : s) sum += std::exp(v - most);
    softmax(s);
    s[own] -= 1;
    return std::log(sum) + most - score;
  }

  Sums block_sums(const LinearMap& map, BlockRange rows) const {
    const NdArray<double, 2> block = double_rows(x_, rows);
    NdArray<double, 2> s = map.scores(block);
    Sums sums{0, Eigen::VectorXd::Zero(size())};
    for (Index i = 0; i < rows.size(); ++i) {
      const auto row = static_cast<std::size_t>(rows.begin + i);
      const std::span<double> scores(s.data() + i * outputs_, static_cast<std::size_t>(outputs_));
      const double w = weight_of(weights_, row);
      sums.loss += w * row_loss(scores, y_.codes[row]);
      for (Index c = 0; c < outputs_; ++c) sums.gradient[x_.cols() * outputs_ + c] += s(i, c) *= w;
    }
    kernels::gemm<double>(MatrixView<const double>(block.view()).transposed(), s.view(),
                          MatrixView<double>(sums.gradient.data(), {x_.cols(), outputs_}));
    return sums;
  }

  Features x_;
  Classes y_;
  std::span<const float> weights_;
  double l2_;
  Index outputs_;
  double total_ = 0;
  Eigen::VectorXd mean_, scale_;
};
/// (A template, so that a program compiles it only where it uses it.)
using LogisticLoss = BasicLogisticLoss<>;

}  // namespace detail

/// Minimises sum_i w_i loss_i + l2/2 |coefficients|^2: of two classes the logistic loss of one
/// score, of more the cross-entropy of a softmax. Intercepts are not penalised.
template <class = void>
class BasicLogisticRegression {
 public:
  explicit BasicLogisticRegression(LogisticRegressionOptions options = {}) : options_(options) {
    constexpr double most = (std::numeric_limits<double>::max)();
    expect_in_range(name, "l2", options.l2, 0.0, most);
    expect_in_range(name, "tolerance", options.tolerance, 0.0, most);
    expect_in_range(name, "max_iterations", options.max_iterations, 0, 1 << 30);
  }

  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t /*seed*/ = 0) {
    detail::check_rows(name, x, y.size(), weights);
    detail::check_classes(name, {y, classes});
    detail::check_finite_features(name, x);
    const detail::LogisticLoss loss(x, {y, classes}, weights, options_.l2);
    std::vector<double> best(static_cast<std::size_t>(loss.size()));
    optim::minimize_lbfgs<double>(
        loss, best,
        {.max_iterations = options_.max_iterations, .gradient_tolerance = options_.tolerance});
    map_ = loss.map_of(best);
    classes_ = classes;
  }

  void predict_proba(Features x, MatrixView<float> out) const {
    expect_shape(name, "out", out, {x.rows(), Index{classes_}});
    map_.for_each_row(name, x, [&](Index i, std::span<const double> scores) {
      std::vector<double> p(scores.begin(), scores.end());
      if (classes_ == 2) {
        p = {detail::sigmoid(-p[0]), detail::sigmoid(p[0])};
      } else {
        detail::softmax(p);
      }
      for (Index c = 0; c < out.cols(); ++c)
        out(i, c) = static_cast<float>(p[static_cast<std::size_t>(c)]);
    });
  }

  [[nodiscard]] std::int32_t classes() const noexcept { return classes_; }
  /// (features, scores): of two classes one score, that of class 1.
  [[nodiscard]] MatrixView<const double> coefficients() const noexcept {
    return map_.weights.view();
  }
  [[nodiscard]] std::span<const double> intercepts() const noexcept { return map_.intercepts; }

  static constexpr std::string_view kind() { return "ensemble.logistic_regression"; }
  void save(ArchiveWriter& out) const { detail::save_class_map(out, map_, classes_); }
  void load(const ArchiveReader& in) { detail::load_class_map(in, map_, classes_); }

 private:
  static constexpr std::string_view name = "quern::ensemble::LogisticRegression";

  LogisticRegressionOptions options_;
  std::int32_t classes_ = 0;
  detail::LinearMap map_;
};
/// (A template, so that a program compiles it only where it uses it.)
using LogisticRegression = BasicLogisticRegression<>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_LEARNERS_LOGISTIC_REGRESSION_HPP
