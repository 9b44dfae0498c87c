// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/grow_options.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace quern::test::grow_options {
namespace {

/// The defaults are XGBoost's documented ones.
TEST(GrowOptions, DefaultsAreXgboosts) {
  const tree::GrowOptions o;
  EXPECT_EQ(o.learning_rate, 0.3);
  EXPECT_EQ(o.max_depth, 6);
  EXPECT_EQ(o.max_leaves, 0);
  EXPECT_EQ(o.policy, tree::GrowPolicy::depthwise);
  EXPECT_EQ(o.split.reg_lambda, 1);
  EXPECT_EQ(o.split.reg_alpha, 0);
  EXPECT_EQ(o.split.gamma, 0);
  EXPECT_EQ(o.split.min_child_weight, 1);
  EXPECT_EQ(o.split.max_delta_step, 0);
  EXPECT_EQ(o.columns.by_tree * o.columns.by_level * o.columns.by_node, 1);
  EXPECT_EQ(o.max_cat_to_onehot, 4);
  EXPECT_EQ(o.max_cat_threshold, 64);
}

TEST(GrowOptions, FeaturesAreFreeUnlessTheyAreConstrained) {
  tree::GrowOptions o;
  EXPECT_EQ(o.monotone_of(1000000), 0);
  o.monotone = {1, 0, -1};
  EXPECT_EQ(o.monotone_of(0), 1);
  EXPECT_EQ(o.monotone_of(1), 0);
  EXPECT_EQ(o.monotone_of(2), -1);
}

}  // namespace
}  // namespace quern::test::grow_options
