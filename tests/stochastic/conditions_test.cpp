// SPDX-License-Identifier: Apache-2.0

#include "quern/stochastic/conditions.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace quern::test::conditions {
namespace {

using namespace stochastic;

bool says(const ConditionReport& report, const std::string& words) {
  return report.text().find(words) != std::string::npos;
}

TEST(StochasticConditions, RobbinsMonroOfPowers) {
  EXPECT_TRUE(check_robbins_monro(StepSize::harmonic(1)).all_hold());
  EXPECT_TRUE(check_robbins_monro(StepSize::power(2, 0.51, 100)).all_hold());
  EXPECT_EQ(check_robbins_monro(StepSize::power(1, 0.5)).violated(),
            "sum a_k^2 < infinity (terms fall like k^-1, exponent 0.5)");
  EXPECT_EQ(check_robbins_monro(StepSize::power(1, 1.5)).violated(),
            "sum a_k = infinity (terms fall like k^-1.5, exponent 1.5)");
  EXPECT_EQ(check_robbins_monro(StepSize(0.1)).violated(),
            "sum a_k^2 < infinity (terms stay as large as they are, exponent 0)");
}

TEST(StochasticConditions, WhatFollows) {
  const ProblemFacts facts{.slope = 0.5, .largest_slope = 4, .noise_variance = 2};
  // a^2 s^2 / (2 a slope - 1) = 9 * 2 / 2, and the least possible 2 / .25.
  EXPECT_TRUE(says(check_robbins_monro(StepSize::harmonic(3), facts), "= 9; least possible"));
  EXPECT_TRUE(says(check_robbins_monro(StepSize::harmonic(3), facts), "s^2 / slope^2 = 8"));
  EXPECT_TRUE(says(check_robbins_monro(StepSize::harmonic(0.5), facts), "only like k^-0.5"));
  EXPECT_TRUE(says(check_robbins_monro(StepSize::power(1, 0.75), facts), "Polyak"));
  EXPECT_TRUE(says(check_robbins_monro(StepSize(0.6), facts), "diverges"));
  EXPECT_TRUE(says(check_robbins_monro(StepSize(0.1), facts), "stationary variance"));
  EXPECT_TRUE(says(check_robbins_monro(StepSize::power(1, 2)), "stop short"));
  EXPECT_TRUE(says(check_robbins_monro(StepSize::power(1, 0.3)), "classical theorem is silent"));
}

TEST(StochasticConditions, CallablesAreEstimatedOrUndecided) {
  const auto power = [](double p) {
    return StepSize::custom([p](std::int64_t k) { return 2 / std::pow(double(k) + 30, p); });
  };
  EXPECT_TRUE(check_robbins_monro(power(1)).all_hold());
  EXPECT_TRUE(check_robbins_monro(power(0.75)).all_hold());
  EXPECT_FALSE(check_robbins_monro(power(0.5)).violated().empty());
  EXPECT_TRUE(says(check_robbins_monro(power(1)), "estimated exponent 1"));
  const ConditionReport logs = check_robbins_monro(StepSize::custom(
      [](std::int64_t k) { return 1 / (double(k) * std::log(double(k) + 2)); }, "1/(k log k)"));
  EXPECT_FALSE(logs.all_hold());
  EXPECT_TRUE(logs.violated().empty());
  EXPECT_EQ(logs.conditions[1].verdict, Verdict::undecided);
}

TEST(StochasticConditions, KieferWolfowitz) {
  const StepSize a = StepSize::harmonic(1);
  const ConditionReport good = check_kiefer_wolfowitz(a, StepSize::power(1, 1.0 / 6));
  EXPECT_TRUE(good.all_hold());
  EXPECT_TRUE(says(good, "k^-0.666667"));
  EXPECT_TRUE(says(check_kiefer_wolfowitz(a, StepSize(0.1)), "c_k -> 0: VIOLATED"));
  EXPECT_TRUE(says(check_kiefer_wolfowitz(a, StepSize::power(1, 0.5)),
                   "sum a_k^2 / c_k^2 < infinity: VIOLATED"));
  // Spall's gains: fine for SPSA, too slow for the sum of a_k c_k.
  const StepSize spall = StepSize::power(1, 0.602), span = StepSize::power(1, 0.101);
  EXPECT_TRUE(check_kiefer_wolfowitz(spall, span, true).all_hold());
  EXPECT_TRUE(says(check_kiefer_wolfowitz(spall, span), "sum a_k c_k < infinity: VIOLATED"));
}

TEST(StochasticConditions, Dvoretzky) {
  EXPECT_TRUE(check_dvoretzky(StepSize::power(1, 0.75)).all_hold());
  EXPECT_TRUE(says(check_dvoretzky(StepSize::power(1, 0.4)), "sum E Y_k^2 < infinity: VIOLATED"));
  EXPECT_TRUE(says(check_dvoretzky(StepSize::power(1, 1.1)), "sum gamma_k = infinity: VIOLATED"));
  const ProblemFacts steep{.slope = 1, .largest_slope = 30, .noise_variance = 1};
  EXPECT_TRUE(says(check_dvoretzky(StepSize(0.1), steep), "from some k on: VIOLATED"));
  DvoretzkySequences s{.alpha = StepSize::power(1, 0.1),
                       .beta = StepSize::power(1, 2),
                       .gamma = StepSize::harmonic(1),
                       .noise_variance = StepSize::power(1, 1.5)};
  EXPECT_TRUE(check_dvoretzky(s).all_hold());
  s.beta = StepSize::harmonic(1);
  EXPECT_TRUE(says(check_dvoretzky(s), "sum beta_k < infinity: VIOLATED"));
  s.beta_is_zero = true;
  EXPECT_TRUE(check_dvoretzky(s).all_hold());
  s.alpha = StepSize(1);
  EXPECT_TRUE(says(check_dvoretzky(s), "alpha_k -> 0: VIOLATED"));
}

}  // namespace
}  // namespace quern::test::conditions
