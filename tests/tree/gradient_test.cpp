// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/gradient.hpp"

#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace quern::test::gradient {
namespace {

using tree::GradientPair;
using tree::HistogramPrecision;
using tree::QuantisedGradients;

TEST(Gradient, HeavyRowsAskForFullPrecision) {
  std::vector<GradientPair> gradients(20000, GradientPair{0.001f, 0.001f});
  QuantisedGradients q;
  q.assign(gradients, HistogramPrecision::automatic, 1);
  EXPECT_EQ(q.words(), 1);
  gradients[5] = {1e6f, 1e6f};
  q.assign(gradients, HistogramPrecision::automatic, 1);
  EXPECT_EQ(q.words(), 2);
}

TEST(Gradient, RoundsToSeventeenBitsOrNearlyAll) {
  Philox rng(1, "gradient test");
  std::vector<GradientPair> gradients;
  for (int i = 0; i < 1000; ++i)
    gradients.push_back({rng.normal<float>() * 1e-5f, rng.uniform<float>() * 1e-3f});
  gradients[7] = {0, 0};
  for (const auto precision : {HistogramPrecision::packed, HistogramPrecision::full}) {
    QuantisedGradients q;
    q.assign(gradients, precision, 2);
    const double tolerance = precision == HistogramPrecision::packed ? 2e-5 : 1e-13;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const std::int64_t* at = q.data() + static_cast<std::int64_t>(i) * q.words();
      const std::int64_t g = q.words() == 1 ? at[0] >> 32 : at[0];
      const std::int64_t h = q.words() == 1 ? at[0] & 0xffffffff : at[1];
      EXPECT_NEAR(static_cast<double>(g) / q.scale().g, gradients[i].g, 4e-5 * tolerance);
      EXPECT_NEAR(static_cast<double>(h) / q.scale().h, gradients[i].h, 1e-3 * tolerance);
      EXPECT_EQ(h > 0, gradients[i].h > 0);
      const auto exact = q.exact(gradients[i]);
      EXPECT_NEAR(static_cast<double>(exact.g) / q.sum_scale().g, gradients[i].g, 4e-5 * 1e-13);
      EXPECT_LT(std::llabs(exact.g), std::int64_t{1} << 52);  // 2^62 / 2^10 rows
    }
  }
}

}  // namespace
}  // namespace quern::test::gradient
