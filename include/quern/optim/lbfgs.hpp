// SPDX-License-Identifier: Apache-2.0

/// \file
/// L-BFGS with a line search for the strong Wolfe conditions: for smooth functions whose value and
/// gradient are exact. J. Nocedal and S. Wright, Numerical Optimization, 2nd edition,
/// algorithms 7.4, 3.5 and 3.6 (with cubic interpolation).

#ifndef QUERN_OPTIM_LBFGS_HPP
#define QUERN_OPTIM_LBFGS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/progress.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {

struct LbfgsOptions {
  int memory = 10;  ///< pairs that are kept
  int max_iterations = 1000;
  int max_line_search = 25;           ///< evaluations of one search
  double gradient_tolerance = 1e-5;   ///< ends when max |gradient| is at most this
  double relative_tolerance = 0;      ///< ends when f falls by at most this times max(|f|, 1)
  double sufficient_decrease = 1e-4;  ///< c1 of the Wolfe conditions
  double curvature = 0.9;             ///< c2
  ProgressCallback progress = {};     ///< after every iteration; metrics "value", "gradient"
};

/// Why it ended.
enum class LbfgsStatus { gradient, value, iterations, line_search };

[[nodiscard]] inline const char* name(LbfgsStatus status) noexcept {
  constexpr const char* names[] = {"gradient within tolerance", "value within tolerance",
                                   "iterations used up", "line search found no better point"};
  return names[static_cast<int>(status)];
}

struct LbfgsResult {
  double value = 0;
  double largest_gradient = 0;  ///< max |gradient|
  std::int64_t iterations = 0;
  std::int64_t evaluations = 0;
  LbfgsStatus status = LbfgsStatus::iterations;
};

namespace detail {

/// One point of a search along a line.
struct LinePoint {
  double at = 0, value = 0, slope = 0;
};

/// The minimum of the cubic through two points with slopes, kept inside of the interval.
inline double cubic_minimum(const LinePoint& a, const LinePoint& b) {
  const double low = (std::min)(a.at, b.at), high = (std::max)(a.at, b.at), width = high - low;
  const double d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.at - b.at);
  const double square = d1 * d1 - a.slope * b.slope;
  double at = low + width / 2;
  if (square >= 0) {
    const double d2 = (b.at > a.at ? 1 : -1) * std::sqrt(square);
    const double found = b.at - (b.at - a.at) * (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2);
    if (is_finite_bits(found)) at = found;
  }
  return (std::clamp)(at, low + 0.1 * width, high - 0.1 * width);
}

/// The pairs of steps and changes of the gradient, as a ring, and the product with the inverse
/// Hessian's estimate.
template <class T>
class LbfgsMemory {
 public:
  LbfgsMemory(std::size_t pairs, std::size_t n)
      : pairs_(pairs), n_(n), s_(pairs * n), y_(pairs * n), rho_(pairs) {}

  void forget() { used_ = 0; }
  /// Takes a pair unless its curvature is not positive.
  void push(std::span<const T> step, std::span<const T> change) {
    const double sy = dot(step.data(), change.data()), yy = dot(change.data(), change.data());
    const double ss = dot(step.data(), step.data());
    // A cosine, so that no scale of the values or of x matters.
    if (!(sy > 1e-16 * std::sqrt(ss) * std::sqrt(yy)) || yy == 0) return;
    newest_ = used_ == 0 ? 0 : (newest_ + 1) % pairs_;
    used_ = (std::min)(used_ + 1, pairs_);
    std::copy(step.begin(), step.end(), s_.begin() + offset(newest_));
    std::copy(change.begin(), change.end(), y_.begin() + offset(newest_));
    rho_[newest_] = 1 / sy;
    gamma_ = sy / yy;
  }
  /// direction = -H gradient.
  void direction(std::span<const T> gradient, std::span<T> out) const {
    for (std::size_t i = 0; i < n_; ++i) out[i] = -gradient[i];
    std::vector<double> alpha(used_);
    for (std::size_t k = 0; k < used_; ++k) {
      const std::size_t at = (newest_ + pairs_ - k) % pairs_;
      alpha[k] = rho_[at] * dot(s(at), out.data());
      add(-alpha[k], y(at), out.data());
    }
    if (used_ > 0) {
      for (T& x : out) x *= static_cast<T>(gamma_);
    }
    for (std::size_t k = used_; k-- > 0;) {
      const std::size_t at = (newest_ + pairs_ - k) % pairs_;
      add(alpha[k] - rho_[at] * dot(y(at), out.data()), s(at), out.data());
    }
  }
  [[nodiscard]] bool empty() const { return used_ == 0; }
  [[nodiscard]] double dot(const T* a, const T* b) const { return QUERN_DISPATCH(dot(a, b, n_)); }

 private:
  [[nodiscard]] std::ptrdiff_t offset(std::size_t k) const {
    return static_cast<std::ptrdiff_t>(k * n_);
  }
  [[nodiscard]] const T* s(std::size_t k) const { return s_.data() + k * n_; }
  [[nodiscard]] const T* y(std::size_t k) const { return y_.data() + k * n_; }
  void add(double a, const T* x, T* to) const {
    QUERN_DISPATCH(axpy(static_cast<T>(a), x, n_, to));
  }

  std::size_t pairs_, n_, used_ = 0, newest_ = 0;
  std::vector<T> s_, y_;
  std::vector<double> rho_;
  double gamma_ = 1;
};

template <class T, class F>
class Lbfgs {
 public:
  Lbfgs(F& f, std::span<T> x, const LbfgsOptions& options)
      : f_(f),
        x_(x),
        options_(options),
        memory_(static_cast<std::size_t>(options.memory), x.size()),
        gradient_(x.size()),
        start_(x.size()),
        start_gradient_(x.size()),
        direction_(x.size()),
        kept_(x.size()),
        kept_gradient_(x.size()) {}

  LbfgsResult run() {
    value_ = evaluate();
    if (!is_finite_bits(value_) || !is_finite_bits(largest())) {
      throw ValueError(error_text("quern::optim::minimize_lbfgs", "function at the start",
                                  "a finite value and gradient", value_));
    }
    result_.status = LbfgsStatus::iterations;
    if (done_by_gradient()) return finish(LbfgsStatus::gradient);
    while (result_.iterations < options_.max_iterations) {
      const double before = value_;
      if (!iterate()) return finish(LbfgsStatus::line_search);
      ++result_.iterations;
      const Metric metrics[] = {{"value", value_}, {"gradient", largest()}};
      report(options_.progress, "quern::optim::minimize_lbfgs",
             {"iterations", result_.iterations, options_.max_iterations, metrics});
      if (done_by_gradient()) return finish(LbfgsStatus::gradient);
      const double scale = (std::max)({std::fabs(before), std::fabs(value_), 1.0});
      if (options_.relative_tolerance > 0 && before - value_ <= options_.relative_tolerance * scale)
        return finish(LbfgsStatus::value);
    }
    return finish(LbfgsStatus::iterations);
  }

 private:
  double evaluate() {
    ++result_.evaluations;
    return static_cast<double>(f_(std::span<const T>(x_), std::span<T>(gradient_)));
  }
  [[nodiscard]] double largest() const {
    double most = 0;
    for (const T g : gradient_) {
      if (!is_finite_bits(g)) return (std::numeric_limits<double>::infinity)();
      most = (std::max)(most, std::fabs(static_cast<double>(g)));
    }
    return most;
  }
  [[nodiscard]] bool done_by_gradient() const { return largest() <= options_.gradient_tolerance; }
  LbfgsResult finish(LbfgsStatus status) {
    result_.status = status;
    result_.value = value_;
    result_.largest_gradient = largest();
    return result_;
  }

  /// One direction and one search; false when no better point was found, even downhill.
  bool iterate() {
    memory_.direction(gradient_, direction_);
    double slope = memory_.dot(gradient_.data(), direction_.data());
    if (!(slope < 0)) {
      memory_.forget();
      memory_.direction(gradient_, direction_);
      slope = memory_.dot(gradient_.data(), direction_.data());
    }
    std::copy(x_.begin(), x_.end(), start_.begin());
    std::copy(gradient_.begin(), gradient_.end(), start_gradient_.begin());
    const double first = memory_.empty() ? first_step(std::sqrt(-slope)) : 1;
    const double at_start = value_;
    if (!search({0, value_, slope}, first) || std::equal(x_.begin(), x_.end(), start_.begin())) {
      std::copy(start_.begin(), start_.end(), x_.begin());
      std::copy(start_gradient_.begin(), start_gradient_.end(), gradient_.begin());
      value_ = at_start;
      if (memory_.empty()) return false;
      memory_.forget();
      return iterate();
    }
    for (std::size_t i = 0; i < x_.size(); ++i) {
      start_[i] = x_[i] - start_[i];
      start_gradient_[i] = gradient_[i] - start_gradient_[i];
    }
    memory_.push(start_, start_gradient_);
    return true;
  }

  /// Of a search along the gradient of this length: x moves by 1, or less where that is short. A
  /// gradient that is tiny at the start says how small the values are, not how near the minimum is.
  [[nodiscard]] double first_step(double length) const {
    if (length >= 1) return 1 / length;
    return result_.iterations == 0 && length > 0 && length < 1e-8 ? 1 / length : 1;
  }

  LinePoint probe(double at) {
    for (std::size_t i = 0; i < x_.size(); ++i) {
      x_[i] = start_[i] + static_cast<T>(at) * direction_[i];
    }
    value_ = evaluate();
    ++probes_;
    return {at, value_, memory_.dot(gradient_.data(), direction_.data())};
  }
  [[nodiscard]] bool decreases(const LinePoint& p, const LinePoint& zero) const {
    return p.value <= zero.value + options_.sufficient_decrease * p.at * zero.slope;
  }
  [[nodiscard]] bool flat(const LinePoint& p, const LinePoint& zero) const {
    return std::fabs(p.slope) <= -options_.curvature * zero.slope;
  }
  void keep() {
    std::copy(x_.begin(), x_.end(), kept_.begin());
    std::copy(gradient_.begin(), gradient_.end(), kept_gradient_.begin());
  }
  void take_kept(const LinePoint& p) {
    std::copy(kept_.begin(), kept_.end(), x_.begin());
    std::copy(kept_gradient_.begin(), kept_gradient_.end(), gradient_.begin());
    value_ = p.value;
  }

  /// Algorithm 3.5: brackets, then zooms. Leaves x, value and gradient at the point found.
  bool search(const LinePoint& zero, double step) {
    probes_ = 0;
    LinePoint before = zero;
    bool have_before = false;
    while (probes_ < options_.max_line_search) {
      const LinePoint now = probe(step);
      if (!is_finite_bits(now.value) || !is_finite_bits(now.slope)) {
        step = before.at + (step - before.at) / 10;
        continue;
      }
      if (!decreases(now, zero) || (have_before && now.value >= before.value)) {
        return zoom(zero, before, now, have_before);
      }
      if (flat(now, zero)) return true;
      keep();
      if (now.slope >= 0) return zoom(zero, now, before, true);
      have_before = true;
      const double low = now.at + 0.1 * (now.at - before.at), most = 4 * now.at;
      const double guess = cubic_minimum(before, now);
      step = guess > now.at ? (std::clamp)(guess, low, most) : 2 * now.at;
      before = now;
    }
    if (!have_before) return false;
    take_kept(before);
    return true;
  }
  /// Algorithm 3.6; `low` is the best point so far, kept when `have_low`.
  bool zoom(const LinePoint& zero, LinePoint low, LinePoint high, bool have_low) {
    while (probes_ < options_.max_line_search) {
      const LinePoint now = probe(cubic_minimum(low, high));
      if (!is_finite_bits(now.value) || !decreases(now, zero) || now.value >= low.value) {
        high = now;
        if (!is_finite_bits(now.value)) high.value = low.value, high.slope = -low.slope;
      } else {
        if (flat(now, zero)) return true;
        keep();
        have_low = true;
        if (now.slope * (high.at - low.at) >= 0) high = low;
        low = now;
      }
      if (std::fabs(high.at - low.at) <= 1e-16 * (std::max)(std::fabs(low.at), 1e-300)) break;
    }
    if (!have_low) return false;
    take_kept(low);
    return true;
  }

  F& f_;
  std::span<T> x_;
  const LbfgsOptions& options_;
  LbfgsMemory<T> memory_;
  std::vector<T> gradient_, start_, start_gradient_, direction_, kept_, kept_gradient_;
  LbfgsResult result_;
  double value_ = 0;
  int probes_ = 0;
};

}  // namespace detail

/// Minimises f from x on, in place. f(std::span<const T> x, std::span<T> gradient) writes the
/// gradient and returns the value. Values that are not finite away from the start shorten the step.
/// ValueError for bad options or a start that is not finite, Cancelled when the callback says so.
template <class T, class F>
LbfgsResult minimize_lbfgs(F&& f, std::span<T> x, const LbfgsOptions& options = {}) {
  constexpr const char* function = "quern::optim::minimize_lbfgs";
  expect_in_range(function, "memory", options.memory, 1, 1000);
  expect_in_range(function, "max_iterations", options.max_iterations, 0, 1 << 30);
  expect_in_range(function, "max_line_search", options.max_line_search, 1, 1 << 20);
  const auto tolerance = [&](const char* name, double value) {
    if (value >= 0) return;
    throw ValueError(error_text(function, name, "at least 0", value));
  };
  tolerance("gradient_tolerance", options.gradient_tolerance);
  tolerance("relative_tolerance", options.relative_tolerance);
  const double c1 = options.sufficient_decrease, c2 = options.curvature;
  if (!(c1 > 0 && c1 < c2 && c2 < 1)) {
    throw ValueError(error_text(function, "sufficient_decrease, curvature", "0 < c1 < c2 < 1",
                                std::to_string(c1) + ", " + std::to_string(c2)));
  }
  detail::Lbfgs<T, std::remove_reference_t<F>> search(f, x, options);
  return search.run();
}

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_LBFGS_HPP
