// SPDX-License-Identifier: Apache-2.0

#include "quern/stochastic/spsa.hpp"
#include "quern/core/random.hpp"
#include "quern/stochastic/kiefer_wolfowitz.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

namespace quern::test::spsa {
namespace {

using namespace stochastic;

double rosenbrock(std::span<const double> x) {
  return 100 * std::pow(x[1] - x[0] * x[0], 2) + std::pow(1 - x[0], 2);
}

TEST(StochasticSpsa, TrajectoriesAreTheReference) {
  const auto deltas = stochastic_reference<double>("spsa_delta");
  SpsaOptions<double> options;
  options.directions = [&](std::int64_t k, std::span<double> d) {
    for (std::size_t j = 0; j < 2; ++j) {
      const std::size_t at = 2 * static_cast<std::size_t>(k - 1) + j;
      d[j] = at < deltas.size() ? deltas[at] : 1.0;  // one is drawn beyond the last step
    }
  };
  SpsaGains gains{.a = 0.002, .c = 0.05, .stability = 30};
  for (const double stability : {30.0, 3.0}) {
    gains.stability = stability;
    options.step = gains.step();
    options.span = gains.span();
    const auto r = stochastic::spsa(rosenbrock, std::vector<double>{-1.2, 1.0}, options,
                                    {.steps = 300, .record_every = 1});
    const auto expected =
        stochastic_reference<double>(stability == 30 ? "spsa_iter" : "spsa_noisyopt_iter");
    for (Index k = 0; k < 300; ++k) {
      expect_reference(expected, static_cast<std::size_t>(2 * k), r.path.row(k), 1e-11);
    }
  }
}

TEST(StochasticKieferWolfowitz, TrajectoryIsTheReference) {
  const SpsaGains gains{.a = 0.002, .c = 0.05, .stability = 30};
  KieferWolfowitzOptions<double> options;
  options.step = gains.step();
  options.span = gains.span();
  const std::vector<double> start = {-1.2, 1.0};
  EXPECT_THROW((void)kiefer_wolfowitz(rosenbrock, start, options), ValueError);  // conditions
  options.conditions = Conditions::ignore;
  const auto r = kiefer_wolfowitz(rosenbrock, start, options, {.steps = 300, .record_every = 1});
  const auto expected = stochastic_reference<double>("kw_iter");
  for (Index k = 0; k < 300; ++k) {
    expect_reference(expected, static_cast<std::size_t>(2 * k), r.path.row(k), 1e-11);
  }
}

TEST(StochasticKieferWolfowitz, FindsAMinimumThroughNoise) {
  Philox random(1, "kw");
  const auto f = [&](std::span<const double> w) {
    return std::pow(w[0] - 1, 2) + 2 * std::pow(w[1] + 2, 2) + 0.5 * random.normal();
  };
  const auto r = kiefer_wolfowitz(f, std::vector<double>{0, 0}, {.step = StepSize::harmonic(0.5)},
                                  {.steps = 5000});
  EXPECT_NEAR(r.w[0], 1, 0.15);
  EXPECT_NEAR(r.w[1], -2, 0.15);
}

TEST(StochasticSpsa, TunedGainsFindAMinimumOfManyCoordinates) {
  Philox random(2, "simulator");
  const auto f = [&](std::span<const double> w) {
    double y = 0.3 * random.normal();
    for (std::size_t j = 0; j < w.size(); ++j) y += std::pow(w[j] - 0.1 * double(j), 2);
    return y;
  };
  const std::vector<double> start(20, 2.0);
  const SpsaGains gains = tune_spsa(f, start, {.steps = 3000, .initial_move = 0.05});
  EXPECT_EQ(gains.stability, 300);
  EXPECT_GT(gains.c, 0.1);  // about the noise
  EXPECT_LT(gains.c, 0.6);
  const auto r =
      stochastic::spsa(f, start, {.step = gains.step(), .span = gains.span()}, {.steps = 3000});
  double distance = 0;
  for (std::size_t j = 0; j < 20; ++j) distance += std::pow(r.w[j] - 0.1 * double(j), 2);
  EXPECT_LT(std::sqrt(distance), 1.0);  // from 5.4
}

TEST(StochasticSpsa, AskAndTellIsTheRun) {
  const auto f = [](std::span<const float> w) { return w[0] * w[0] + (w[1] - 1) * (w[1] - 1); };
  SpsaOptions<float> options;
  options.pairs = 2;
  options.max_move = 0.05;
  options.seed = 9;
  Spsa<float> state(std::vector<float>{1, 0}, options);
  std::vector<float> before(2);
  for (int k = 0; k < 50; ++k) {
    const MatrixView<const float> points = state.ask();
    ASSERT_EQ(points.rows(), 4);
    std::vector<float> values;
    for (Index i = 0; i < 4; ++i) values.push_back(f({points.row(i).data(), 2}));
    before.assign(state.current().begin(), state.current().end());
    state.step(values);
    for (std::size_t j = 0; j < 2; ++j) {
      ASSERT_LE(std::fabs(state.current()[j] - before[j]), 0.0501F);
    }
  }
  const auto r = stochastic::spsa(f, std::vector<float>{1, 0}, options, {.steps = 50});
  EXPECT_EQ(r.w[0], state.current()[0]);
  EXPECT_EQ(r.w[1], state.current()[1]);
  EXPECT_LT(std::fabs(r.w[0]), 0.6F);
}

TEST(StochasticSpsa, RefusesBadInput) {
  const std::vector<double> start = {0, 0};
  SpsaOptions<double> options;
  options.span = 0.1;  // does not vanish
  EXPECT_THROW(Spsa<double>(start, options), ValueError);
  options = {};
  options.pairs = 0;
  EXPECT_THROW(Spsa<double>(start, options), ValueError);
  options = {};
  options.directions = [](std::int64_t, std::span<double> d) { d[0] = 0, d[1] = 1; };
  EXPECT_THROW(Spsa<double>(start, options), ValueError);
  Spsa<double> state(start);
  EXPECT_THROW(state.step(std::vector<double>{1, 2, 3}), ShapeError);
  EXPECT_THROW(state.step(std::vector<double>{1, std::nan("")}), ValueError);
  EXPECT_THROW((void)tune_spsa([](std::span<const double>) { return 1.0; }, start), ValueError);
  KieferWolfowitz<double> kw(start);
  EXPECT_THROW(kw.step(std::vector<double>{1, 2}), ShapeError);
}

}  // namespace
}  // namespace quern::test::spsa
