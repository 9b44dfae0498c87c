// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/forest_source.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace quern::test::forest_source {
namespace {

using tree::ForestFrame;
using tree::Tree;

Tree stump(std::int32_t feature) {
  Tree t;
  t.split(0);
  t.node(0).feature = feature;
  return t;
}

TEST(ForestFrame, SlotsAreTheTestedFeaturesInOrder) {
  std::vector<Tree> trees = {stump(7), stump(2), stump(7), Tree()};
  trees[1].linear = {{0, 0, 1, 1}, {4}, {1.0}, {0, 0, 0}};
  const std::vector<double> base = {1, 2};
  const ForestFrame frame({.trees = trees, .base = base, .features = 2000000000}, "f");
  EXPECT_EQ(frame.trees(), 4);
  EXPECT_EQ(frame.outputs(), 2);
  EXPECT_EQ(frame.slots(), 3);
  EXPECT_EQ(frame.slot_features, (std::vector<std::int32_t>{2, 4, 7}));
  EXPECT_EQ(frame.feature_slots.size(), 8u);
  EXPECT_EQ(frame.slot_of(7), 2);
  EXPECT_EQ(frame.slot_of(3), -1);
  EXPECT_EQ(frame.slot_of(1999999999), -1);
}

TEST(ForestFrame, NamesWhatDoesNotFit) {
  const std::vector<Tree> trees = {stump(0), stump(1)};
  const std::vector<double> base = {0, 0};
  const std::vector<std::int32_t> short_outputs = {0}, outside = {0, 2}, below = {-1, 0};
  const auto message = [&](const tree::ForestSource& source) {
    try {
      const ForestFrame frame(source, "the function");
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(message({.trees = trees, .base = base}), "");
  EXPECT_NE(message({.trees = trees}).find("the function: base"), std::string::npos);
  for (const auto* outputs : {&short_outputs, &outside, &below})
    EXPECT_NE(
        message({.trees = trees, .tree_outputs = *outputs, .base = base}).find("tree_outputs"),
        std::string::npos);
}

TEST(ForestSource, LeavesAndSplitsOfAllKinds) {
  Tree t = stump(0);
  t.node(1).value = 3;
  EXPECT_EQ(tree::detail::leaf_value(t, 1, 0), 3);
  t.outputs = 2;
  t.vector_values = {0, 0, 1, 2, 3, 4};
  EXPECT_EQ(tree::detail::leaf_value(t, 2, 1), 4);
  EXPECT_FALSE(tree::detail::has_special_splits(t));
  t.node(0).missing = tree::MissingRule::zero;
  EXPECT_TRUE(tree::detail::has_special_splits(t));
  t.node(0).kind = tree::SplitKind::categorical;
  EXPECT_TRUE(tree::detail::has_special_splits(t));
}

}  // namespace
}  // namespace quern::test::forest_source
