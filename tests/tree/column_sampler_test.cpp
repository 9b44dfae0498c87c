// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/column_sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace quern::test::column_sampler {
namespace {

TEST(ColumnSampler, KeepsToItsShares) {
  tree::ColumnSampler sampler;
  sampler.reset(100, {0.5, 0.5, 0.5}, 7);
  const std::vector<std::int32_t> one = sampler.features(0, 0);
  EXPECT_EQ(one.size(), 12u);
  EXPECT_TRUE(std::is_sorted(one.begin(), one.end()));
  EXPECT_NE(one, sampler.features(0, 1));
  EXPECT_EQ(one, sampler.features(0, 0));
  sampler.reset(3, {0.01, 1, 1}, 7);
  EXPECT_EQ(sampler.features(0, 0).size(), 1u);
  sampler.reset(5, {}, 7);
  EXPECT_EQ(sampler.features(3, 9), (std::vector<std::int32_t>{0, 1, 2, 3, 4}));
}

TEST(ColumnSampler, NodesDrawFromTheirLevelAndLevelsFromTheTree) {
  const auto within = [](const std::vector<std::int32_t>& part,
                         const std::vector<std::int32_t>& of) {
    return std::includes(of.begin(), of.end(), part.begin(), part.end());
  };
  tree::ColumnSampler by_tree, by_level, by_node;
  by_tree.reset(64, {0.5, 1, 1}, 3);
  by_level.reset(64, {0.5, 0.5, 1}, 3);
  by_node.reset(64, {0.5, 0.5, 0.25}, 3);
  EXPECT_NE(by_level.features(0, 0), by_level.features(1, 1));
  for (std::int32_t node = 0; node < 15; ++node) {
    const std::int32_t level = node < 1 ? 0 : node < 3 ? 1 : node < 7 ? 2 : 3;
    EXPECT_EQ(by_tree.features(level, node).size(), 32u);
    EXPECT_EQ(by_level.features(level, node).size(), 16u);
    EXPECT_EQ(by_node.features(level, node).size(), 4u);
    EXPECT_TRUE(within(by_level.features(level, node), by_tree.features(0, 0)));
    EXPECT_TRUE(within(by_node.features(level, node), by_level.features(level, 0)));
  }
}

TEST(ColumnSampler, EveryColumnIsDrawnAboutAsOften) {
  std::vector<int> drawn(10, 0);
  tree::ColumnSampler sampler;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    sampler.reset(10, {0.3, 1, 1}, seed);
    for (const std::int32_t f : sampler.features(0, 0)) ++drawn[static_cast<std::size_t>(f)];
  }
  for (const int count : drawn) EXPECT_NEAR(count, 600, 100);  // 5 standard deviations
}

}  // namespace
}  // namespace quern::test::column_sampler
