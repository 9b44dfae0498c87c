// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/grow.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/binning.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::grow {
namespace {

using tree::GradientPair;
using tree::GradientSum;

/// Random features (some missing, some few-valued, one constant) and gradients.
struct Problem {
  Eigen::MatrixXf x;
  std::vector<GradientPair> gradients;
  tree::BinnedMatrix binned;

  Problem(std::int64_t rows, std::int64_t cols, int max_bin, std::uint64_t seed) : x(rows, cols) {
    Philox rng(seed, "grow test");
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        float v = rng.normal<float>();
        if (j % 4 == 1) v = std::round(v);
        if (j % 4 == 2 && rng.bernoulli(0.4)) v = std::numeric_limits<float>::quiet_NaN();
        if (j % 4 == 3) v = rng.bernoulli(0.9) ? 0.0f : v;
        x(i, j) = j == 4 ? 1.5f : v;
      }
      const float first = x(i, 0) * (cols > 1 ? x(i, 1) : 1.0f);
      gradients.push_back({first + rng.normal<float>(), 0.5f + rng.uniform<float>()});
    }
    binned = tree::bin(tree::make_dataset(x), max_bin);
  }
};

GradientSum<double> sum_of(const Problem& p, const std::vector<std::int32_t>& rows) {
  GradientSum<double> s;
  for (const std::int32_t r : rows) {
    s.g += static_cast<double>(p.gradients[static_cast<std::size_t>(r)].g);
    s.h += static_cast<double>(p.gradients[static_cast<std::size_t>(r)].h);
  }
  return s;
}

double split_gain(const Problem& p, const std::vector<std::int32_t>& rows, std::int32_t feature,
                  double threshold, bool default_left, const tree::SplitOptions& o) {
  std::vector<std::int32_t> side[2];
  for (const std::int32_t r : rows) {
    const float v = p.x(r, feature);
    const bool left = std::isnan(v) ? default_left : static_cast<double>(v) < threshold;
    side[left ? 0 : 1].push_back(r);
  }
  const GradientSum<double> l = sum_of(p, side[0]), r = sum_of(p, side[1]);
  if (l.h < o.min_child_weight || r.h < o.min_child_weight || side[0].empty() || side[1].empty())
    return -1e300;
  return tree::node_score(l, o) + tree::node_score(r, o) - tree::node_score(sum_of(p, rows), o);
}

/// The best gain over all features, cuts and directions.
double best_gain(const Problem& p, const std::vector<std::int32_t>& rows,
                 const tree::SplitOptions& o) {
  double best = -1e300;
  for (std::int32_t f = 0; f < p.binned.features(); ++f) {
    std::vector<double> thresholds = {static_cast<double>(std::numeric_limits<float>::max())};
    for (std::int32_t b = 1; b < p.binned.cuts.bins(f); ++b)
      thresholds.push_back(p.binned.cuts.cut(f, b));
    for (const double t : thresholds) {
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
  for (const std::int32_t r : rows) {
    const float v = p.x(r, n.feature);
    side[tree.next(n, static_cast<double>(v), std::isnan(v)) == n.left ? 0 : 1].push_back(r);
  }
  check_node(p, tree, n.left, side[0], o, depth + 1);
  check_node(p, tree, n.right, side[1], o, depth + 1);
}

std::vector<std::int32_t> all_rows(const Problem& p) {
  std::vector<std::int32_t> rows;
  for (std::int32_t r = 0; r < p.x.rows(); ++r) rows.push_back(r);
  return rows;
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
  for (const auto policy : {tree::GrowPolicy::depthwise, tree::GrowPolicy::lossguide}) {
    tree::GrowOptions o;
    o.policy = policy;
    o.max_leaves = 40;
    o.max_depth = 8;
    std::vector<tree::Tree> trees;
    for (const int threads : {1, 2, 3}) {
      o.threads = threads;
      tree::Grower grower(p.binned, o);
      trees.push_back(grower.grow(p.gradients, {}, 0));
      trees.push_back(grower.grow(p.gradients, {}, 0));  // memory is used again
    }
    EXPECT_EQ(trees[0].leaves(), 40);
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
  for (const int sign : {-1, 1}) {
    tree::GrowOptions o;
    o.monotone = {static_cast<std::int8_t>(sign), 0, 0};
    tree::Grower grower(p.binned, o);
    const tree::Tree tree = grower.grow(p.gradients, {}, 0);
    EXPECT_GT(tree.leaves(), 4);
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
