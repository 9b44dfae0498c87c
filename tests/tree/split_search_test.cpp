// SPDX-License-Identifier: Apache-2.0

/// \file
/// The search for one test that all nodes of a level share, seen in the trees that it makes. (That
/// every node of other trees has its best split is in grow_test.)

#include "quern/tree/split_search.hpp"
#include "quern/tree/grow.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "grow_problem.hpp"

namespace quern::test::split_search {
namespace {

using namespace grow_problem;

/// Sum of a split's gains over the nodes of a level where it is allowed.
double level_gain(const Problem& p, const std::vector<Rows>& level, std::int32_t f, double t,
                  bool left, const tree::SplitOptions& o) {
  double sum = 0;
  for (const Rows& rows : level) {
    const double gain = rows.empty() ? -1e300 : split_gain(p, rows, f, t, left, o);
    if (gain > -1e299) sum += gain;
  }
  return sum;
}

double best_level_gain(const Problem& p, const std::vector<Rows>& level,
                       const tree::SplitOptions& o) {
  double best = 0;
  for (std::int32_t f = 0; f < p.binned.features(); ++f)
    for (const double t : thresholds(p, f))
      for (const bool left : {false, true})
        best = std::max(best, level_gain(p, level, f, t, left, o));
  return best;
}

/// A leaf that holds too little says what its parent says.
void check_values(const Problem& p, const tree::Tree& t, std::int32_t first,
                  const std::vector<Rows>& level, const tree::GrowOptions& o) {
  for (std::size_t i = 0; i < level.size(); ++i) {
    const tree::Node& n = t.node(first + static_cast<std::int32_t>(i));
    const tree::GradientSum<double> sum = sum_of(p, level[i]);
    EXPECT_NEAR(n.cover, sum.h, 1e-6 * (1 + sum.h));
    const bool light = level[i].empty() || sum.h < o.split.min_child_weight;
    const double value = light && n.parent >= 0 ? t.node(n.parent).value
                                                : o.learning_rate * tree::leaf_weight(sum, o.split);
    EXPECT_NEAR(n.value, value, 1e-6);
  }
}

void check_symmetric(const Problem& p, const tree::Tree& t, const tree::GrowOptions& o) {
  std::vector<Rows> level = {all_rows(p)};
  std::int32_t first = 0;
  for (int depth = 0; depth <= t.depth(); ++depth) {
    SCOPED_TRACE(depth);
    check_values(p, t, first, level, o);
    const tree::Node& n = t.node(first);
    const double best = depth < o.max_depth ? best_level_gain(p, level, o.split) : 0;
    const double slack = 2e-3 * (1 + best);
    if (n.is_leaf()) {
      EXPECT_LE(best, std::max(o.split.gamma, 1e-6) + slack);
      return;
    }
    const double gain = level_gain(p, level, n.feature, n.threshold, n.default_left, o.split);
    EXPECT_GE(gain, best - slack);
    double stored = 0;
    for (std::int32_t i = first; i < 2 * first + 1; ++i) stored += t.node(i).gain;
    EXPECT_NEAR(stored, gain, 1e-5 * (1 + gain));
    std::vector<Rows> next;
    for (const Rows& rows : level) {
      Rows side[2];
      route(p, t, n, rows, side);
      next.push_back(side[0]);
      next.push_back(side[1]);
    }
    level = std::move(next);
    first = 2 * first + 1;
  }
}

TEST(SplitSearch, SymmetricTreesTakeTheBestTestOfEveryLevel) {
  for (const std::int64_t rows : {2, 3, 10, 97, 700}) {
    for (const std::int64_t cols : {1, 3, 9}) {
      const Problem p(rows, cols, 16, static_cast<std::uint64_t>(rows + cols));
      for (const double least : {0.0, 8.0}) {
        tree::GrowOptions o;
        o.policy = tree::GrowPolicy::symmetric;
        o.max_depth = 4;
        o.learning_rate = 0.7;
        o.split.reg_alpha = 0.2;
        o.split.gamma = 0.1;
        o.split.min_child_weight = least;
        tree::Grower grower(p.binned, o);
        const tree::Tree t = grower.grow(p.gradients, {}, 0);
        ASSERT_TRUE(t.symmetric);
        t.check(cols, "symmetric tree");
        EXPECT_EQ(grower.leaf_nodes().size(), static_cast<std::size_t>(t.leaves()));
        check_symmetric(p, t, o);
      }
    }
  }
}

TEST(SplitSearch, SymmetricTreesStopAtTheirLimits) {
  const Problem p(3000, 5, 64, 1);
  tree::GrowOptions o;
  o.policy = tree::GrowPolicy::symmetric;
  o.max_depth = 3;
  EXPECT_EQ(tree::Grower(p.binned, o).grow(p.gradients, {}, 0).leaves(), 8);
  o.max_depth = 0;
  o.max_leaves = 40;
  EXPECT_EQ(tree::Grower(p.binned, o).grow(p.gradients, {}, 0).leaves(), 32);
  o.split.gamma = 1e9;
  EXPECT_EQ(tree::Grower(p.binned, o).grow(p.gradients, {}, 0).leaves(), 1);
}

}  // namespace
}  // namespace quern::test::split_search
