// SPDX-License-Identifier: Apache-2.0

/// \file
/// Averages of iterates (Polyak, Ruppert) with confidence intervals that need nothing but the
/// iterates.
///
/// B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J.
/// Control Optim. 30 (1992). Intervals:
/// - random scaling (S. Lee, Y. Liao, M. H. Seo, Y. Shin, "Fast and robust online inference with
///   stochastic gradient descent via random scaling", AAAI 2022): the average's own path
///   studentises it. Nothing is tuned, nothing but sums is kept, coverage is close to what is asked
///   for; about a third wider than an interval with the true variance. The default.
/// - batch means with batches that double: 8 to 16 batches of equal length, Student's t with the
///   number of batches less 1. Narrower; covers too little while neighbouring batches still depend
///   on each other (steps that fall slowly, short runs).
/// Both are for steps a/k^alpha, 1/2 < alpha < 1: the averages of others obey other laws.
/// An estimate of the Hessian (the plug-in interval) is not needed by either.

#ifndef QUERN_STOCHASTIC_AVERAGING_HPP
#define QUERN_STOCHASTIC_AVERAGING_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/stochastic/run.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

struct Interval {
  double low = 0;
  double high = 0;
  [[nodiscard]] bool contains(double x) const noexcept { return low <= x && x <= high; }
  [[nodiscard]] double width() const noexcept { return high - low; }
};

enum class IntervalMethod { random_scaling, batch_means };

namespace detail {

/// P(|B(1)| > q sqrt(integral of (B(r) - r B(1))^2)) for a Brownian motion B. The two are
/// independent, and the integral has Laplace transform sqrt(s / sinh s), s = sqrt(2 t), so this is
/// 2/pi times the integral over [0, pi/2] of sqrt(z / sinh z), z = q / cos(angle). Its integrand
/// and all derivatives of odd order vanish at both ends or are even there: the trapezoid rule
/// converges faster than any power.
inline double random_scaling_tail(double q) {
  constexpr int steps = 64;
  constexpr double pi = 3.14159265358979323846;
  double sum = 0;
  for (int i = 0; i < steps; ++i) {
    const double z = q / std::cos(pi / 2 * i / steps);
    const double value = z < 1e-8 ? 1.0 : z > 700 ? 0.0 : std::sqrt(z / std::sinh(z));
    sum += i == 0 ? value / 2 : value;
  }
  return sum / steps;
}

/// P(|t| > q) for Student's t with `freedom` degrees: the integral of cos^(freedom-1) from
/// atan(q / sqrt(freedom)) to pi/2, over that from 0.
inline double student_tail(double q, std::int64_t freedom) {
  constexpr int steps = 512;  // Simpson's rule, smooth for freedom >= 2
  constexpr double pi = 3.14159265358979323846;
  const auto n = static_cast<double>(freedom);
  const auto integral = [&](double from) {
    const double h = (pi / 2 - from) / steps;
    double sum = 0;
    for (int i = 0; i < steps; ++i) {  // the last value is 0
      const double weight = i == 0 ? 1 : i % 2 == 1 ? 4 : 2;
      sum += weight * std::pow(std::cos(from + i * h), n - 1);
    }
    return sum * h / 3;
  };
  return integral(std::atan(q / std::sqrt(n))) / integral(0);
}

/// q >= 0 where a falling tail function has this value.
template <class Tail>
double tail_quantile(const Tail& tail, double probability) {
  double low = 0, high = 1;
  while (tail(high) > probability && high < 1e6) high *= 2;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (tail(middle) > probability ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

inline void expect_level(const char* function, double level) {
  if (level > 0 && level < 1) return;
  throw ValueError(error_text(function, "level", "a confidence between 0 and 1", level));
}

}  // namespace detail

/// Two-sided critical value of random scaling: 6.747 at .95, 5.323 at .9. ValueError unless
/// 0 < level < 1.
[[nodiscard]] inline double random_scaling_quantile(double level) {
  detail::expect_level("quern::stochastic::random_scaling_quantile", level);
  return detail::tail_quantile([](double q) { return detail::random_scaling_tail(q); }, 1 - level);
}
/// Two-sided critical value of Student's t: 2.131 for 15 degrees of freedom at .95.
[[nodiscard]] inline double student_quantile(double level, std::int64_t freedom) {
  constexpr const char* function = "quern::stochastic::student_quantile";
  detail::expect_level(function, level);
  if (freedom < 2) throw ValueError(error_text(function, "freedom", "at least 2", freedom));
  return detail::tail_quantile([&](double q) { return detail::student_tail(q, freedom); },
                               1 - level);
}

/// The running mean of iterates, and intervals for what they converge to.
class PolyakAverage {
 public:
  /// The first `burn_in` iterates are not averaged. ShapeError unless dimensions >= 1, ValueError
  /// for a burn-in below 0.
  explicit PolyakAverage(Index dimensions, std::int64_t burn_in = 0) : burn_in_(burn_in) {
    constexpr const char* function = "quern::stochastic::PolyakAverage";
    if (dimensions < 1)
      throw ShapeError(error_text(function, "dimensions", "at least 1", dimensions));
    if (burn_in < 0) throw ValueError(error_text(function, "burn_in", "at least 0", burn_in));
    const auto d = static_cast<std::size_t>(dimensions);
    mean_.assign(d, 0);
    spread_.assign(d, 0);
    lean_.assign(d, 0);
    batch_sums_.reserve(max_batches * d);
  }

  /// One more iterate. ShapeError for another length, ValueError for values that are not finite.
  template <class T>
  void step(std::span<const T> w) {
    detail::expect_observation<T>("quern::stochastic::PolyakAverage::step", w, mean_.size(),
                                  seen_ + 1);
    if (++seen_ <= burn_in_) return;
    ++count_;
    const auto k = static_cast<double>(count_);
    for (std::size_t j = 0; j < mean_.size(); ++j) {
      // Sums over s <= k of s^2 (m_s - m_k)^2 and s^2 (m_s - m_k), moved from m_{k-1} to m_k.
      const double move = (static_cast<double>(w[j]) - mean_[j]) / k;
      mean_[j] += move;
      spread_[j] += move * (move * squares_ - 2 * lean_[j]);
      lean_[j] -= move * squares_;
    }
    squares_ += k * k;
    add_to_batch(w);
  }
  template <class T>
  void step(const std::vector<T>& w) {
    step(std::span<const T>(w));
  }

  [[nodiscard]] std::int64_t count() const noexcept { return count_; }  ///< iterates averaged
  [[nodiscard]] std::span<const double> mean() const noexcept { return mean_; }

  /// Interval for coordinate j at a confidence such as .95. ValueError with fewer than 32 averaged
  /// iterates, ShapeError for a coordinate that is none.
  [[nodiscard]] Interval interval(Index j, double level = 0.95,
                                  IntervalMethod method = IntervalMethod::random_scaling) const {
    constexpr const char* function = "quern::stochastic::PolyakAverage::interval";
    if (j < 0 || j >= static_cast<Index>(mean_.size())) {
      throw ShapeError(
          error_text(function, "j", "a coordinate below " + std::to_string(mean_.size()), j));
    }
    if (count_ < min_count) {
      throw ValueError(error_text(function, "this", "at least 32 averaged iterates", count_));
    }
    const auto at = static_cast<std::size_t>(j);
    const double half = method == IntervalMethod::random_scaling ? random_scaling_half(at, level)
                                                                 : batch_half(at, level);
    return {mean_[at] - half, mean_[at] + half};
  }

 private:
  static constexpr std::size_t max_batches = 16;
  static constexpr std::int64_t min_count = 32;

  [[nodiscard]] double random_scaling_half(std::size_t j, double level) const {
    const auto n = static_cast<double>(count_);
    const double variance = (spread_[j] > 0 ? spread_[j] : 0) / (n * n);
    return random_scaling_quantile(level) * std::sqrt(variance / n);
  }
  [[nodiscard]] double batch_half(std::size_t j, double level) const {
    const std::size_t d = mean_.size();
    const auto batches = static_cast<std::int64_t>(batch_sums_.size() / d) -
                         (in_batch_ < batch_length_ ? 1 : 0);  // whole ones only
    const auto m = static_cast<double>(batches);
    double mean = 0, squares = 0;
    const auto value = [&](std::int64_t b) {
      return batch_sums_[static_cast<std::size_t>(b) * d + j] / static_cast<double>(batch_length_);
    };
    for (std::int64_t b = 0; b < batches; ++b) mean += value(b) / m;
    for (std::int64_t b = 0; b < batches; ++b) squares += (value(b) - mean) * (value(b) - mean);
    return student_quantile(level, batches - 1) * std::sqrt(squares / (m - 1) / m);
  }
  template <class T>
  void add_to_batch(std::span<const T> w) {
    const std::size_t d = mean_.size();
    if (in_batch_ == batch_length_ || batch_sums_.empty()) {
      if (batch_sums_.size() == max_batches * d) join_batches();
      batch_sums_.resize(batch_sums_.size() + d);
      in_batch_ = 0;
    }
    double* sums = batch_sums_.data() + batch_sums_.size() - d;
    for (std::size_t j = 0; j < d; ++j) sums[j] += static_cast<double>(w[j]);
    ++in_batch_;
  }
  /// Pairs become one batch of twice the length.
  void join_batches() {
    const std::size_t d = mean_.size();
    for (std::size_t b = 0; b < max_batches / 2; ++b) {
      for (std::size_t j = 0; j < d; ++j) {
        batch_sums_[b * d + j] = batch_sums_[2 * b * d + j] + batch_sums_[(2 * b + 1) * d + j];
      }
    }
    batch_sums_.resize(max_batches / 2 * d);
    batch_length_ *= 2;
  }

  std::int64_t burn_in_;
  std::int64_t seen_ = 0;
  std::int64_t count_ = 0;
  std::vector<double> mean_;
  double squares_ = 0;          ///< sum of s^2 over s <= count
  std::vector<double> spread_;  ///< sum of s^2 (mean_s - mean)^2
  std::vector<double> lean_;    ///< sum of s^2 (mean_s - mean)
  std::vector<double> batch_sums_;
  std::int64_t batch_length_ = 1;
  std::int64_t in_batch_ = 0;
};

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_AVERAGING_HPP
