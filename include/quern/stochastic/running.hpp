// SPDX-License-Identifier: Apache-2.0

/// \file
/// Running means and variances: one observation at a time, all at once, with weights, merged, with
/// any sequence of steps (a constant one forgets exponentially).
///
/// The running mean is the first instance of stochastic approximation: m <- m + a_k (x - m) is
/// Robbins-Monro on g(m) = m - x, whose root is the expectation; with a_k = 1/k it is the
/// arithmetic mean. Variances by B. P. Welford, Technometrics 4 (1962); weights: D. H. D. West,
/// CACM 22 (1979); merging: T. F. Chan, G. H. Golub, R. J. LeVeque (1979).

#ifndef QUERN_STOCHASTIC_RUNNING_HPP
#define QUERN_STOCHASTIC_RUNNING_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/stochastic/run.hpp"
#include "quern/stochastic/step_size.hpp"

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

/// m <- m + a_k (x - m) from m = 0; a_k = 1/k unless said otherwise.
template <std::floating_point T = double>
class RunningMean {
 public:
  explicit RunningMean(StepSize step = StepSize::harmonic(1), T start = T{0})
      : step_(std::move(step)), mean_(start) {
    expect_finite("quern::stochastic::RunningMean", "start", start);
  }
  /// One more observation. ValueError unless it is finite.
  void step(T x) {
    detail::expect_observation<T>("quern::stochastic::RunningMean::step", {&x, 1}, 1, count_ + 1);
    const double a = step_(count_ + 1);  // may throw
    ++count_;
    mean_ += static_cast<T>(a) * (x - mean_);
  }
  [[nodiscard]] T mean() const noexcept { return mean_; }
  [[nodiscard]] std::int64_t count() const noexcept { return count_; }

 private:
  StepSize step_;
  T mean_;
  std::int64_t count_ = 0;
};

namespace detail {

/// ValueError unless a weight is finite and at least 0.
inline void expect_weight(const char* function, double weight) {
  expect_not_negative(function, "weight", weight);
}

}  // namespace detail

/// Mean and variance of weighted observations; sums are kept in double.
class RunningMoments {
 public:
  /// One more observation. ValueError unless it is finite and its weight finite and at least 0.
  void step(double x, double weight = 1) {
    constexpr const char* function = "quern::stochastic::RunningMoments::step";
    detail::expect_observation<double>(function, {&x, 1}, 1, count_ + 1);
    detail::expect_weight(function, weight);
    ++count_;
    if (weight == 0) return;
    weights_ += weight;
    squared_weights_ += weight * weight;
    const double delta = x - mean_;
    mean_ += delta * (weight / weights_);
    squares_ += weight * delta * (x - mean_);
  }
  /// Adds what another one has seen, as if it had been seen here.
  void merge(const RunningMoments& other) {
    count_ += other.count_;
    if (other.weights_ == 0) return;
    const double delta = other.mean_ - mean_;
    const double sum = weights_ + other.weights_;
    mean_ += delta * (other.weights_ / sum);
    squares_ += other.squares_ + delta * delta * (weights_ / sum) * other.weights_;
    weights_ = sum;
    squared_weights_ += other.squared_weights_;
  }
  /// All values at once, on several threads by fixed blocks of 4096: the same bits for any number.
  /// No weights: 1 each. ShapeError for weights of another number, ValueError as step().
  template <std::floating_point T>
  [[nodiscard]] static RunningMoments of(std::span<const T> values,
                                         std::type_identity_t<std::span<const T>> weights = {},
                                         int threads = 0) {
    const auto n = static_cast<std::int64_t>(values.size());
    if (!weights.empty()) {
      expect_size("quern::stochastic::RunningMoments::of", "weights",
                  static_cast<Index>(weights.size()), n, "values, one an observation");
    }
    const auto block = [&](std::int64_t b) {
      const BlockRange range = block_range(n, 4096, b);
      RunningMoments part;
      for (std::int64_t i = range.begin; i < range.end; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (!is_finite_bits(values[at])) {
          throw ValueError(error_text("quern::stochastic::RunningMoments::of", "values",
                                      "finite values",
                                      std::string(is_nan_bits(values[at]) ? "NaN" : "infinity") +
                                          " at place " + std::to_string(i)));
        }
        part.step(static_cast<double>(values[at]),
                  weights.empty() ? 1.0 : static_cast<double>(weights[at]));
      }
      return part;
    };
    const auto join = [](RunningMoments all, const RunningMoments& part) {
      all.merge(part);
      return all;
    };
    return parallel_reduce(block_count(n, 4096), RunningMoments{}, block, join, threads);
  }

  [[nodiscard]] std::int64_t count() const noexcept { return count_; }
  [[nodiscard]] double weight() const noexcept { return weights_; }  ///< sum of the weights
  /// 0 before the first observation.
  [[nodiscard]] double mean() const noexcept { return mean_; }
  /// Mean squared distance from the mean (divided by the sum of weights); 0 without observations.
  [[nodiscard]] double variance() const noexcept {
    return weights_ > 0 ? squares_ / weights_ : 0.0;
  }
  /// Unbiased where weights say how reliable an observation is: divided by W - sum w^2 / W, which
  /// is n - 1 for equal weights of 1; 0 for fewer than two observations.
  [[nodiscard]] double sample_variance() const noexcept {
    const double freedom = weights_ > 0 ? weights_ - squared_weights_ / weights_ : 0.0;
    return freedom > 0 ? squares_ / freedom : 0.0;
  }
  /// Standard error of the mean.
  [[nodiscard]] double standard_error() const noexcept {
    return weights_ > 0 ? std::sqrt(sample_variance() * squared_weights_) / weights_ : 0.0;
  }

 private:
  std::int64_t count_ = 0;
  double weights_ = 0;
  double squared_weights_ = 0;
  double mean_ = 0;
  double squares_ = 0;
};

/// Mean and variance under any sequence of steps: m <- m + a_k d, v <- (1 - a_k)(v + a_k d^2) with
/// d = x - m. a_k = 1/k gives those of all observations, a constant those of an exponentially
/// fading memory. ValueError where a step is above 1.
class StepMoments {
 public:
  explicit StepMoments(StepSize step) : step_(std::move(step)) {}

  /// The first observation is taken whole (m = x, v = 0), unless a start was given.
  void step(double x) {
    constexpr const char* function = "quern::stochastic::StepMoments::step";
    detail::expect_observation<double>(function, {&x, 1}, 1, count_ + 1);
    const double a = count_ == 0 && !started_ ? 1.0 : step_(count_ + 1);
    if (a > 1) throw ValueError(error_text(function, "step", "steps of at most 1", a));
    ++count_;
    const double delta = x - mean_;
    mean_ += a * delta;
    variance_ = (1 - a) * (variance_ + a * delta * delta);
  }
  /// Starts from a guess, which the first observation then only corrects.
  void start(double mean, double variance = 0) {
    constexpr const char* function = "quern::stochastic::StepMoments::start";
    expect_finite(function, "mean", mean);
    detail::expect_not_negative(function, "variance", variance);
    *this = StepMoments(step_);
    started_ = true;
    mean_ = mean;
    variance_ = variance;
  }
  [[nodiscard]] std::int64_t count() const noexcept { return count_; }
  [[nodiscard]] double mean() const noexcept { return mean_; }
  [[nodiscard]] double variance() const noexcept { return variance_; }

 private:
  StepSize step_;
  bool started_ = false;
  std::int64_t count_ = 0;
  double mean_ = 0;
  double variance_ = 0;
};

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_RUNNING_HPP
