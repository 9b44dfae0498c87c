// SPDX-License-Identifier: Apache-2.0

/// \file
/// Exact greedy trees: XGBoost's on a tiny table, and every node against all splits there are.

#include "quern/tree/exact.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/eigen_dataset.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "../boosting/reference.hpp"

namespace quern::test::exact {
namespace {

using tree::GradientPair;
using tree::GradientSum;
using Rows = std::vector<std::int32_t>;
using RowMajor = Eigen::Matrix<float, -1, -1, Eigen::RowMajor>;

struct Problem {
  RowMajor x;
  std::vector<GradientPair> gradients;
};

/// A split of some rows, in the order in which they are compared.
struct Choice {
  std::int32_t feature;
  double threshold;
  bool default_left;
  double gain;
};

GradientSum<double> sum_of(const Problem& p, const Rows& rows) {
  GradientSum<double> s;
  for (const std::int32_t r : rows) {
    s.g += static_cast<double>(p.gradients[static_cast<std::size_t>(r)].g);
    s.h += static_cast<double>(p.gradients[static_cast<std::size_t>(r)].h);
  }
  return s;
}

double split_gain(const Problem& p, const Rows& rows, std::int32_t f, double threshold, bool left,
                  const tree::SplitOptions& o) {
  Rows side[2];
  for (const std::int32_t r : rows) {
    const float v = p.x(r, f);
    side[(std::isnan(v) ? left : static_cast<double>(v) < threshold) ? 0 : 1].push_back(r);
  }
  const GradientSum<double> l = sum_of(p, side[0]), r = sum_of(p, side[1]);
  if (side[0].empty() || side[1].empty() || l.h < o.min_child_weight || r.h < o.min_child_weight)
    return -1e300;
  return tree::node_score(l, o) + tree::node_score(r, o) - tree::node_score(sum_of(p, rows), o);
}

/// Every split between neighbouring values, and of all values from the missing ones.
std::vector<Choice> all_splits(const Problem& p, const Rows& rows, const tree::SplitOptions& o) {
  std::vector<Choice> found;
  for (std::int32_t f = 0; f < p.x.cols(); ++f) {
    std::vector<float> values;
    for (const std::int32_t r : rows)
      if (!std::isnan(p.x(r, f))) values.push_back(p.x(r, f));
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float t = i + 1 < values.size() ? (values[i] + values[i + 1]) * 0.5f : 1e30f;
      for (const bool left : {false, true}) {
        const double gain = split_gain(p, rows, f, static_cast<double>(t), left, o);
        if (gain > -1e299) found.push_back({f, static_cast<double>(t), left, gain});
      }
    }
  }
  return found;
}

Rows all_rows(const Problem& p) {
  Rows rows;
  for (std::int32_t r = 0; r < p.x.rows(); ++r) rows.push_back(r);
  return rows;
}

Problem tiny(const ReferenceText& reference) {
  Problem p;
  const std::vector<float> x = reference.floats("x");
  p.x = Eigen::Map<const RowMajor>(x.data(), 20, 3);
  for (const float y : reference.floats("y")) p.gradients.push_back({0.5f - y, 1});
  return p;
}

tree::GrowOptions setting(const std::vector<double>& numbers) {
  tree::GrowOptions o;
  o.learning_rate = 1;
  o.split.reg_lambda = numbers[0];
  o.split.gamma = numbers[1];
  o.split.min_child_weight = numbers[2];
  o.max_depth = static_cast<std::int32_t>(numbers[3]);
  return o;
}

/// Compares node \p i and those below with the reference's nodes from \p at, in preorder.
void check_tree(const Problem& p, const tree::Tree& t, std::int32_t i,
                const std::vector<double>& nodes, std::size_t& at) {
  const double* const expected = nodes.data() + 6 * at++;
  const tree::Node& n = t.node(i);
  EXPECT_NEAR(n.cover, expected[4], 1e-5);
  ASSERT_EQ(n.is_leaf(), expected[0] < 0) << "node " << i;
  if (n.is_leaf()) {
    EXPECT_NEAR(n.value, expected[5], 1e-6);
    return;
  }
  EXPECT_EQ(n.feature, static_cast<std::int32_t>(expected[0]));
  EXPECT_EQ(n.threshold, static_cast<double>(static_cast<float>(expected[1])));
  EXPECT_NEAR(n.gain, expected[3], 1e-5 * expected[3]);
  EXPECT_EQ(n.default_left, expected[2] != 0) << "node " << i;
  check_tree(p, t, n.left, nodes, at);
  check_tree(p, t, n.right, nodes, at);
}

TEST(Exact, EqualsXGBoostOnATinyTable) {
  const ReferenceText reference("exact.txt");
  const Problem p = tiny(reference);
  for (const std::string k : {"0", "1", "2", "3"}) {
    SCOPED_TRACE("setting " + k);
    tree::GrowOptions o = setting(reference[k + ".options"]);
    tree::ExactGrower grower(tree::make_dataset(p.x).features, o);
    const tree::Tree t = grower.grow(p.gradients, {}, 0);
    t.check(3, "tree");
    std::size_t at = 0;
    check_tree(p, t, 0, reference[k + ".tree"], at);
    EXPECT_EQ(6 * at, reference[k + ".tree"].size());
    const std::vector<double>& margins = reference[k + ".margin"];
    grower.partition().for_each_row(grower.leaf_ranges(), [&](std::size_t leaf, std::int64_t row) {
      EXPECT_NEAR(0.5 + t.node(grower.leaf_nodes()[leaf]).value,
                  margins[static_cast<std::size_t>(row)], 1e-5);
    });
  }
}

/// Whether node \p i and those below split as the reference's nodes from \p at, in preorder.
bool same_splits(const tree::Tree& t, std::int32_t i, const std::vector<double>& nodes,
                 std::size_t& at) {
  if (6 * at >= nodes.size()) return false;
  const double* const expected = nodes.data() + 6 * at++;
  const tree::Node& n = t.node(i);
  if (n.is_leaf() || expected[0] < 0) {
    return n.is_leaf() && expected[0] < 0 && std::fabs(n.value - expected[5]) <= 1e-6;
  }
  return n.feature == static_cast<std::int32_t>(expected[0]) &&
         n.threshold == static_cast<double>(static_cast<float>(expected[1])) &&
         n.default_left == (expected[2] != 0) && same_splits(t, n.left, nodes, at) &&
         same_splits(t, n.right, nodes, at);
}

TEST(Exact, BoundedWeightsSplitAsXGBoosts) {
  const ReferenceText reference("exact_bounded.txt");
  int apart = 0;  // scores in double: 12
  for (int table = 0; table < 24; ++table) {
    const std::string k = std::to_string(table);
    const std::vector<float> x = reference.floats(k + ".x");
    Problem p;
    p.x = Eigen::Map<const RowMajor>(x.data(), 40, 3);
    for (const float y : reference.floats(k + ".y")) p.gradients.push_back({0.5f - y, 1});
    tree::GrowOptions o;
    o.learning_rate = 1;
    o.split.reg_lambda = 0;
    o.split.max_delta_step = reference[k + ".options"][0];
    o.max_depth = static_cast<std::int32_t>(reference[k + ".options"][1]);
    tree::ExactGrower grower(tree::make_dataset(p.x).features, o);
    const tree::Tree t = grower.grow(p.gradients, {}, 0);
    std::size_t at = 0;
    if (!same_splits(t, 0, reference[k + ".tree"], at)) ++apart;
  }
  EXPECT_LE(apart, 7);
}

TEST(Exact, TheBestRootSplitsAreTheReferences) {
  const ReferenceText reference("exact.txt");
  const Problem p = tiny(reference);
  for (const std::string k : {"0", "1", "2", "3"}) {
    tree::GrowOptions o = setting(reference[k + ".options"]);
    std::vector<Choice> splits = all_splits(p, all_rows(p), o.split);
    std::stable_sort(splits.begin(), splits.end(), [](const Choice& a, const Choice& b) {
      return a.gain > b.gain + 1e-9 * std::fabs(b.gain);
    });
    // Where nothing is missing both directions are the same split.
    std::vector<Choice> distinct;
    for (const Choice& c : splits) {
      const bool same = !distinct.empty() && distinct.back().feature == c.feature &&
                        distinct.back().threshold == c.threshold &&
                        std::fabs(distinct.back().gain - c.gain) < 1e-9;
      if (!same) distinct.push_back(c);
    }
    const std::vector<double>& best = reference[k + ".best"];
    for (std::size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(distinct[i].feature, static_cast<std::int32_t>(best[4 * i]));
      EXPECT_EQ(distinct[i].threshold, best[4 * i + 1]);
      EXPECT_NEAR(distinct[i].gain, best[4 * i + 3], 1e-5 * best[4 * i + 3]);
    }
    o.max_depth = 1;
    o.split.gamma = 0;
    tree::ExactGrower grower(tree::make_dataset(p.x).features, o);
    const tree::Tree root = grower.grow(p.gradients, {}, 0);
    EXPECT_EQ(root.node(0).feature, static_cast<std::int32_t>(best[0]));
    EXPECT_EQ(root.node(0).threshold, best[1]);
    EXPECT_NEAR(root.node(0).gain, best[3], 1e-5 * best[3]);
  }
}

Problem random_problem(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  Philox rng(seed, "exact test");
  Problem p;
  p.x.resize(rows, cols);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      float v = rng.normal<float>();
      if (j % 3 == 1) v = std::round(v);
      if (j % 3 == 2 && rng.bernoulli(0.3)) v = std::numeric_limits<float>::quiet_NaN();
      p.x(i, j) = v;
    }
    const float y = p.x(i, 0) * (cols > 1 ? p.x(i, 1) : 1.0f);
    p.gradients.push_back({y + rng.normal<float>(), 0.5f + rng.uniform<float>()});
  }
  return p;
}

void check_node(const Problem& p, const tree::Tree& t, std::int32_t i, const Rows& rows,
                const tree::GrowOptions& o, int depth) {
  const tree::Node& n = t.node(i);
  const GradientSum<double> sum = sum_of(p, rows);
  EXPECT_NEAR(n.cover, sum.h, 1e-9 * (1 + sum.h));
  EXPECT_NEAR(n.value, o.learning_rate * tree::leaf_weight(sum, o.split), 1e-9);
  if (n.is_leaf() && depth >= o.max_depth) return;
  double best = 0;
  for (const Choice& c : all_splits(p, rows, o.split)) best = std::max(best, c.gain);
  if (n.is_leaf()) {
    EXPECT_LE(best, std::max(1e-5, o.split.gamma) + 1e-5);
    return;
  }
  const double gain = split_gain(p, rows, n.feature, n.threshold, n.default_left, o.split);
  EXPECT_NEAR(n.gain, gain, 1e-9 * (1 + gain));
  EXPECT_NEAR(gain, best, 1e-5 * (1 + best)) << "node " << i;
  Rows side[2];
  for (const std::int32_t r : rows) {
    const float v = p.x(r, n.feature);
    side[t.next(n, static_cast<double>(v), std::isnan(v)) == n.left ? 0 : 1].push_back(r);
  }
  check_node(p, t, n.left, side[0], o, depth + 1);
  check_node(p, t, n.right, side[1], o, depth + 1);
}

TEST(Exact, EveryNodeHasTheBestSplitThereIs) {
  for (const std::int64_t rows : {1, 2, 3, 10, 97, 400}) {
    for (const std::int64_t cols : {1, 3, 7}) {
      const Problem p = random_problem(rows, cols, static_cast<std::uint64_t>(rows * 10 + cols));
      tree::GrowOptions o;
      o.max_depth = 4;
      o.split.reg_alpha = 0.2;
      o.learning_rate = 0.5;
      tree::ExactGrower grower(tree::make_dataset(p.x).features, o);
      const tree::Tree t = grower.grow(p.gradients, {}, 0);
      t.check(cols, "exact tree");
      check_node(p, t, 0, all_rows(p), o, 0);
    }
  }
}

TEST(Exact, PrunesFromBelow) {
  const Problem p = random_problem(300, 5, 8);
  tree::GrowOptions o;
  o.max_depth = 6;
  tree::ExactGrower whole(tree::make_dataset(p.x).features, o);
  const tree::Tree big = whole.grow(p.gradients, {}, 0);
  o.split.gamma = 6;
  tree::ExactGrower pruned(tree::make_dataset(p.x).features, o);
  const tree::Tree t = pruned.grow(p.gradients, {}, 0);
  t.check(5, "pruned tree");
  EXPECT_LT(t.leaves(), big.leaves());
  EXPECT_GT(t.leaves(), 2);
  for (std::int32_t i = 0; i < t.size(); ++i) {
    const tree::Node& n = t.node(i);
    if (n.is_leaf()) continue;
    const bool last = t.node(n.left).is_leaf() && t.node(n.right).is_leaf();
    if (last) {  // a weak split may stay above a strong one
      EXPECT_GE(n.gain, o.split.gamma - 1e-4);
    }
    EXPECT_EQ(n.threshold, big.node(i).threshold);
  }
  std::int64_t rows = 0;
  for (const tree::RowRange& r : pruned.leaf_ranges()) rows += r.size();
  EXPECT_EQ(rows, 300);
}

TEST(Exact, TheSameBitsForAnyThreadsAndLayout) {
  const Problem p = random_problem(500, 7, 9);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<float> values;
  for (std::int64_t i = 0; i < p.x.rows(); ++i) {
    for (std::int32_t j = 0; j < 7; ++j) {
      if (std::isnan(p.x(i, j))) continue;
      columns.push_back(j);
      values.push_back(p.x(i, j));
    }
    offsets.push_back(static_cast<std::int64_t>(values.size()));
  }
  const tree::Dataset dense = tree::make_dataset(p.x);
  const tree::Dataset sparse =
      tree::make_dataset(tree::CsrView<float>{offsets, columns, values, 7});
  tree::GrowOptions o;
  o.columns = {0.8, 0.8, 0.8};
  o.monotone = {1, 0, -1, 0, 0, 0, 0};
  o.interaction = {{0, 1, 2, 3}, {3, 4, 5, 6}};
  o.threads = 1;
  const std::vector<std::int32_t> sample = {0, 5, 6, 7, 20, 21, 22, 100, 101, 102, 300, 400, 401};
  for (const bool sampled : {false, true}) {
    const std::span<const std::int32_t> rows =
        sampled ? std::span<const std::int32_t>(sample) : std::span<const std::int32_t>();
    const tree::Tree first = tree::ExactGrower(dense.features, o).grow(p.gradients, rows, 3);
    EXPECT_GT(first.leaves(), 2);
    for (const int threads : {1, 2, 3}) {
      o.threads = threads;
      for (const tree::Dataset* data : {&dense, &sparse}) {
        tree::ExactGrower grower(data->features, o);
        (void)grower.grow(p.gradients, {}, 9);  // memory is used again
        const tree::Tree t = grower.grow(p.gradients, rows, 3);
        ASSERT_EQ(t.size(), first.size());
        for (std::int32_t i = 0; i < t.size(); ++i) {
          EXPECT_EQ(t.node(i).value, first.node(i).value);
          EXPECT_EQ(t.node(i).threshold, first.node(i).threshold);
          EXPECT_EQ(t.node(i).feature, first.node(i).feature);
        }
        std::int64_t seen = 0;
        for (const tree::RowRange& r : grower.leaf_ranges()) seen += r.size();
        EXPECT_EQ(seen, sampled ? 13 : 500);
      }
    }
  }
}

TEST(Exact, RefusesWhatItDoesNotDo) {
  Problem p = random_problem(5, 2, 1);
  const auto make = [&](tree::GrowOptions o) {
    tree::ExactGrower grower(tree::make_dataset(p.x).features, o);
  };
  tree::GrowOptions o;
  o.policy = tree::GrowPolicy::lossguide;
  EXPECT_THROW(make(o), ValueError);
  o.policy = tree::GrowPolicy::depthwise;
  o.max_leaves = 3;
  EXPECT_THROW(make(o), ValueError);
  o.max_leaves = 0;
  make(o);
  p.x(3, 1) = std::numeric_limits<float>::infinity();
  EXPECT_THROW(make(o), ValueError);
}

}  // namespace
}  // namespace quern::test::exact
