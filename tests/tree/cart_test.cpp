// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/cart.hpp"

#include "quern/tree/cart_columns.hpp"
#include "quern/tree/cart_prune.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace quern::test::cart {
namespace {

using tree::CartColumns;
using tree::CartGrowth;
using tree::CartNode;
using tree::CartOptions;
using tree::Criterion;

constexpr float none = std::numeric_limits<float>::quiet_NaN();

struct Table {
  std::int64_t rows, cols;
  std::vector<float> x;
  std::vector<std::int32_t> labels;
  std::vector<float> y;
  [[nodiscard]] float at(std::size_t r, std::size_t f) const {
    return x[r * static_cast<std::size_t>(cols) + f];
  }
  [[nodiscard]] MatrixView<const float> view() const {
    return MatrixView<const float>(x.data(), {rows, cols});
  }
};

/// Columns of \p values different values each (0: as many as rows), some of them missing.
Table table(std::int64_t rows, std::int64_t cols, int values, double missing, std::uint64_t seed) {
  Philox rng(seed, "cart test");
  Table t{rows, cols, {}, {}, {}};
  for (std::int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (std::int64_t f = 0; f < cols; ++f) {
      const double u = rng.uniform();
      const double v = values > 0 ? std::floor(u * values) - 2 : u;
      sum += v * static_cast<double>(f % 3);
      t.x.push_back(rng.uniform() < missing ? none : static_cast<float>(v));
    }
    t.labels.push_back(static_cast<std::int32_t>(std::abs(sum * 3 + rng.normal())) % 4);
    t.y.push_back(static_cast<float>(sum + rng.normal()));
  }
  return t;
}

double log2_of(double p) { return p > 0 ? p * std::log2(p) : 0.0; }

/// Weight times impurity of some rows, as the textbook has it.
double cost(const Table& t, const std::vector<double>& w, const std::vector<std::size_t>& rows,
            Criterion criterion) {
  double weight = 0, mean = 0;
  std::vector<double> counts(4, 0.0);
  for (const std::size_t r : rows) {
    weight += w[r];
    mean += w[r] * static_cast<double>(t.y[r]);
    counts[static_cast<std::size_t>(t.labels[r])] += w[r];
  }
  if (weight == 0) return 0;
  double gini = 1, entropy = 0, squares = 0, deviation = (std::numeric_limits<double>::max)();
  for (const double c : counts) {
    gini -= c * c / weight / weight;
    entropy -= log2_of(c / weight);
  }
  for (const std::size_t r : rows) {
    const double d = static_cast<double>(t.y[r]) - mean / weight;
    squares += w[r] * d * d;
    if (criterion != Criterion::absolute_error) continue;
    double sum = 0;
    for (const std::size_t q : rows)
      sum += w[q] * std::abs(static_cast<double>(t.y[q]) - static_cast<double>(t.y[r]));
    deviation = (std::min)(deviation, sum);
  }
  if (criterion == Criterion::gini) return weight * gini;
  if (criterion == Criterion::entropy) return weight * entropy;
  return criterion == Criterion::squared_error ? squares : deviation;
}

std::vector<std::size_t> side(const Table& t, const std::vector<std::size_t>& rows, std::size_t f,
                              double threshold, bool missing_left, bool left) {
  std::vector<std::size_t> out;
  for (const std::size_t r : rows) {
    const float v = t.at(r, f);
    const bool goes_left = v != v ? missing_left : static_cast<double>(v) <= threshold;
    if (goes_left == left) out.push_back(r);
  }
  return out;
}

double weight_of(const std::vector<double>& w, const std::vector<std::size_t>& rows) {
  double sum = 0;
  for (const std::size_t r : rows) sum += w[r];
  return sum;
}

/// The least cost of two children that any split of the rows has; max where none is allowed.
double best_cost(const Table& t, const std::vector<double>& w, const std::vector<std::size_t>& rows,
                 const CartOptions& o, double least_weight) {
  double best = (std::numeric_limits<double>::max)();
  for (std::size_t f = 0; f < static_cast<std::size_t>(t.cols); ++f) {
    for (const std::size_t cut : rows) {
      if (t.at(cut, f) != t.at(cut, f)) continue;
      for (const bool missing_left : {false, true}) {
        const auto threshold = static_cast<double>(t.at(cut, f));
        const auto l = side(t, rows, f, threshold, missing_left, true);
        const auto r = side(t, rows, f, threshold, missing_left, false);
        const auto least = static_cast<std::size_t>(o.min_samples_leaf);
        if (l.size() < least || r.size() < least) continue;
        if (weight_of(w, l) < least_weight || weight_of(w, r) < least_weight) continue;
        best = (std::min)(best, cost(t, w, l, o.criterion) + cost(t, w, r, o.criterion));
      }
    }
  }
  return best;
}

/// Every node's numbers are those of its rows, and no split is better than its own.
void check_node(const Table& t, const std::vector<double>& w, const CartGrowth& tree,
                std::size_t node, const std::vector<std::size_t>& rows, const CartOptions& o,
                bool search) {
  const CartNode& n = tree.nodes[node];
  const double here = cost(t, w, rows, o.criterion);
  ASSERT_EQ(n.rows, static_cast<std::int64_t>(rows.size()));
  ASSERT_NEAR(n.weight, weight_of(w, rows), 1e-9 * n.weight);
  ASSERT_NEAR(n.impurity * n.weight, here, 1e-7 * (1 + here));
  const double least_weight = o.min_weight_fraction_leaf * tree.nodes[0].weight;
  const double best = search && rows.size() > 1 ? best_cost(t, w, rows, o, least_weight) : 0;
  if (n.left < 0) {
    const bool may = o.max_depth == 0 && search && here > 1e-9;
    if (may) {
      ASSERT_EQ(best, (std::numeric_limits<double>::max)()) << node;
    }
    return;
  }
  const auto f = static_cast<std::size_t>(n.feature);
  const auto l = side(t, rows, f, n.threshold, n.missing_left, true);
  const auto r = side(t, rows, f, n.threshold, n.missing_left, false);
  const double after = cost(t, w, l, o.criterion) + cost(t, w, r, o.criterion);
  if (search) {
    ASSERT_NEAR(after, best, 1e-7 * (1 + here)) << node;
  }
  ASSERT_NEAR(n.decrease, here - after, 1e-6 * (1 + here));
  check_node(t, w, tree, static_cast<std::size_t>(n.left), l, o, search);
  check_node(t, w, tree, static_cast<std::size_t>(n.left) + 1, r, o, search);
}

template <class Target>
CartGrowth grown(const Table& t, const Target& target, const std::vector<double>& w,
                 const CartOptions& o, int threads = 1) {
  const CartColumns columns(t.view());
  tree::detail::CartGrower<Target> grower(columns, target, o, threads);
  std::vector<typename Target::Weight> weights;
  for (const double v : w) weights.push_back(static_cast<typename Target::Weight>(v));
  CartGrowth out;
  grower.grow(weights, 5, out);
  return out;
}

CartGrowth grown(const Table& t, const std::vector<double>& w, const CartOptions& o, bool whole,
                 int threads = 1) {
  if (o.criterion == Criterion::squared_error)
    return grown(t, tree::detail::NumberTarget(t.y), w, o, threads);
  if (o.criterion == Criterion::absolute_error)
    return grown(t, tree::detail::MedianTarget(t.y), w, o, threads);
  if (whole)
    return grown(t, tree::detail::ClassTarget<std::uint32_t>(t.labels, 4, o.criterion), w, o,
                 threads);
  return grown(t, tree::detail::ClassTarget<double>(t.labels, 4, o.criterion), w, o, threads);
}

/// Weights 0, 1, 2 (some rows are not there), or any numbers.
std::vector<double> weights(std::int64_t rows, bool whole) {
  Philox rng(3, "weights");
  std::vector<double> w;
  for (std::int64_t r = 0; r < rows; ++r)
    w.push_back(whole ? static_cast<double>(rng.integer(3)) : rng.uniform());
  w[0] = 1;
  return w;
}

void check_tree(const Table& t, const CartOptions& o, bool whole, bool search = true) {
  const std::vector<double> w = weights(t.rows, whole);
  std::vector<std::size_t> rows;
  for (std::size_t r = 0; r < w.size(); ++r)
    if (w[r] > 0) rows.push_back(r);
  check_node(t, w, grown(t, w, o, whole), 0, rows, o, search);
}

TEST(Cart, NoSplitIsBetterThanItsOwn) {
  for (const Criterion criterion :
       {Criterion::gini, Criterion::entropy, Criterion::squared_error, Criterion::absolute_error}) {
    for (const bool whole : {true, false}) {
      for (const double missing : {0.0, 0.2}) {
        SCOPED_TRACE(static_cast<int>(criterion));
        const CartOptions o{.criterion = criterion};
        check_tree(table(60, 3, 7, missing, 1), o, whole);
        check_tree(table(40, 2, 0, missing, 2), o, whole);
      }
    }
  }
}

// More rows than few_rows and joined_rows of cart_search.hpp, bytes and wide codes.
TEST(Cart, EveryWayOfOrderingFindsTheSame) {
  for (const Criterion criterion : {Criterion::gini, Criterion::squared_error}) {
    for (const bool whole : {true, false}) {
      const CartOptions o{.criterion = criterion, .max_depth = 2};
      check_tree(table(420, 2, 9, 0.1, 3), o, whole);
      check_tree(table(800, 1, 0, 0.1, 4), o, whole);
    }
  }
}

TEST(Cart, KeepsToItsLimits) {
  const Table t = table(90, 3, 11, 0.1, 7);
  check_tree(t, {.min_samples_leaf = 7}, true);
  check_tree(t, {.criterion = Criterion::squared_error, .min_weight_fraction_leaf = 0.08}, false);
  const std::vector<double> w(90, 1.0);
  EXPECT_EQ(grown(t, w, {.max_leaf_nodes = 6}, true).nodes.size(), 11u);
  for (const CartNode& n : grown(t, w, {.min_samples_split = 30}, true).nodes)
    EXPECT_TRUE(n.left < 0 || n.rows >= 30);
  const CartGrowth stump = grown(t, w, {.max_depth = 1}, true);
  EXPECT_EQ(stump.nodes.size(), 3u);
  const double decrease = stump.nodes[0].decrease / 90;
  EXPECT_EQ(
      grown(t, w, {.max_depth = 1, .min_impurity_decrease = decrease * 1.01}, true).nodes.size(),
      1u);
}

TEST(Cart, RandomThresholdsPartAsTheySay) {
  for (const bool whole : {true, false}) {
    for (const int values : {9, 0}) {
      const CartOptions o{.splitter = tree::Splitter::random};
      check_tree(table(150, 4, values, 0.1, 9), o, whole, false);
      const CartOptions numbers{.criterion = Criterion::squared_error,
                                .splitter = tree::Splitter::random,
                                .max_features = tree::MaxFeatures::count(2)};
      check_tree(table(150, 4, values, 0.1, 9), numbers, whole, false);
    }
  }
}

// Rows that weigh 1 are counted by a kernel, others weighed by running sums.
TEST(Cart, RandomCutsOfEqualWeightsAreTheSame) {
  for (const int values : {9, 0}) {
    const Table t = table(700, 4, values, 0.0, 17);
    const CartOptions o{.splitter = tree::Splitter::random};
    const CartGrowth ones = grown(t, std::vector<double>(700, 1.0), o, true);
    const CartGrowth twos = grown(t, std::vector<double>(700, 2.0), o, true);
    ASSERT_EQ(ones.nodes.size(), twos.nodes.size());
    for (std::size_t i = 0; i < ones.nodes.size(); ++i) {
      EXPECT_EQ(ones.nodes[i].feature, twos.nodes[i].feature);
      EXPECT_EQ(ones.nodes[i].threshold, twos.nodes[i].threshold);
      EXPECT_EQ(ones.nodes[i].rows, twos.nodes[i].rows);
    }
    EXPECT_EQ(ones.values, twos.values);
  }
}

TEST(Cart, ThreadsDoNotMatter) {
  const Table t = table(30000, 5, 100, 0.05, 11);
  const std::vector<double> w = weights(30000, true);
  for (const tree::Splitter splitter : {tree::Splitter::best, tree::Splitter::random}) {
    const CartOptions o{
        .splitter = splitter, .max_depth = 6, .max_features = tree::MaxFeatures::share(0.8)};
    const CartGrowth one = grown(t, w, o, true, 1);
    for (const int threads : {2, 3}) {
      const CartGrowth more = grown(t, w, o, true, threads);
      ASSERT_EQ(one.nodes.size(), more.nodes.size());
      for (std::size_t i = 0; i < one.nodes.size(); ++i) {
        EXPECT_EQ(one.nodes[i].feature, more.nodes[i].feature);
        EXPECT_EQ(one.nodes[i].threshold, more.nodes[i].threshold);
      }
      EXPECT_EQ(one.values, more.values);
    }
  }
}

TEST(Cart, PruningEndsAtTheRoot) {
  const Table t = table(200, 3, 0, 0.0, 13);
  const CartGrowth whole = grown(t, std::vector<double>(200, 1.0), {}, true);
  const tree::PruningPath path = tree::pruning_path(whole);
  EXPECT_TRUE(std::is_sorted(path.ccp_alphas.begin(), path.ccp_alphas.end()));
  EXPECT_NEAR(path.impurities.back(), whole.nodes[0].impurity, 1e-12);
  EXPECT_EQ(tree::pruned(whole, path.ccp_alphas.back() + 1e-9).nodes.size(), 1u);
  const CartGrowth some = tree::pruned(whole, path.ccp_alphas[path.ccp_alphas.size() / 2]);
  EXPECT_LT(some.nodes.size(), whole.nodes.size());
  EXPECT_GT(some.nodes.size(), 1u);
  EXPECT_EQ(some.values.size(), some.nodes.size() * 4);
}

TEST(CartColumns, CodesAreRanks) {
  std::vector<float> x = {3, none, -0.0f, 0, 3, 7.5f};
  const CartColumns columns(MatrixView<const float>(x.data(), {6, 1}));
  ASSERT_TRUE(columns.bytes());
  const std::vector<std::uint8_t> expected = {1, 3, 0, 0, 1, 2};
  for (std::size_t r = 0; r < 6; ++r) {
    EXPECT_EQ(columns.column<std::uint8_t>(0)[r], expected[r]);
    EXPECT_EQ(columns.row(static_cast<std::int64_t>(r))[0], expected[r]);
  }
  EXPECT_EQ(columns.missing_code(0), 3u);
  EXPECT_EQ(columns.cut(0, 1, 2), 5.25);
}

TEST(CartColumns, TheLastCodeBelowIsFoundFromAnyGuess) {
  std::vector<float> x;
  for (int r = 0; r < 40; ++r) x.push_back(static_cast<float>(r * r));
  const CartColumns columns(MatrixView<const float>(x.data(), {40, 1}));
  for (const std::uint32_t first : {0U, 3U, 30U}) {
    for (const std::uint32_t last : {first, first + 1, first + 9}) {
      for (double at = -1; at < 1600; at += 7) {
        std::uint32_t expected = first;
        for (std::uint32_t c = first; c <= last; ++c)
          if (c * c <= at) expected = c;
        for (std::uint32_t guess = first; guess <= last; ++guess)
          ASSERT_EQ(columns.last_below(0, first, last, at, guess), expected) << first << ' ' << at;
      }
    }
  }
}

TEST(CartColumns, BytesHold256ValuesAndBinsHoldMore) {
  std::vector<float> x;
  for (int r = 0; r < 3000; ++r) x.push_back(static_cast<float>(r % 256) + 0.5f);
  EXPECT_TRUE(CartColumns(MatrixView<const float>(x.data(), {3000, 1})).bytes());
  x[0] = none;
  EXPECT_FALSE(CartColumns(MatrixView<const float>(x.data(), {3000, 1})).bytes());
  for (std::size_t r = 0; r < x.size(); ++r) x[r] = static_cast<float>(r % 2999) * 0.25f;
  const CartColumns wide(MatrixView<const float>(x.data(), {3000, 1}));
  ASSERT_FALSE(wide.bytes());
  EXPECT_EQ(wide.column<std::uint32_t>(0)[2998], 2998u);
  const CartColumns binned(MatrixView<const float>(x.data(), {3000, 1}), 16);
  ASSERT_TRUE(binned.bytes());
  std::vector<int> rows(16, 0);
  for (std::size_t r = 0; r < x.size(); ++r) {
    const std::uint8_t code = binned.column<std::uint8_t>(0)[r];
    ASSERT_LT(code, 16);
    ++rows[code];
    EXPECT_LE(binned.values(0, code).low, x[r]);
    EXPECT_GE(binned.values(0, code).high, x[r]);
  }
  for (const int n : rows) EXPECT_NEAR(n, 3000 / 16, 2);
}

TEST(CartColumns, RefusesWhatItCannotCode) {
  std::vector<float> x = {1, std::numeric_limits<float>::infinity()};
  EXPECT_THROW(CartColumns(MatrixView<const float>(x.data(), {2, 1})), ValueError);
  EXPECT_THROW(CartColumns(MatrixView<const float>(x.data(), {0, 1})), ShapeError);
  EXPECT_THROW(CartColumns(MatrixView<const float>(x.data(), {1, 1}), 256), ValueError);
}

TEST(CartOptions, NamesWhatIsWrong) {
  const auto refused = [](const CartOptions& o) { EXPECT_THROW(o.check("f"), ValueError); };
  refused({.max_depth = -1});
  refused({.min_samples_split = 1});
  refused({.min_samples_leaf = 0});
  refused({.min_weight_fraction_leaf = 0.6});
  refused({.min_impurity_decrease = -1});
  refused({.max_leaf_nodes = 1});
  refused({.ccp_alpha = std::numeric_limits<double>::quiet_NaN()});
  EXPECT_THROW((void)tree::MaxFeatures::count(5).of("f", 4), ValueError);
  EXPECT_THROW((void)tree::MaxFeatures::share(0).of("f", 4), ValueError);
  EXPECT_EQ(tree::MaxFeatures::sqrt().of("f", 784), 28);
  EXPECT_EQ(tree::MaxFeatures::log2().of("f", 784), 9);
  EXPECT_EQ(tree::MaxFeatures::share(0.01).of("f", 4), 1);
}

}  // namespace
}  // namespace quern::test::cart
