// SPDX-License-Identifier: Apache-2.0

#include "quern/optim/lbfgs.hpp"

#include "quern/core/error.hpp"
#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

namespace quern::test::optim_lbfgs {
namespace {

using namespace quern::optim;

/// Rosenbrock's valley in n dimensions.
template <class T>
T rosenbrock(std::span<const T> x, std::span<T> g) {
  T value = 0;
  for (T& each : g) each = 0;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    const T a = x[i + 1] - x[i] * x[i], b = 1 - x[i];
    value += 100 * a * a + b * b;
    g[i] += -400 * a * x[i] - 2 * b;
    g[i + 1] += 200 * a;
  }
  return value;
}

TEST(Lbfgs, FindsTheMinimumOfRosenbrock) {
  for (const std::size_t n : {2U, 10U, 100U}) {
    std::vector<double> x(n);
    for (std::size_t i = 0; i < n; ++i) x[i] = i % 2 == 0 ? -1.2 : 1.0;
    const LbfgsResult r = minimize_lbfgs<double>(rosenbrock<double>, std::span<double>(x),
                                                 {.gradient_tolerance = 1e-9});
    EXPECT_EQ(r.status, LbfgsStatus::gradient) << name(r.status);
    EXPECT_LE(r.largest_gradient, 1e-9);
    for (const double each : x) EXPECT_NEAR(each, n == 2 ? 1 : each, 1e-8);
    EXPECT_LT(r.evaluations, n == 2 ? 60 : 100'000);
  }
  std::vector<float> x = {-1.2F, 1.0F};
  const LbfgsResult r =
      minimize_lbfgs<float>(rosenbrock<float>, std::span<float>(x), {.gradient_tolerance = 1e-3});
  EXPECT_EQ(r.status, LbfgsStatus::gradient);
  EXPECT_NEAR(x[0], 1, 1e-2);
}

TEST(Lbfgs, SolvesAnIllConditionedQuadratic) {
  const std::size_t n = 50;
  std::vector<double> x(n, 1.0);
  const auto f = [&](std::span<const double> at, std::span<double> g) {
    double value = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double d = std::pow(10.0, 2 * static_cast<double>(i) / static_cast<double>(n - 1));
      g[i] = d * (at[i] - static_cast<double>(i));
      value += 0.5 * g[i] * (at[i] - static_cast<double>(i));
    }
    return value;
  };
  const LbfgsResult r =
      minimize_lbfgs<double>(f, std::span<double>(x), {.gradient_tolerance = 1e-8});
  EXPECT_EQ(r.status, LbfgsStatus::gradient);
  EXPECT_LT(r.value, 1e-14);
}

/// Every accepted step meets both Wolfe conditions.
TEST(Lbfgs, StepsMeetStrongWolfe) {
  std::vector<double> x = {-1.2, 1.0}, before = x, old(2), now(2);
  int steps = 0;
  LbfgsOptions options{.gradient_tolerance = 1e-8};
  options.progress = [&](const Progress&) {
    const double f0 = rosenbrock<double>(before, old), f1 = rosenbrock<double>(x, now);
    const double d0 = x[0] - before[0], d1 = x[1] - before[1];
    const double slope0 = old[0] * d0 + old[1] * d1, slope1 = now[0] * d0 + now[1] * d1;
    EXPECT_LE(f1, f0 + 1e-4 * slope0 + 1e-15);
    EXPECT_LE(std::fabs(slope1), 0.9 * std::fabs(slope0) + 1e-15);
    before = x;
    ++steps;
    return true;
  };
  (void)minimize_lbfgs<double>(rosenbrock<double>, std::span<double>(x), options);
  EXPECT_GT(steps, 10);
}

TEST(Lbfgs, ScalesOfTheValuesDoNotMatter) {
  for (const double scale : {1e-150, 1e150}) {
    const auto f = [&](std::span<const double> x, std::span<double> g) {
      g[0] = 2 * scale * (x[0] - 3);
      return scale * (x[0] - 3) * (x[0] - 3);
    };
    std::vector<double> x = {0};
    const LbfgsResult r =
        minimize_lbfgs<double>(f, std::span<double>(x), {.gradient_tolerance = 0});
    EXPECT_NE(r.status, LbfgsStatus::iterations);
    EXPECT_LT(r.evaluations, 100);
    EXPECT_NEAR(x[0], 3, 1e-12) << scale;
  }
}

TEST(Lbfgs, WallsAndBadStarts) {
  // Infinite left of 0: the search must come back.
  const auto barrier = [](std::span<const double> x, std::span<double> g) {
    g[0] = 1 - 0.01 / x[0];
    return x[0] > 0 ? x[0] - 0.01 * std::log(x[0]) : HUGE_VAL;
  };
  std::vector<double> x = {1};
  const LbfgsResult r =
      minimize_lbfgs<double>(barrier, std::span<double>(x), {.gradient_tolerance = 1e-8});
  EXPECT_EQ(r.status, LbfgsStatus::gradient) << name(r.status);
  EXPECT_NEAR(x[0], 0.01, 1e-8);
  x = {-1};
  EXPECT_THROW((void)minimize_lbfgs<double>(barrier, std::span<double>(x)), ValueError);
  EXPECT_THROW((void)minimize_lbfgs<double>(barrier, std::span<double>(x), {.memory = 0}),
               ValueError);
  EXPECT_THROW((void)minimize_lbfgs<double>(barrier, std::span<double>(x), {.curvature = 2}),
               ValueError);
  x = {1};
  EXPECT_THROW(
      (void)minimize_lbfgs<double>(barrier, std::span<double>(x), {.gradient_tolerance = NAN}),
      ValueError);
  const LbfgsOptions stop{.progress = [](const Progress&) { return false; }};
  EXPECT_THROW((void)minimize_lbfgs<double>(barrier, std::span<double>(x), stop), Cancelled);
  // A linear function falls for ever: ends by its limits, not by hanging.
  const auto linear = [](std::span<const double>, std::span<double> g) {
    g[0] = -1;
    return 0.0;
  };
  (void)minimize_lbfgs<double>(linear, std::span<double>(x), {.max_iterations = 5});
}

}  // namespace
}  // namespace quern::test::optim_lbfgs
