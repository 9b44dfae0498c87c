// SPDX-License-Identifier: Apache-2.0

#include "quern/stochastic/step_size.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace quern::test::step_size {
namespace {

using stochastic::StepSize;

TEST(StochasticStepSize, Families) {
  EXPECT_EQ(StepSize(0.25)(7), 0.25);
  EXPECT_EQ(StepSize::harmonic(2)(8), 0.25);
  EXPECT_EQ(StepSize::power(3, 0.5, 5)(4), 1.0);
  EXPECT_DOUBLE_EQ(StepSize::power(2, 0.602, 10)(6), 2 / std::pow(16.0, 0.602));
  EXPECT_EQ(StepSize::custom([](std::int64_t k) { return 1.0 / double(k * k); })(4), 0.0625);
}

TEST(StochasticStepSize, SaysWhatItIs) {
  EXPECT_EQ(StepSize(0.5).text(), "0.5");
  EXPECT_EQ(StepSize::harmonic(2).text(), "2 / k");
  EXPECT_EQ(StepSize::power(0.5, 0.6, 10).text(), "0.5 / (k + 10)^0.6");
  EXPECT_EQ(StepSize::custom([](std::int64_t) { return 1.0; }, "mine").text(), "mine");
}

TEST(StochasticStepSize, RefusesWhatIsNotPositive) {
  EXPECT_THROW(StepSize(0.0), ValueError);
  EXPECT_THROW(StepSize(-1.0), ValueError);
  const double infinity = (std::numeric_limits<double>::infinity)();
  EXPECT_THROW(StepSize{infinity}, ValueError);
  EXPECT_THROW((void)StepSize::power(1, -0.5), ValueError);
  EXPECT_THROW((void)StepSize::power(1, 1, -1), ValueError);
  EXPECT_THROW((void)StepSize::custom({}), ValueError);
  const StepSize falls_below = StepSize::custom([](std::int64_t k) { return 3.0 - double(k); });
  EXPECT_EQ(falls_below(2), 1.0);
  EXPECT_THROW((void)falls_below(3), ValueError);
}

}  // namespace
}  // namespace quern::test::step_size
