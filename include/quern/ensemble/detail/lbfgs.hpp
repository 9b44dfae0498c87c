// SPDX-License-Identifier: Apache-2.0

/// \file
/// Minimises a smooth convex function: L-BFGS with a line search by bisection.
///
/// J. Nocedal, "Updating quasi-Newton matrices with limited storage", Math. Comp. 35 (1980); the
/// line search (weak Wolfe conditions) of A. S. Lewis, M. L. Overton, "Nonsmooth optimization via
/// quasi-Newton methods", Math. Programming 141 (2013), section 3.

#ifndef QUERN_ENSEMBLE_DETAIL_LBFGS_HPP
#define QUERN_ENSEMBLE_DETAIL_LBFGS_HPP

#include "quern/core/config.hpp"

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble::detail {

/// One value of the function and its gradient.
struct LbfgsPoint {
  Eigen::VectorXd x, gradient;
  double value = 0;
};

/// Steps and changes of the gradient, newest first; their product with a gradient is the direction.
class LbfgsMemory {
 public:
  void push(Eigen::VectorXd step, Eigen::VectorXd change) {
    const double curvature = step.dot(change);
    if (!(curvature > 0)) return;  // rounding: would not be a minimum's
    pairs_.push_front({std::move(step), std::move(change), 1 / curvature});
    if (pairs_.size() > 10) pairs_.pop_back();
  }

  [[nodiscard]] Eigen::VectorXd direction(const Eigen::VectorXd& gradient) const {
    Eigen::VectorXd d = -gradient;
    if (pairs_.empty()) return d / gradient.norm();
    std::vector<double> a(pairs_.size());
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      a[i] = pairs_[i].rho * pairs_[i].step.dot(d);
      d -= a[i] * pairs_[i].change;
    }
    d *= 1 / (pairs_[0].rho * pairs_[0].change.squaredNorm());
    for (std::size_t i = pairs_.size(); i-- > 0;)
      d += (a[i] - pairs_[i].rho * pairs_[i].change.dot(d)) * pairs_[i].step;
    return d;
  }

 private:
  struct Pair {
    Eigen::VectorXd step, change;
    double rho;
  };
  std::deque<Pair> pairs_;
};

/// A point along the direction that lies low enough and is flat enough; false where rounding leaves
/// none.
template <class Function>
bool line_search(const Function& function, const Eigen::VectorXd& direction, LbfgsPoint& at) {
  const double slope = at.gradient.dot(direction);
  const double slack = 1e-15 * std::abs(at.value);
  double low = 0, high = (std::numeric_limits<double>::max)(), t = 1;
  LbfgsPoint next{at.x, at.gradient};
  for (int i = 0; i < 60; ++i) {
    next.x = at.x + t * direction;
    next.value = function(next.x, next.gradient);
    if (!(next.value <= at.value + 1e-4 * t * slope + slack)) {
      high = t;
    } else if (next.gradient.dot(direction) < 0.9 * slope) {
      low = t;
    } else {
      at = std::move(next);
      return true;
    }
    t = high < (std::numeric_limits<double>::max)() ? (low + high) / 2 : 2 * low;
  }
  return false;
}

/// From \p start; ends when no entry of the gradient exceeds \p tolerance. \p function(x, gradient)
/// returns the value and writes the gradient.
template <class Function>
Eigen::VectorXd minimise(const Function& function, Eigen::VectorXd start, double tolerance,
                         std::int32_t max_iterations) {
  LbfgsPoint at{std::move(start), {}};
  at.gradient.resize(at.x.size());
  at.value = function(at.x, at.gradient);
  LbfgsMemory memory;
  for (std::int32_t i = 0; i < max_iterations; ++i) {
    if (at.x.size() == 0 || at.gradient.lpNorm<Eigen::Infinity>() <= tolerance) break;
    const Eigen::VectorXd x = at.x, gradient = at.gradient;
    if (!line_search(function, memory.direction(gradient), at)) break;
    memory.push(at.x - x, at.gradient - gradient);
  }
  return at.x;
}

}  // namespace ensemble::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_DETAIL_LBFGS_HPP
