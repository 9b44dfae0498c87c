// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/grow.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/column_sampler.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "grow_problem.hpp"

namespace quern::test::grow {
namespace {

using grow_problem::all_rows;
using grow_problem::Problem;
using grow_problem::split_gain;
using grow_problem::sum_of;
using tree::GradientPair;
using tree::GradientSum;

/// The best gain over all features, cuts and directions.
double best_gain(const Problem& p, const std::vector<std::int32_t>& rows,
                 const tree::SplitOptions& o) {
  double best = -1e300;
  for (std::int32_t f = 0; f < p.binned.features(); ++f) {
    for (const double t : grow_problem::thresholds(p, f)) {
      for (const bool left : {false, true})
        best = std::max(best, split_gain(p, rows, f, t, left, o));
    }
  }
  return best;
}

/// Follows the tree down, checking each node against the data it holds. Histograms are rounded to
/// 17 bits, so a chosen split may fall short of the best by that much.
void check_node(const Problem& p, const tree::Tree& tree, std::int32_t i,
                const std::vector<std::int32_t>& rows, const tree::GrowOptions& o, int depth) {
  const tree::Node& n = tree.node(i);
  const GradientSum<double> sum = sum_of(p, rows);
  EXPECT_NEAR(n.cover, sum.h, 1e-6 * sum.h);
  EXPECT_NEAR(n.value, o.learning_rate * tree::leaf_weight(sum, o.split), 1e-6);
  const double best = best_gain(p, rows, o.split);
  const double slack = 1e-3 * (1 + std::fabs(best));
  if (n.is_leaf()) {
    if (depth < o.max_depth) {
      EXPECT_LE(best, o.split.gamma + slack) << "node " << i;
    }
    return;
  }
  const double gain = split_gain(p, rows, n.feature, n.threshold, n.default_left, o.split);
  EXPECT_NEAR(n.gain, gain, 1e-6 * (1 + std::fabs(gain)));
  EXPECT_GE(gain, best - slack) << "node " << i;
  EXPECT_GE(gain, o.split.gamma - slack);
  std::vector<std::int32_t> side[2];
  grow_problem::route(p, tree, n, rows, side);
  check_node(p, tree, n.left, side[0], o, depth + 1);
  check_node(p, tree, n.right, side[1], o, depth + 1);
}

TEST(Grow, EveryNodeHasTheBestSplitAndTheRightValue) {
  for (const std::int64_t rows : {2, 3, 10, 97, 700}) {
    for (const std::int64_t cols : {1, 3, 9}) {
      const Problem p(rows, cols, 16, static_cast<std::uint64_t>(rows + cols));
      for (const auto precision :
           {tree::HistogramPrecision::packed, tree::HistogramPrecision::full}) {
        tree::GrowOptions o;
        o.max_depth = 4;
        o.learning_rate = 0.7;
        o.precision = precision;
        o.split.reg_alpha = 0.2;
        o.split.gamma = 0.1;
        tree::Grower grower(p.binned, o);
        const tree::Tree tree = grower.grow(p.gradients, {}, 0);
        tree.check(cols, "grown tree");
        check_node(p, tree, 0, all_rows(p), o, 0);
      }
    }
  }
}

TEST(Grow, TheSameBitsForAnyNumberOfThreadsAndForSparseBlocks) {
  const Problem p(40000, 12, 255, 3);  // more rows than one packed histogram holds
  for (const auto policy :
       {tree::GrowPolicy::depthwise, tree::GrowPolicy::lossguide, tree::GrowPolicy::symmetric}) {
    tree::GrowOptions o;
    o.policy = policy;
    o.max_leaves = 40;
    o.max_depth = 8;
    std::vector<tree::Tree> trees;
    std::vector<std::vector<std::int32_t>> leaf_of(3, std::vector<std::int32_t>(40000, -1));
    for (const int threads : {1, 2, 3}) {
      o.threads = threads;
      tree::Grower grower(p.binned, o);
      trees.push_back(grower.grow(p.gradients, {}, 0));
      trees.push_back(grower.grow(p.gradients, {}, 0));  // memory is used again
      // Also of leaves whose children were made and not taken.
      auto& leaves = leaf_of[static_cast<std::size_t>(threads - 1)];
      grower.partition().for_each_row(
          grower.leaf_ranges(), [&](std::size_t leaf, std::int64_t row) {
            leaves[static_cast<std::size_t>(row)] = grower.leaf_nodes()[leaf];
          });
      EXPECT_EQ(leaves, leaf_of[0]);
      EXPECT_EQ(std::count(leaves.begin(), leaves.end(), -1), 0);
    }
    EXPECT_EQ(trees[0].leaves(), trees[0].symmetric ? 32 : 40);
    for (const tree::Tree& t : trees) {
      ASSERT_EQ(t.size(), trees[0].size());
      for (std::size_t i = 0; i < t.nodes.size(); ++i) {
        EXPECT_EQ(t.nodes[i].value, trees[0].nodes[i].value);
        EXPECT_EQ(t.nodes[i].gain, trees[0].nodes[i].gain);
        EXPECT_EQ(t.nodes[i].threshold, trees[0].nodes[i].threshold);
        EXPECT_EQ(t.nodes[i].feature, trees[0].nodes[i].feature);
      }
    }
  }
}

TEST(Grow, NodesLookAtTheColumnsOfTheirNumbers) {
  const Problem p(3000, 12, 63, 6);
  tree::GrowOptions o;
  o.max_leaves = 30;
  o.max_depth = 0;
  o.columns.by_node = 0.3;
  tree::ColumnSampler columns;
  columns.reset(12, o.columns, 9);
  for (const auto policy : {tree::GrowPolicy::depthwise, tree::GrowPolicy::lossguide}) {
    for (const int threads : {1, 3}) {
      o.policy = policy;
      o.threads = threads;
      const tree::Tree t = tree::Grower(p.binned, o).grow(p.gradients, {}, 9);
      EXPECT_EQ(t.leaves(), 30);
      for (std::size_t i = 0; i < t.nodes.size(); ++i) {
        if (t.nodes[i].is_leaf()) continue;
        const auto looked_at = columns.features(0, static_cast<std::int32_t>(i));
        EXPECT_EQ(std::count(looked_at.begin(), looked_at.end(), t.nodes[i].feature), 1);
      }
    }
  }
}

TEST(Grow, LeavesKnowTheirRows) {
  const Problem p(500, 5, 32, 4);
  tree::Grower grower(p.binned, {});
  const std::vector<std::int32_t> sample = {0, 3, 4, 10, 77, 78, 200, 499};
  for (const bool sampled : {false, true}) {
    const std::vector<std::int32_t> rows = sampled ? sample : all_rows(p);
    tree::Tree tree = grower.grow(
        p.gradients,
        sampled ? std::span<const std::int32_t>(sample) : std::span<const std::int32_t>{}, 0);
    std::vector<std::int32_t> leaf_of(500, -1);
    grower.partition().for_each_row(grower.leaf_ranges(), [&](std::size_t leaf, std::int64_t row) {
      leaf_of[static_cast<std::size_t>(row)] = grower.leaf_nodes()[leaf];
    });
    for (std::int32_t r = 0; r < 500; ++r) {
      std::int32_t i = 0;
      while (!tree.node(i).is_leaf()) {
        const float v = p.x(r, tree.node(i).feature);
        i = tree.next(tree.node(i), static_cast<double>(v), std::isnan(v));
      }
      const bool in = std::find(rows.begin(), rows.end(), r) != rows.end();
      EXPECT_EQ(leaf_of[static_cast<std::size_t>(r)], in ? i : -1);
    }
  }
}

TEST(Grow, MonotoneConstraintsHold) {
  const Problem p(3000, 3, 64, 9);
  for (const auto policy :
       {tree::GrowPolicy::depthwise, tree::GrowPolicy::lossguide, tree::GrowPolicy::symmetric})
    for (const int sign : {-1, 1}) {
      tree::GrowOptions o;
      o.policy = policy;
      o.split.min_child_weight = 10;
      o.monotone = {static_cast<std::int8_t>(sign), 0, 0};
      tree::Grower grower(p.binned, o);
      const tree::Tree tree = grower.grow(p.gradients, {}, 0);
      tree.check(3, "tree");
      EXPECT_GT(tree.leaves(), 4);
      std::int64_t used = 0;
      for (const tree::Node& n : tree.nodes) used += n.feature == 0 ? 1 : 0;
      EXPECT_GT(used, 0);
      Philox rng(1, "monotone probe");
      for (int probe = 0; probe < 50; ++probe) {
        const float other[2] = {rng.normal<float>(), rng.normal<float>()};
        double before = -1e300;
        for (int step = -40; step <= 40; ++step) {
          const double first = sign * step * 0.1;
          std::int32_t i = 0;
          while (!tree.node(i).is_leaf()) {
            const tree::Node& n = tree.node(i);
            const double v = n.feature == 0 ? first : static_cast<double>(other[n.feature - 1]);
            i = tree.next(n, v, false);
          }
          EXPECT_GE(tree.node(i).value, before - 1e-12);
          before = tree.node(i).value;
        }
      }
    }
}

TEST(Grow, NothingToLearnFromGivesASingleLeaf) {
  Eigen::MatrixXf constant = Eigen::MatrixXf::Constant(10, 2, 3.0f);
  const tree::BinnedMatrix binned = tree::bin(tree::make_dataset(constant), 16);
  std::vector<GradientPair> gradients(10, GradientPair{1.0f, 1.0f});
  tree::Grower grower(binned, {});
  const tree::Tree tree = grower.grow(gradients, {}, 0);
  EXPECT_EQ(tree.size(), 1);
  EXPECT_NEAR(tree.node(0).value, -0.3 * 10 / 11, 1e-9);
  std::vector<GradientPair> zero(10);
  EXPECT_EQ(grower.grow(zero, {}, 0).node(0).value, 0.0);
}

}  // namespace
}  // namespace quern::test::grow
