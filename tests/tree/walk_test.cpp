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
  using Node = tree::detail::PlacedNode<std::int32_t>;
  constexpr std::int32_t missing = kernels::missing_key<std::int32_t>;
  const Node left{.threshold = 10, .key_at = 0, .child = 4};
  const Node right{.threshold = 9, .key_at = 1, .child = 4};
  constexpr std::uint64_t right_child = 4 + tree::detail::node_places<std::int32_t>;
  const auto step = [](const Node& n, std::int32_t key) {
    return tree::detail::walk_step(n, tree::detail::key_for(n.key_at, key));
  };
  for (const Node& n : {left, right}) {
    EXPECT_EQ(step(n, 9), 4U);
    EXPECT_EQ(step(n, 10), right_child);
    EXPECT_EQ(step(n, -1000), 4U);
    EXPECT_EQ(step(n, (std::numeric_limits<std::int32_t>::max)()), right_child);
  }
  EXPECT_EQ(step(left, missing), 4U);
  EXPECT_EQ(step(right, missing), right_child);
}

TEST(Walk, ManyRowsReachTheLeavesOfTheTree) {
  std::mt19937 random(1);
  const std::vector<tree::Tree> trees = {random_tree({.leaves = 300}, random)};
  const double base = 0;
  const tree::PackedForest forest({.trees = trees, .base = std::span(&base, 1), .features = 5});
  const std::vector<float> x = random_features<float>(8 * 5, random);
  std::array<std::uint64_t, 8> at;
  constexpr std::uint64_t places = tree::detail::node_places<std::int32_t>;
  at.fill(forest.packed[0].root * places);
  tree::detail::walk(forest.float_tables.nodes.data(), forest.packed[0].depth, at,
                     [&](std::uint32_t key_at, std::size_t way) {
                       const auto feature =
                           static_cast<std::size_t>(forest.slot_features[key_at / 2]);
                       return tree::detail::key_for(key_at, tree::float_key(x[way * 5 + feature]));
                     });
  for (std::size_t way = 0; way < 8; ++way) {
    EXPECT_EQ(forest.walk_originals[at[way] / places],
              naive_leaf<float>(trees[0], x.data() + way * 5));
  }
}

}  // namespace
}  // namespace quern::test::walk
