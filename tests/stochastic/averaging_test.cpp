// SPDX-License-Identifier: Apache-2.0

#include "quern/stochastic/averaging.hpp"
#include "quern/core/random.hpp"
#include "quern/stochastic/robbins_monro.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace quern::test::averaging {
namespace {

using namespace stochastic;

TEST(StochasticAveraging, Quantiles) {
  // Abadir and Paruolo (1997), table 1: one-sided 90, 95, 97.5 and 99 %.
  EXPECT_NEAR(random_scaling_quantile(0.8), 3.875, 5e-4);
  EXPECT_NEAR(random_scaling_quantile(0.9), 5.323, 5e-4);
  EXPECT_NEAR(random_scaling_quantile(0.95), 6.747, 5e-4);
  EXPECT_NEAR(random_scaling_quantile(0.98), 8.613, 5e-4);
  EXPECT_NEAR(student_quantile(0.95, 2), 4.302653, 1e-5);
  EXPECT_NEAR(student_quantile(0.95, 15), 2.131450, 1e-5);
  EXPECT_NEAR(student_quantile(0.99, 30), 2.749996, 1e-5);
}

/// The sums that are kept against their definition.
TEST(StochasticAveraging, RandomScalingIsItsDefinition) {
  Philox random(1, "definition");
  PolyakAverage average(1, 5);
  std::vector<double> means;
  double mean = 0;
  for (int k = 0; k < 205; ++k) {
    const double w = 1000 + random.normal();
    average.step(std::vector<double>{w});
    if (k < 5) continue;
    mean += (w - mean) / double(k - 4);
    means.push_back(mean);
  }
  double v = 0;
  for (std::size_t s = 0; s < means.size(); ++s) {
    v += std::pow(double(s + 1) * (means[s] - mean), 2) / (200.0 * 200.0);
  }
  EXPECT_EQ(average.count(), 200);
  const Interval i = average.interval(0, 0.9);
  EXPECT_NEAR(i.width(), 2 * random_scaling_quantile(0.9) * std::sqrt(v / 200), 1e-9);
  EXPECT_NEAR((i.low + i.high) / 2, mean, 1e-10);
}

TEST(StochasticAveraging, BatchMeansAreTheirDefinition) {
  PolyakAverage average(1);
  std::vector<double> w;
  for (int k = 0; k < 70; ++k) {  // batches of 8: 8 whole ones and one of 6
    w.push_back(std::sin(3.0 * k));
    average.step(std::vector<double>{w.back()});
  }
  double mean = 0, squares = 0;
  std::vector<double> batches(8);
  for (std::size_t i = 0; i < 64; ++i) {
    batches[i / 8] += w[i] / 8;
    mean += w[i] / 64;
  }
  for (const double b : batches) squares += (b - mean) * (b - mean);
  const double half = student_quantile(0.95, 7) * std::sqrt(squares / 7 / 8);
  EXPECT_NEAR(average.interval(0, 0.95, IntervalMethod::batch_means).width(), 2 * half, 1e-9);
}

/// How often an interval held the root, and how wide it was.
struct Coverage {
  double share = 0, width = 0;
  void add(const Interval& interval) {
    share += interval.contains(3) ? 1 / 400.0 : 0;
    width += interval.width() / 400;
  }
};

TEST(StochasticAveraging, IntervalsCoverAsOftenAsTheySay) {
  RobbinsMonroOptions<double> options;  // on g(w) = 2 (w - 3) + noise
  options.step = StepSize::power(2, 0.6);
  options.burn_in = 100;
  Coverage scaled, batched;
  for (std::uint64_t run = 0; run < 400; ++run) {
    Philox random(7, "coverage", run);
    const auto r = stochastic::robbins_monro(
        [&](double w) { return 2 * (w - 3) + random.normal(); }, 0.0, options, {.steps = 4000});
    scaled.add(r.average.interval(0, 0.9, IntervalMethod::random_scaling));
    batched.add(r.average.interval(0, 0.9, IntervalMethod::batch_means));
  }
  // 400 runs at .9: a standard error of .015; 3.3 of them is a confidence of .999.
  const double margin = 3.3 * 0.015, least = 2 * 1.645 * 0.5 / std::sqrt(3900.0);
  EXPECT_NEAR(scaled.share, 0.9, margin);
  EXPECT_NEAR(batched.share, 0.9, margin + 0.01);
  // Against the interval with the true variance s^2 / slope^2 / n.
  EXPECT_LT(scaled.width, 1.5 * least);
  EXPECT_LT(batched.width, 1.3 * least);
}

TEST(StochasticAveraging, RefusesBadInput) {
  PolyakAverage average(2);
  EXPECT_THROW(average.step(std::vector<double>{1}), ShapeError);
  EXPECT_THROW(average.step(std::vector<double>{1, std::nan("")}), ValueError);
  EXPECT_THROW((void)average.interval(0), ValueError);  // too few
  for (int k = 0; k < 40; ++k) average.step(std::vector<double>{1, double(k)});
  EXPECT_THROW((void)average.interval(2), ShapeError);
  EXPECT_THROW((void)average.interval(0, 1.0), ValueError);
  EXPECT_EQ(average.interval(0).width(), 0);
  EXPECT_THROW(PolyakAverage(0), ShapeError);
  EXPECT_THROW(PolyakAverage(1, -1), ValueError);
}

}  // namespace
}  // namespace quern::test::averaging
