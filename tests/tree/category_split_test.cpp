// SPDX-License-Identifier: Apache-2.0

/// \file
/// Categorical splits, seen in the trees that they make: every node against all sets that the rule
/// allows.

#include "quern/tree/category_split.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/grow.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::category_split {
namespace {

using tree::GradientSum;
using Rows = std::vector<std::int32_t>;

/// Two categorical features (the second with missing values) and a numeric one.
struct Problem {
  Eigen::MatrixXf x;
  std::vector<tree::GradientPair> gradients;
  tree::Dataset data;
  tree::BinnedMatrix binned;

  Problem(std::int64_t rows, int categories, std::uint64_t seed) : x(rows, 3) {
    Philox rng(seed, "category test");
    for (std::int64_t i = 0; i < rows; ++i) {
      const auto draw = [&] {
        const auto n = static_cast<std::uint64_t>(categories);
        return static_cast<float>(3 * std::min(rng.integer(n), rng.integer(n)));  // some are rare
      };
      x(i, 0) = draw();
      x(i, 1) = rng.bernoulli(0.2) ? std::numeric_limits<float>::quiet_NaN() : draw();
      x(i, 2) = rng.normal<float>();
      const float g = std::sin(7 * x(i, 0)) + (std::isnan(x(i, 1)) ? 1.0f : std::cos(5 * x(i, 1)));
      gradients.push_back(
          {g * x(i, 2) + g + 0.5f * rng.normal<float>(), 0.5f + rng.uniform<float>()});
    }
    data = tree::make_dataset(x);
    data.feature_kinds = {tree::FeatureKind::categorical, tree::FeatureKind::categorical,
                          tree::FeatureKind::numeric};
    binned = tree::bin(data, 16);
  }
};

GradientSum<double> sum_of(const Problem& p, const Rows& rows) {
  GradientSum<double> s;
  for (const std::int32_t r : rows) {
    s.g += static_cast<double>(p.gradients[static_cast<std::size_t>(r)].g);
    s.h += static_cast<double>(p.gradients[static_cast<std::size_t>(r)].h);
  }
  return s;
}

/// Gain of sending right what goes_right(value) says, missing as told; 0 where not allowed.
template <class F>
double gain_of(const Problem& p, const Rows& rows, std::int32_t f, bool missing_left,
               const tree::SplitOptions& o, const F& goes_right) {
  Rows side[2];
  for (const std::int32_t r : rows) {
    const float v = p.x(r, f);
    side[(std::isnan(v) ? !missing_left : goes_right(v)) ? 1 : 0].push_back(r);
  }
  const GradientSum<double> l = sum_of(p, side[0]), r = sum_of(p, side[1]);
  if (side[0].empty() || side[1].empty() || l.h < o.min_child_weight || r.h < o.min_child_weight)
    return 0;
  return tree::node_score(l, o) + tree::node_score(r, o) - tree::node_score(sum_of(p, rows), o);
}

/// Kept categories of the node in order of G / (H + lambda).
std::vector<float> sorted_categories(const Problem& p, const Rows& rows, std::int32_t f,
                                     const tree::SplitOptions& o) {
  std::map<float, Rows> by_category;
  for (const std::int32_t r : rows)
    if (!std::isnan(p.x(r, f))) by_category[p.x(r, f)].push_back(r);
  std::vector<std::pair<double, float>> keyed;
  for (const auto& [category, members] : by_category) {
    const tree::Cuts& cuts = p.binned.cuts;
    bool kept = false;
    for (std::int32_t b = 1; b < cuts.bins(f); ++b)
      kept |= static_cast<float>(cuts.category(f, b)) == category;
    const GradientSum<double> s = sum_of(p, members);
    if (kept) keyed.emplace_back(s.g / (s.h + o.reg_lambda), category);
  }
  std::sort(keyed.begin(), keyed.end());
  std::vector<float> order;
  for (const auto& [key, category] : keyed) order.push_back(category);
  return order;
}

/// The best gain of a categorical feature by trying everything that the rule allows.
double best_of_feature(const Problem& p, const Rows& rows, std::int32_t f,
                       const tree::GrowOptions& o) {
  const std::vector<float> order = sorted_categories(p, rows, f, o.split);
  const std::size_t count = order.size();
  std::vector<std::set<float>> sets;
  if (p.binned.cuts.bins(f) - 1 < o.max_cat_to_onehot) {
    for (const float category : order) sets.push_back({category});
  } else {
    const auto longest = static_cast<std::size_t>(o.max_cat_threshold);
    for (std::size_t n = 1; n <= std::min(count, longest); ++n) {
      sets.emplace_back(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n));
      sets.emplace_back(order.end() - static_cast<std::ptrdiff_t>(n), order.end());
    }
  }
  double best = 0;
  for (const std::set<float>& set : sets)
    for (const bool left : {false, true})
      best = std::max(
          best, gain_of(p, rows, f, left, o.split, [&](float v) { return set.count(v) != 0; }));
  return best;
}

double best_gain(const Problem& p, const Rows& rows, const tree::GrowOptions& o) {
  double best = std::max(best_of_feature(p, rows, 0, o), best_of_feature(p, rows, 1, o));
  for (std::int32_t b = 1; b < p.binned.cuts.bins(2); ++b)
    best = std::max(best, gain_of(p, rows, 2, false, o.split, [&](float v) {
                      return static_cast<double>(v) >= p.binned.cuts.cut(2, b);
                    }));
  return best;
}

void check_node(const Problem& p, const tree::Tree& t, std::int32_t i, const Rows& rows,
                const tree::GrowOptions& o, int depth, int* categorical) {
  const tree::Node& n = t.node(i);
  const GradientSum<double> sum = sum_of(p, rows);
  EXPECT_NEAR(n.cover, sum.h, 1e-6 * sum.h);
  EXPECT_NEAR(n.value, o.learning_rate * tree::leaf_weight(sum, o.split), 1e-6);
  const double best = depth < o.max_depth ? best_gain(p, rows, o) : 0;
  const double slack = 1e-3 * (1 + best);
  if (n.is_leaf()) {
    EXPECT_LE(best, o.split.gamma + slack);
    return;
  }
  *categorical += n.kind == tree::SplitKind::categorical ? 1 : 0;
  const double gain = gain_of(p, rows, n.feature, n.default_left, o.split, [&](float v) {
    return t.next(n, static_cast<double>(v), false) == n.right;
  });
  EXPECT_NEAR(n.gain, gain, 1e-6 * (1 + gain));
  EXPECT_GE(gain, best - slack) << "node " << i;
  Rows side[2];
  for (const std::int32_t r : rows) {
    const float v = p.x(r, n.feature);
    side[t.next(n, static_cast<double>(v), std::isnan(v)) == n.left ? 0 : 1].push_back(r);
  }
  check_node(p, t, n.left, side[0], o, depth + 1, categorical);
  check_node(p, t, n.right, side[1], o, depth + 1, categorical);
}

Rows all_rows(const Problem& p) {
  Rows rows;
  for (std::int32_t r = 0; r < p.x.rows(); ++r) rows.push_back(r);
  return rows;
}

TEST(CategorySplit, EveryNodeHasTheBestSet) {
  for (const int categories : {2, 3, 4, 9, 40, 300}) {
    for (const std::int32_t longest : {64, 3}) {
      const Problem p(1500, categories, static_cast<std::uint64_t>(categories));
      tree::GrowOptions o;
      o.max_depth = 4;
      o.max_cat_threshold = longest;
      o.split.gamma = 0.1;
      tree::Grower grower(p.binned, o);
      const tree::Tree t = grower.grow(p.gradients, {}, 0);
      t.check(3, "tree");
      int categorical = 0;
      check_node(p, t, 0, all_rows(p), o, 0, &categorical);
      EXPECT_GT(categorical, 1) << categories;
    }
  }
}

TEST(CategorySplit, FewCategoriesAreTriedOneByOne) {
  const Problem p(800, 9, 5);
  tree::GrowOptions o;
  o.max_cat_to_onehot = 10;
  const tree::Tree t = tree::Grower(p.binned, o).grow(p.gradients, {}, 0);
  int categorical = 0;
  check_node(p, t, 0, all_rows(p), o, 0, &categorical);
  EXPECT_GT(categorical, 3);
  for (const tree::Node& n : t.nodes) {
    if (n.is_leaf() || n.kind != tree::SplitKind::categorical) continue;
    int members = 0;
    for (std::uint32_t c = 0; c < 64; ++c) members += t.in_category_set(n, c) ? 1 : 0;
    EXPECT_EQ(members, 1);
  }
}

TEST(CategorySplit, WhatWasNeverSeenOrIsRareGoesLeft) {
  const Problem p(20000, 400, 6);
  EXPECT_EQ(p.binned.cuts.bins(0), 255);
  tree::GrowOptions o;
  o.max_depth = 3;
  const tree::Tree t = tree::Grower(p.binned, o).grow(p.gradients, {}, 0);
  int seen = 0;
  for (const tree::Node& n : t.nodes) {
    if (n.is_leaf() || n.kind != tree::SplitKind::categorical) continue;
    ++seen;
    std::set<std::uint32_t> kept;
    for (std::int32_t b = 1; b < 255; ++b) kept.insert(p.binned.cuts.category(n.feature, b));
    for (std::uint32_t c = 0; c < 3000; ++c) {
      if (kept.count(c) == 0) {
        EXPECT_EQ(t.next(n, c, false), n.left) << c;
      }
    }
    EXPECT_EQ(t.next(n, -1, false), n.left);
    EXPECT_EQ(t.next(n, 0, true), n.default_left ? n.left : n.right);
  }
  EXPECT_GT(seen, 0);
}

TEST(CategorySplit, TheSameTreeForAnyLayoutThreadsAndPolicy) {
  const Problem p(3000, 30, 7);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<float> values;
  for (std::int64_t i = 0; i < p.x.rows(); ++i) {
    for (std::int32_t j = 0; j < 3; ++j) {
      if (std::isnan(p.x(i, j))) continue;
      columns.push_back(j);
      values.push_back(p.x(i, j));
    }
    offsets.push_back(static_cast<std::int64_t>(values.size()));
  }
  tree::Dataset sparse = tree::make_dataset(tree::CsrView<float>{offsets, columns, values, 3});
  sparse.feature_kinds = p.data.feature_kinds;
  const tree::BinnedMatrix csr = tree::bin(sparse, 16);
  EXPECT_EQ(csr.cuts.values, p.binned.cuts.values);
  for (const auto policy :
       {tree::GrowPolicy::depthwise, tree::GrowPolicy::lossguide, tree::GrowPolicy::symmetric}) {
    tree::GrowOptions o;
    o.policy = policy;
    o.threads = 1;
    const tree::Tree first = tree::Grower(p.binned, o).grow(p.gradients, {}, 0);
    first.check(3, "tree");
    EXPECT_FALSE(first.category_words.empty());
    for (const int threads : {1, 2, 3}) {
      o.threads = threads;
      for (const tree::BinnedMatrix* m : {&p.binned, &csr}) {
        const tree::Tree t = tree::Grower(*m, o).grow(p.gradients, {}, 0);
        ASSERT_EQ(t.size(), first.size());
        EXPECT_EQ(t.category_words, first.category_words);
        for (std::int32_t i = 0; i < t.size(); ++i) {
          EXPECT_EQ(t.node(i).value, first.node(i).value);
          EXPECT_EQ(t.node(i).feature, first.node(i).feature);
        }
      }
    }
  }
}

TEST(CategorySplit, NoCategoryIsRefusedByName) {
  for (const float bad : {-1.0f, 1.5f, 16777216.0f}) {
    Eigen::MatrixXf x = Eigen::MatrixXf::Zero(4, 2);
    x(2, 1) = bad;
    tree::Dataset data = tree::make_dataset(x);
    data.feature_kinds = {tree::FeatureKind::numeric, tree::FeatureKind::categorical};
    try {
      (void)tree::bin(data, 16);
      FAIL() << bad;
    } catch (const ValueError& e) {
      EXPECT_NE(std::string(e.what()).find("row 2, column 1"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace quern::test::category_split
