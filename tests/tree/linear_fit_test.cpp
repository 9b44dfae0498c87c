// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/linear_fit.hpp"

#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::linear_fit {
namespace {

using tree::GradientPair;
using tree::detail::fit_leaf;
using tree::detail::LeafFunction;
using tree::detail::LeafRows;

/// The loss that a leaf's function minimises.
double loss(const LeafRows& rows, const LeafFunction& f, double lambda) {
  double sum = 0;
  for (const double b : f.coefficients) sum += lambda * b * b / 2;
  for (std::size_t i = 0; i < rows.g.size(); ++i) {
    double value = f.constant;
    for (std::size_t j = 0; j < f.coefficients.size(); ++j)
      value += f.coefficients[j] * rows.values[i * f.coefficients.size() + j];
    sum += rows.g[i] * value + rows.h[i] * value * value / 2;
  }
  return sum;
}

TEST(LinearFit, FindsTheLeastLoss) {
  Philox rng(1, "linear fit test");
  for (const double lambda : {0.0, 0.7}) {
    LeafRows rows;
    for (int i = 0; i < 40; ++i) {
      for (int j = 0; j < 3; ++j) rows.values.push_back(rng.normal<double>() * (j == 2 ? 1e4 : 1));
      rows.g.push_back(rng.normal<double>());
      rows.h.push_back(0.1 + rng.uniform<double>());
    }
    LeafFunction f;
    f.features = {0, 1, 2};
    ASSERT_TRUE(fit_leaf(rows, lambda, f));
    const double least = loss(rows, f, lambda);
    for (std::size_t j = 0; j < 4; ++j) {
      double& x = j < 3 ? f.coefficients[j] : f.constant;
      const double by = j == 2 ? 1e-6 : 1e-3, was = x;
      for (const double sign : {-1.0, 1.0}) {
        x = was + sign * by;
        EXPECT_GT(loss(rows, f, lambda), least) << j;
      }
      x = was;
    }
  }
}

TEST(LinearFit, RepeatedAndConstantFeaturesGetNoCoefficient) {
  LeafRows rows;
  for (int i = 0; i < 10; ++i) {
    rows.values.insert(rows.values.end(), {1.0 * i, 2.0 * i, 5.0});
    rows.g.push_back(3.0 - 2.0 * i);
    rows.h.push_back(1);
  }
  LeafFunction f;
  f.features = {0, 1, 2};
  ASSERT_TRUE(fit_leaf(rows, 0, f));
  EXPECT_NEAR(f.coefficients[0] + 2 * f.coefficients[1], 2, 1e-9);
  EXPECT_TRUE(f.coefficients[0] == 0 || f.coefficients[1] == 0);
  EXPECT_EQ(f.coefficients[2], 0);
  EXPECT_NEAR(f.constant, -3, 1e-9);
  LeafFunction few;
  few.features = {0, 1, 2};
  rows.g.resize(3);
  rows.h.resize(3);
  EXPECT_FALSE(fit_leaf(rows, 0, few));
}

TEST(LinearFit, LeavesOfATreeUseThePathAndTheRowsThatMissNothing) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x;
  std::vector<GradientPair> gradients;
  for (int i = 0; i < 20; ++i) {
    const float v = static_cast<float>(i) - 9.5f;
    x.insert(x.end(), {i == 3 ? nan : v, 1});
    gradients.push_back({v < 0 ? -2 * v : 4 - v, 1});  // -g: 2 v below 0, v - 4 above
  }
  tree::Tree t;
  t.split(0);
  t.node(0).feature = 0;
  t.node(0).default_left = true;
  t.node(1).value = 0.25;
  tree::RowPartition partition(1);
  std::vector<std::int32_t> all(20);
  for (int i = 0; i < 20; ++i) all[static_cast<std::size_t>(i)] = i;
  partition.reset(all);
  const tree::RowReader reader(MatrixView<const float>(x.data(), {20, 2}),
                               tree::InputType::float32);
  const std::vector<std::int32_t> leaves = {1, 2};
  const std::vector<tree::RowRange> ranges = {{0, 10}, {10, 20}};
  tree::Tree expected;
  for (const int threads : {1, 2, 3}) {
    tree::fit_linear_leaves(t, leaves, ranges, partition, gradients, reader,
                            {.learning_rate = 0.5, .threads = threads});
    EXPECT_NO_THROW(t.check(2, "test"));
    EXPECT_EQ(t.linear.features, (std::vector<std::int32_t>{0, 0}));
    EXPECT_NEAR(t.linear.coefficients[0], 0.5 * 2, 1e-6);
    EXPECT_NEAR(t.linear.coefficients[1], 0.5 * 1, 1e-6);
    EXPECT_NEAR(t.linear.constants[1], 0, 1e-6);
    EXPECT_NEAR(t.linear.constants[2], 0.5 * -4, 1e-6);
    EXPECT_EQ(reader.leaf_value(t, 1, 3), 0.25);  // it misses its value
    if (threads == 1) expected = t;
    EXPECT_EQ(t.linear.coefficients, expected.linear.coefficients);
    EXPECT_EQ(t.linear.constants, expected.linear.constants);
  }
}

}  // namespace
}  // namespace quern::test::linear_fit
