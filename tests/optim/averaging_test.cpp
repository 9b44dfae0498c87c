// SPDX-License-Identifier: Apache-2.0

#include "quern/optim/averaging.hpp"

#include "quern/core/error.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace quern::test::optim_averaging {
namespace {

using namespace quern::optim;

/// The average after each row of the reference's Adam.
std::vector<double> path(const AverageOptions& options) {
  const std::vector<double> p0 = optim_reference("p0"), rows = optim_reference("adam");
  std::vector<float> p(p0.begin(), p0.end());
  WeightAverage<float> average({{.values = p}}, options);
  std::vector<double> out;
  for (std::size_t t = 0; t < 20; ++t) {
    for (std::size_t i = 0; i < p.size(); ++i) p[i] = static_cast<float>(rows[t * p.size() + i]);
    average.update();
    out.insert(out.end(), average.average(0).begin(), average.average(0).end());
  }
  EXPECT_EQ(average.updates(), 20);
  return out;
}

TEST(Averaging, ReferencesOfAdamsPath) {
  expect_close(path({.decay = 0.9}), optim_reference("ema_of_adam_decay0.9_init_p0"), 2e-6);
  expect_close(path({.decay = -1}), optim_reference("polyak_mean_of_adam_f64"), 2e-6);
}

TEST(Averaging, SwapsAndWarmsUp) {
  std::vector<double> p = {1, 2}, q = {5};
  WeightAverage<double> average({{.values = p}, {.values = q}}, {.decay = 0.99, .warm_up = true});
  p = {3, 3};
  q = {6};
  average.update();  // decay 2 / 11
  EXPECT_DOUBLE_EQ(average.average(0)[0], 1 + 2 * (1 - 2.0 / 11));
  average.swap();
  EXPECT_DOUBLE_EQ(p[0], 1 + 2 * (1 - 2.0 / 11));
  EXPECT_EQ(average.average(0)[1], 3);
  average.swap();
  EXPECT_EQ(p[0], 3);
  EXPECT_EQ(q[0], 6);
  EXPECT_THROW((WeightAverage<double>({{.values = p}}, {.decay = 1})), ValueError);
  EXPECT_THROW((void)average.average(2), ShapeError);
}

}  // namespace
}  // namespace quern::test::optim_averaging
