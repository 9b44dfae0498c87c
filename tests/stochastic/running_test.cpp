// SPDX-License-Identifier: Apache-2.0

#include "quern/stochastic/running.hpp"
#include "quern/core/random.hpp"
#include "quern/stochastic/covariance.hpp"
#include "quern/stochastic/robbins_monro.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace quern::test::running {
namespace {

using namespace stochastic;

TEST(StochasticRunning, MeanAndVarianceAreTheReference) {
  const auto stream = stochastic_reference<double>("stream");
  const auto means = stochastic_reference<double>("running_mean");
  const auto variances = stochastic_reference<double>("running_var_pop_welford");
  const auto fading = stochastic_reference<double>("const_step_alpha0.07_from0");
  RunningMean<double> mean, constant(0.07);
  RunningMoments moments;
  StepMoments steps(StepSize::harmonic(1));
  for (std::size_t k = 0; k < stream.size(); ++k) {
    mean.step(stream[k]);
    constant.step(stream[k]);
    moments.step(stream[k]);
    steps.step(stream[k]);
    ASSERT_NEAR(mean.mean(), means[k], 1e-12);
    ASSERT_NEAR(moments.mean(), means[k], 1e-12);
    ASSERT_NEAR(steps.mean(), means[k], 1e-12);
    ASSERT_NEAR(moments.variance(), variances[k], 1e-12);
    ASSERT_NEAR(steps.variance(), variances[k], 1e-12);
    ASSERT_NEAR(constant.mean(), fading[k], 1e-12);
  }
}

template <class T>
void mean_is_robbins_monro(const StepSize& step) {
  Philox random(1, "means");
  RunningMean<T> mean(step, T{2});
  RobbinsMonroOptions<T> options;
  options.step = step;
  options.conditions = Conditions::ignore;
  RobbinsMonro<T> root(std::vector<T>{T{2}}, options);
  for (int k = 0; k < 500; ++k) {
    const T x = random.normal<T>();
    mean.step(x);
    root.step(std::vector<T>{root.current()[0] - x});  // g(w) = w - x
    ASSERT_EQ(mean.mean(), root.current()[0]);
  }
}

TEST(StochasticRunning, MeanIsRobbinsMonroBitForBit) {
  for (const StepSize& step : {StepSize::harmonic(1), StepSize(0.07), StepSize::power(1, 0.7)}) {
    mean_is_robbins_monro<double>(step);
    mean_is_robbins_monro<float>(step);
  }
}

struct Sample {
  std::vector<double> x, w;
};
Sample sample(std::size_t n) {
  Philox random(2, "sample");
  Sample s;
  for (std::size_t i = 0; i < n; ++i) {
    s.x.push_back(1e6 + random.normal());  // far from 0: sums of squares would fail
    s.w.push_back(random.uniform());
  }
  return s;
}

TEST(StochasticRunning, WeightsMergesAndAllAtOnce) {
  const Sample s = sample(10000);
  double weight = 0, mean = 0, squares = 0;
  for (std::size_t i = 0; i < s.x.size(); ++i) weight += s.w[i];
  for (std::size_t i = 0; i < s.x.size(); ++i) mean += s.w[i] * (s.x[i] - 1e6) / weight;
  for (std::size_t i = 0; i < s.x.size(); ++i) {
    squares += s.w[i] * (s.x[i] - 1e6 - mean) * (s.x[i] - 1e6 - mean);
  }
  RunningMoments all, first, second;
  for (std::size_t i = 0; i < s.x.size(); ++i) {
    all.step(s.x[i], s.w[i]);
    (i < 3000 ? first : second).step(s.x[i], s.w[i]);
  }
  first.merge(second);
  first.merge(RunningMoments{});
  const std::span<const double> x(s.x), w(s.w);
  const RunningMoments blocks = RunningMoments::of(x, w, 1);
  for (const RunningMoments& m : {all, first, blocks}) {
    EXPECT_EQ(m.count(), 10000);
    EXPECT_NEAR(m.mean() - 1e6, mean, 1e-7);
    EXPECT_NEAR(m.variance(), squares / weight, 1e-8);
  }
  for (const int threads : {2, 3}) {
    const RunningMoments same = RunningMoments::of(x, w, threads);
    EXPECT_EQ(same.mean(), blocks.mean());
    EXPECT_EQ(same.variance(), blocks.variance());
  }
  RunningMoments two;
  two.step(1);
  EXPECT_EQ(two.sample_variance(), 0);
  two.step(3);
  EXPECT_DOUBLE_EQ(two.sample_variance(), 2);
  EXPECT_DOUBLE_EQ(two.standard_error(), 1);
}

TEST(StochasticRunning, FadingMomentsFollowAChange) {
  StepMoments moments(0.05);
  moments.start(0, 1);
  Philox random(3, "fading");
  for (int k = 0; k < 2000; ++k) moments.step((k < 1000 ? 0.0 : 5.0) + random.normal());
  EXPECT_NEAR(moments.mean(), 5, 0.6);
  EXPECT_NEAR(moments.variance(), 1, 0.7);
}

TEST(StochasticRunning, CovarianceOneByOneInRowsAndMerged) {
  Philox random(4, "covariance");
  NdArray<double, 2> rows({2500, 3});
  for (Index i = 0; i < 2500; ++i) {
    rows(i, 0) = 100 + random.normal();
    rows(i, 1) = 2 * rows(i, 0) + random.normal();
    rows(i, 2) = random.normal();
  }
  RunningCovariance one(3), first(3), second(3), blocks(3);
  StepCovariance steps(3, StepSize::harmonic(1));
  for (Index i = 0; i < 2500; ++i) {
    const std::span<const double> row(&rows(i, 0), 3);
    one.step(row);
    steps.step(row);
    (i % 7 == 0 ? first : second).step(row);
  }
  first.merge(second);
  blocks.step_rows(rows.view(), 1);
  const NdArray<double, 2> c = one.covariance();
  EXPECT_NEAR(c(0, 1), 2 * c(0, 0), 0.2);
  EXPECT_NEAR(one.sample_covariance()(2, 2), c(2, 2) * 2500 / 2499, 1e-12);
  for (Index i = 0; i < 3; ++i) {
    EXPECT_NEAR(blocks.mean()[static_cast<std::size_t>(i)], one.mean()[static_cast<std::size_t>(i)],
                1e-11);
    for (Index j = 0; j < 3; ++j) {
      EXPECT_NEAR(first.covariance()(i, j), c(i, j), 1e-10);
      EXPECT_NEAR(blocks.covariance()(i, j), c(i, j), 1e-10);
      EXPECT_NEAR(steps.covariance()(i, j), c(i, j), 1e-9);
      EXPECT_EQ(c(i, j), c(j, i));
    }
  }
  for (const int threads : {2, 3}) {
    RunningCovariance same(3);
    same.step_rows(rows.view(), threads);
    EXPECT_EQ(same.covariance()(0, 1), blocks.covariance()(0, 1));
  }
}

TEST(StochasticRunning, NamesThePlaceAndKeepsTheState) {
  std::vector<double> x(12000, 1.0);
  x[10000] = std::nan("");
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const ValueError& e) {
      return e.what();
    }
    return "none";
  };
  EXPECT_EQ(message([&] { (void)RunningMoments::of(std::span<const double>(x)); }),
            "quern::stochastic::RunningMoments::of: values: expected finite values, got NaN at "
            "place 10000");
  RunningCovariance covariance(2);
  const MatrixView<const double> rows(x.data(), {6000, 2});
  EXPECT_NE(message([&] { covariance.step_rows(rows); }).find("NaN in row 5000, column 0"),
            std::string::npos);
  EXPECT_EQ(covariance.count(), 0);
  StepMoments moments(StepSize(2.0));
  moments.step(1);
  EXPECT_THROW(moments.step(1), ValueError);
  EXPECT_EQ(moments.count(), 1);
}

TEST(StochasticRunning, RefusesBadInput) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  RunningMean<double> mean;
  EXPECT_THROW(mean.step(nan), ValueError);
  EXPECT_EQ(mean.count(), 0);
  RunningMoments moments;
  EXPECT_THROW(moments.step(nan), ValueError);
  EXPECT_THROW(moments.step(1, -1), ValueError);
  const std::vector<double> x(3), w(2);
  EXPECT_THROW((void)RunningMoments::of(std::span<const double>(x), w), ShapeError);
  RunningCovariance covariance(2);
  EXPECT_THROW(covariance.step(x), ShapeError);
  EXPECT_THROW(covariance.merge(RunningCovariance(3)), ShapeError);
  EXPECT_THROW(RunningCovariance(0), ShapeError);
  StepMoments large(2);
  large.step(1);  // the first is taken whole
  EXPECT_THROW(large.step(1), ValueError);
}

}  // namespace
}  // namespace quern::test::running
