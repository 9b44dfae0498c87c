// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/interaction.hpp"
#include "quern/tree/grow.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "grow_problem.hpp"

namespace quern::test::interaction {
namespace {

using List = std::vector<std::int32_t>;

TEST(Interaction, AFeatureNeedsAGroupWithTheWholePath) {
  const tree::InteractionConstraints groups({{2, 0, 1}, {2, 3}, {4}});
  const List all = {0, 1, 2, 3, 4, 5};
  EXPECT_EQ(groups.allowed(all, {}), all);
  EXPECT_EQ(groups.allowed(all, {0}), (List{0, 1, 2}));
  EXPECT_EQ(groups.allowed(all, {2}), (List{0, 1, 2, 3}));
  EXPECT_EQ(groups.allowed(all, {1, 2}), (List{0, 1, 2}));
  EXPECT_EQ(groups.allowed(all, {2, 3}), (List{2, 3}));
  EXPECT_EQ(groups.allowed(all, {4}), (List{4}));
  EXPECT_EQ(groups.allowed(all, {5}), (List{5}));  // of no group: alone
  EXPECT_EQ(groups.allowed({1, 3, 5}, {2}), (List{1, 3}));
  EXPECT_EQ(groups.extended({1, 4}, 2), (List{1, 2, 4}));
  EXPECT_EQ(groups.extended({1, 4}, 4), (List{1, 4}));
  const tree::InteractionConstraints none({});
  EXPECT_EQ(none.allowed(all, {3}), all);
  EXPECT_EQ(none.extended({}, 3), List{});
}

/// Follows the tree down: only allowed features, and the best of them.
void check_paths(const grow_problem::Problem& p, const tree::Tree& t, std::int32_t i,
                 const grow_problem::Rows& rows, const List& path,
                 const tree::InteractionConstraints& groups, const tree::GrowOptions& o) {
  const tree::Node& n = t.node(i);
  if (n.is_leaf()) return;
  List all;
  for (std::int32_t f = 0; f < p.binned.features(); ++f) all.push_back(f);
  double best = -1e300;
  bool allowed = false;
  for (const std::int32_t f : groups.allowed(all, path)) {
    allowed |= f == n.feature;
    for (const double x : grow_problem::thresholds(p, f))
      for (const bool left : {false, true})
        best = std::max(best, grow_problem::split_gain(p, rows, f, x, left, o.split));
  }
  EXPECT_TRUE(allowed) << "feature " << n.feature << " in node " << i;
  if (o.policy != tree::GrowPolicy::symmetric) {
    EXPECT_GE(n.gain, best - 1e-3 * (1 + best));
  }
  grow_problem::Rows side[2];
  grow_problem::route(p, t, n, rows, side);
  const List below = groups.extended(path, n.feature);
  check_paths(p, t, n.left, side[0], below, groups, o);
  check_paths(p, t, n.right, side[1], below, groups, o);
}

TEST(Interaction, EveryPathOfATreeKeepsToItsGroups) {
  const grow_problem::Problem p(600, 9, 16, 5);
  for (const auto policy :
       {tree::GrowPolicy::depthwise, tree::GrowPolicy::lossguide, tree::GrowPolicy::symmetric}) {
    tree::GrowOptions o;
    o.policy = policy;
    o.interaction = {{0, 2, 3}, {1, 3, 5}, {7, 8}};
    o.max_leaves = 24;
    tree::Grower grower(p.binned, o);
    const tree::Tree t = grower.grow(p.gradients, {}, 0);
    EXPECT_GT(t.leaves(), 8);
    const tree::InteractionConstraints groups(o.interaction);
    check_paths(p, t, 0, grow_problem::all_rows(p), {}, groups, o);
  }
}

}  // namespace
}  // namespace quern::test::interaction
