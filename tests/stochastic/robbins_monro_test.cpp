// SPDX-License-Identifier: Apache-2.0

#include "quern/stochastic/robbins_monro.hpp"
#include "quern/core/random.hpp"
#include "quern/stochastic/running.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace quern::test::robbins_monro {
namespace {

using namespace stochastic;

TEST(StochasticRobbinsMonro, TrajectoriesAreTheReference) {
  const std::vector<double> slopes = {0.5, 1.0, 1.5, 2.0};
  const std::vector<double> root = {0.819406120864795, -0.47441459536584457, -0.8370336532238911,
                                    -1.0938471412974384};
  const auto noise = stochastic_reference<double>("rm_noise");
  const StepSize schedules[] = {StepSize::harmonic(1), StepSize::power(0.8, 0.7), StepSize(0.2)};
  for (int s = 0; s < 3; ++s) {
    SCOPED_TRACE(s);
    const auto iterates = stochastic_reference<double>("rm_iter_" + std::to_string(s));
    const auto averages = stochastic_reference<double>("rm_polyak_" + std::to_string(s));
    RobbinsMonroOptions<double> options;
    options.step = schedules[s];
    options.conditions = Conditions::ignore;
    RobbinsMonro<double> state(std::vector<double>(4), options);
    std::vector<double> g(4);
    for (std::size_t k = 0; k < 250; ++k) {
      for (std::size_t j = 0; j < 4; ++j) {
        g[j] = slopes[j] * (state.current()[j] - root[j]) + noise[4 * k + j];
      }
      state.step(g);
      expect_reference(iterates, 4 * k, state.current());
      expect_reference(averages, 4 * k, state.average().mean());
    }
  }
}

TEST(StochasticRobbinsMonro, FindsTheCubeRootOfFive) {
  Philox random(1, "cube root");
  RobbinsMonroOptions<double> options;
  options.step = StepSize::power(0.2, 0.75);
  options.projection = project_on_box(0.0, 4.0);
  const auto r = stochastic::robbins_monro(
      [&](double w) { return w * w * w - 5 + random.normal(); }, 1.0, options, {.steps = 20000});
  EXPECT_NEAR(r.average.mean()[0], std::cbrt(5.0), 0.01);
  EXPECT_TRUE(r.average.interval(0, 0.99).contains(std::cbrt(5.0)));
}

TEST(StochasticRobbinsMonro, ALevelIsARootOfTheRest) {
  Philox random(2, "level");
  RobbinsMonroOptions<float> options;
  options.step = StepSize::harmonic(4);
  options.level = 0.7F;  // the 70 % quantile of a dose with P(response) = dose
  const auto r =
      stochastic::robbins_monro([&](float w) { return random.uniform() < double(w) ? 1.0F : 0.0F; },
                                0.2F, options, {.steps = 5000});
  EXPECT_NEAR(r.w[0], 0.7F, 0.06F);
}

/// Error after k steps of a/k on g(w) = slope w + noise of variance s2, of many runs.
double scaled_variance(double a, double slope, int steps, int runs, bool averaged) {
  RobbinsMonroOptions<double> options;
  options.step = averaged ? StepSize::power(1, 0.7) : StepSize::harmonic(a);
  options.average = averaged;
  RunningMoments errors;
  for (int run = 0; run < runs; ++run) {
    Philox random(5, "variance", static_cast<std::uint64_t>(run));
    const auto r = stochastic::robbins_monro([&](double w) { return slope * w + random.normal(); },
                                             0.0, options, {.steps = steps});
    errors.step(averaged ? r.average.mean()[0] : r.w[0]);
  }
  return steps * errors.variance();
}

TEST(StochasticRobbinsMonro, VarianceGoesToTheKnownConstant) {
  // k variance -> a^2 s^2 / (2 a slope - 1). 1500 runs: a variance of variances of 2/1500, and 3.3
  // deviations are a confidence of .999.
  const double spread = 3.3 * std::sqrt(2 / 1500.0);
  EXPECT_NEAR(scaled_variance(1, 1, 300, 1500, false), 1.0, spread);
  EXPECT_NEAR(scaled_variance(3, 1, 300, 1500, false) / (9 / 5.0), 1.0, spread + 0.01);
  EXPECT_NEAR(scaled_variance(2, 0.5, 300, 1500, false) / 4.0, 1.0, spread + 0.01);
  // The average reaches s^2 / slope^2 whatever the constant; a/k with a = 1 would reach 1/3.
  EXPECT_NEAR(scaled_variance(0, 2, 2000, 1500, true) / 0.25, 1.0, spread + 0.03);
}

TEST(StochasticRobbinsMonro, TruncationTamesFastGrowth) {
  Philox random(3, "truncation");
  const auto g = [&](double w) { return w * w * w - 5 + random.normal(); };
  RobbinsMonroOptions<double> options;
  options.step = StepSize::power(1, 0.75);
  EXPECT_THROW((void)stochastic::robbins_monro(g, 1.0, options), ValueError);  // it explodes
  options.truncation = {.bound = 2};
  const auto r = stochastic::robbins_monro(g, 1.0, options, {.steps = 20000});
  EXPECT_GT(r.truncations, 0);
  EXPECT_LT(r.truncations, 30);
  EXPECT_NEAR(r.w[0], std::cbrt(5.0), 0.05);
}

TEST(StochasticRobbinsMonro, ProjectionsKeepTheSet) {
  RobbinsMonroOptions<float> options;
  options.projection = project_on_ball(1.0F);
  RobbinsMonro<float> state(std::vector<float>{0, 0}, options);
  state.step(std::vector<float>{-3, -4});
  EXPECT_NEAR(state.current()[0], 0.6F, 1e-6F);
  EXPECT_NEAR(state.current()[1], 0.8F, 1e-6F);
  EXPECT_THROW((void)project_on_box(1.0, 0.0), ValueError);
  EXPECT_THROW((void)project_on_ball(0.0), ValueError);
}

TEST(StochasticRobbinsMonro, PathProgressAndCancel) {
  RunOptions run{.steps = 100, .record_every = 30};
  std::int64_t told = 0;
  run.report_every = 40;
  run.progress = [&](const Progress& p) {
    told = p.done;
    return true;
  };
  const auto g = [](double w) { return w - 1; };
  const auto r = stochastic::robbins_monro(g, 0.0, {}, run);
  EXPECT_EQ(told, 100);
  EXPECT_EQ(r.path.steps(), (std::vector<std::int64_t>{30, 60, 90}));
  EXPECT_EQ(r.path.values().rows(), 3);
  RobbinsMonro<double> state(std::vector<double>{0});
  for (int k = 0; k < 60; ++k) state.step(std::vector<double>{state.current()[0] - 1});
  EXPECT_EQ(r.path.row(1)[0], state.current()[0]);
  run.progress = [](const Progress& p) { return p.done < 80; };
  EXPECT_THROW((void)stochastic::robbins_monro(g, 0.0, {}, run), Cancelled);
}

TEST(StochasticRobbinsMonro, OverflowLeavesTheState) {
  for (const bool average : {false, true}) {
    RobbinsMonroOptions<double> options;
    options.step = StepSize(10.0);
    options.conditions = Conditions::ignore;
    options.average = average;
    RobbinsMonro<double> state(std::vector<double>{2}, options);
    try {
      state.step(std::vector<double>{1e308});
      ADD_FAILURE();
    } catch (const ValueError& e) {
      EXPECT_NE(
          std::string(e.what()).find("RobbinsMonro::step: options.step: expected steps short"),
          std::string::npos);
    }
    EXPECT_EQ(state.current()[0], 2);
    EXPECT_EQ(state.steps() + state.average().count(), 0);
  }
}

TEST(StochasticRobbinsMonro, RefusesBadInput) {
  const auto refused = [](const StepSize& step) {
    RobbinsMonroOptions<double> options;
    options.step = step;
    try {
      RobbinsMonro<double> state(std::vector<double>{0}, options);
    } catch (const ValueError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refused(StepSize(0.1)).find("violates sum a_k^2 < infinity"), std::string::npos);
  EXPECT_NE(refused(StepSize::power(1, 2)).find("violates sum a_k = infinity"), std::string::npos);
  EXPECT_EQ(refused(StepSize::harmonic(1)), "");
  RobbinsMonro<double> state(std::vector<double>{1, 2});
  EXPECT_THROW(state.step(std::vector<double>{1}), ShapeError);
  const double infinity = (std::numeric_limits<double>::infinity)();
  try {
    state.step(std::vector<double>{1, infinity});
    FAIL();
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what()).find("infinity at place 1 of step 1"), std::string::npos);
  }
  EXPECT_EQ(state.steps(), 0);
  EXPECT_EQ(state.current()[0], 1);
  EXPECT_THROW(RobbinsMonro<double>(std::vector<double>{}), ShapeError);
  EXPECT_THROW(RobbinsMonro<double>(std::vector<double>{infinity}), ValueError);
  RobbinsMonroOptions<double> narrow;
  narrow.truncation = {.bound = 1};
  EXPECT_THROW(RobbinsMonro<double>(std::vector<double>{2}, narrow), ValueError);
  EXPECT_THROW((void)stochastic::robbins_monro([](double w) { return w; }, 0.0, {}, {.steps = -1}),
               ValueError);
}

}  // namespace
}  // namespace quern::test::robbins_monro
