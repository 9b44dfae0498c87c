// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of a walk, and walks side by side.

#include "quern/tree/walk.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "random_trees.hpp"

namespace quern::test::walk {
namespace {

TEST(Walk, StepsByThresholdAndMissingDirection) {
  using Node = tree::detail::WalkNode<std::int32_t>;
  constexpr std::int32_t missing = kernels::missing_key<std::int32_t>;
  const Node left{.threshold = 10, .slot = 0, .child = 4, .missing_right = 0};
  const Node right{.threshold = 9, .slot = 0, .child = 4, .missing_right = 1};
  for (const Node& n : {left, right}) {
    EXPECT_EQ(tree::detail::walk_step(n, 9), 4U);
    EXPECT_EQ(tree::detail::walk_step(n, 10), 5U);
    EXPECT_EQ(tree::detail::walk_step(n, -1000), 4U);
    EXPECT_EQ(tree::detail::walk_step(n, (std::numeric_limits<std::int32_t>::max)()), 5U);
  }
  EXPECT_EQ(tree::detail::walk_step(left, missing), 4U);
  EXPECT_EQ(tree::detail::walk_step(right, missing), 5U);
}

TEST(Walk, ManyRowsReachTheLeavesOfTheTree) {
  std::mt19937 random(1);
  const std::vector<tree::Tree> trees = {random_tree({.leaves = 300}, random)};
  const double base = 0;
  const tree::PackedForest forest({.trees = trees, .base = std::span(&base, 1), .features = 5});
  const std::vector<float> x = random_features<float>(8 * 5, random);
  std::array<std::uint32_t, 8> at;
  at.fill(forest.packed[0].root);
  tree::detail::walk(forest.float_tables.nodes.data(), forest.packed[0].depth, at,
                     [&](std::uint32_t slot, std::size_t way) {
                       const auto feature = static_cast<std::size_t>(forest.slot_features[slot]);
                       return tree::float_key(x[way * 5 + feature]);
                     });
  for (std::size_t way = 0; way < 8; ++way) {
    EXPECT_EQ(forest.walk_originals[at[way]], naive_leaf<float>(trees[0], x.data() + way * 5));
  }
}

}  // namespace
}  // namespace quern::test::walk
