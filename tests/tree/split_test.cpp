// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/split.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace quern::test::split {
namespace {

using tree::GradientSum;
using tree::SplitOptions;

/// What weight w adds to the regularised loss.
double change(const GradientSum<double>& s, const SplitOptions& o, double w) {
  return s.g * w + (s.h + o.reg_lambda) * w * w / 2 + o.reg_alpha * std::fabs(w);
}

TEST(Split, LeafWeightMinimisesTheRegularisedLoss) {
  for (const double g : {-3.0, -0.1, 0.0, 0.4, 7.0}) {
    for (const double step : {0.0, 0.3}) {
      SplitOptions o;
      o.reg_lambda = 0.5;
      o.reg_alpha = 0.2;
      o.max_delta_step = step;
      const GradientSum<double> s{g, 2.0};
      const double w = tree::leaf_weight(s, o);
      EXPECT_LE(std::fabs(w), step > 0 ? step : 10.0);
      for (int i = -3000; i <= 3000; ++i) {
        const double other = i * 1e-3;
        if (step > 0 && std::fabs(other) > step) continue;
        EXPECT_LE(change(s, o, w), change(s, o, other) + 1e-12);
      }
      EXPECT_NEAR(tree::node_score(s, o), -2 * change(s, o, w), 1e-12);
    }
  }
}

TEST(Split, WithoutBoundsTheScoreIsTheKnownFormula) {
  SplitOptions o;
  const GradientSum<double> s{3.0, 4.0};
  EXPECT_DOUBLE_EQ(tree::leaf_weight(s, o), -3.0 / 5);
  EXPECT_NEAR(tree::node_score(s, o), 9.0 / 5, 1e-15);
  EXPECT_EQ(tree::node_score({1.0, 0.0}, o), 0);
  EXPECT_EQ(tree::leaf_weight(s, o, {-0.1, 0.2}), -0.1);
}

}  // namespace
}  // namespace quern::test::split
