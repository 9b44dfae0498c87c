// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/node_values.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace quern::test::node_values {
namespace {

using tree::GradientSum;
using tree::Tree;

/// Root 0 on feature 0, its left child 1 on feature 1; leaves 2, 3, 4.
Tree made() {
  Tree t;
  t.split(0);
  t.split(1);
  t.node(0).feature = 0;
  t.node(1).feature = 1;
  return t;
}

TEST(NodeValues, AreTheFormulasOfEveryNode) {
  tree::GrowOptions o;
  o.split = {.reg_lambda = 2, .reg_alpha = 0.5};
  o.learning_rate = 0.1;
  const std::vector<GradientSum<double>> sums = {{1, 10}, {4, 6}, {-3, 4}, {5, 2}, {-1, 4}};
  Tree t = made();
  tree::set_node_values(t, sums, o);
  const double weights[] = {-0.5 / 12, -3.5 / 8, 2.5 / 6, -4.5 / 4, 0.5 / 6};
  for (int i = 0; i < 5; ++i) {
    EXPECT_DOUBLE_EQ(t.node(i).value, 0.1 * weights[i]);
    EXPECT_EQ(t.node(i).cover, sums[static_cast<std::size_t>(i)].h);
  }
  // Without L1, G^2 / (H + lambda) of the children less the node's.
  o.split.reg_alpha = 0;
  tree::set_node_values(t, sums, o);
  EXPECT_NEAR(t.node(0).gain, 16 / 8.0 + 9 / 6.0 - 1 / 12.0, 1e-12);
  EXPECT_NEAR(t.node(1).gain, 25 / 4.0 + 1 / 6.0 - 16 / 8.0, 1e-12);
}

/// Children of an increasing split are held apart by the middle of their weights, and so is all
/// that lies below them.
TEST(NodeValues, MonotoneBoundsReachDownTheTree) {
  tree::GrowOptions o;
  o.split.reg_lambda = 0;
  o.learning_rate = 1;
  o.monotone = {1, 0};
  // Weights -1 and 1: the left subtree must stay below 0, which its leaf 4 would not.
  const std::vector<GradientSum<double>> sums = {{0, 4}, {2, 2}, {-2, 2}, {5, 1}, {-3, 1}};
  Tree t = made();
  tree::set_node_values(t, sums, o);
  EXPECT_EQ(t.node(1).value, -1);
  EXPECT_EQ(t.node(2).value, 1);
  EXPECT_EQ(t.node(3).value, -5);
  EXPECT_EQ(t.node(4).value, 0);
  o.monotone = {0, 0};
  tree::set_node_values(t, sums, o);
  EXPECT_EQ(t.node(4).value, 3);
}

TEST(NodeValues, EmptyLeavesOfSymmetricTreesKeepTheirParentsWeight) {
  tree::GrowOptions o;
  o.split.reg_lambda = 0;
  o.learning_rate = 0.5;
  Tree t;
  t.split(0);
  t.node(0).feature = 0;
  t.symmetric = true;
  const std::vector<GradientSum<double>> sums = {{6, 3}, {6, 3}, {0, 0}};
  tree::set_node_values(t, sums, o);
  EXPECT_EQ(t.node(2).value, 0.5 * -2);
  EXPECT_EQ(t.node(0).gain, 0);
}

}  // namespace
}  // namespace quern::test::node_values
