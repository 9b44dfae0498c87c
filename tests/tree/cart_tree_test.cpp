// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/cart_tree.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace quern::test::cart_tree {
namespace {

TEST(CartTree, ThresholdsKeepTheirSide) {
  const double infinity = std::numeric_limits<double>::infinity();
  const double largest = (std::numeric_limits<double>::max)();
  for (const double t : {-largest, -1.5, -0.0, 0.0, 1e-310, 0.1, 1e300, largest}) {
    const double above = tree::above_threshold(t);
    EXPECT_TRUE(t < above) << t;                             // x = t goes left
    EXPECT_FALSE(std::nextafter(t, infinity) < above) << t;  // the next number does not
  }
  EXPECT_EQ(tree::above_threshold(infinity), infinity);
}

TEST(CartTree, NodesAndValuesAreThoseGrown) {
  tree::CartGrowth grown;
  grown.nodes.resize(3);
  grown.nodes[0].left = 1;
  grown.nodes[0].feature = 4;
  grown.nodes[0].threshold = 0.25;
  grown.nodes[0].weight = 5;
  grown.nodes[0].decrease = 1.5;
  grown.nodes[0].missing_left = true;
  grown.nodes[1].weight = 2;
  grown.nodes[2].weight = 3;
  grown.values = {7, 8, 9};
  const tree::Tree one = tree::to_tree(grown);
  ASSERT_EQ(one.nodes.size(), 3u);
  EXPECT_EQ(one.node(0).left, 1);
  EXPECT_EQ(one.node(0).right, 2);
  EXPECT_EQ(one.node(0).feature, 4);
  EXPECT_EQ(one.node(0).threshold, tree::above_threshold(0.25));
  EXPECT_EQ(one.node(0).gain, 1.5);
  EXPECT_EQ(one.node(0).cover, 5);
  EXPECT_TRUE(one.node(0).default_left);
  EXPECT_EQ(one.node(1).parent, 0);
  EXPECT_EQ(one.node(2).parent, 0);
  EXPECT_TRUE(one.node(2).is_leaf());
  EXPECT_EQ(one.node(2).value, 9);

  grown.outputs = 2;
  grown.values = {1, 2, 3, 4, 5, 6};
  const tree::Tree two = tree::to_tree(grown);
  EXPECT_EQ(two.outputs, 2);
  EXPECT_EQ(std::vector<double>(two.vector_values.begin(), two.vector_values.end()), grown.values);
}

}  // namespace
}  // namespace quern::test::cart_tree
