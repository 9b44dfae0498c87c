// SPDX-License-Identifier: Apache-2.0

/// \file
/// Shapley values against the definition, which takes a sum over all sets of features.

#include "quern/tree/shap.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/tree/predict.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "random_trees.hpp"

namespace quern::test::shap {
namespace {

/// Expected value of a tree when only the features of `known` are.
double expectation(const tree::Tree& tree, std::int32_t i, const double* row, unsigned known) {
  const tree::Node& n = tree.node(i);
  if (n.is_leaf()) return n.value;
  if (known >> n.feature & 1u) {
    const double x = row[n.feature];
    return expectation(tree, tree.next(n, is_nan_bits(x) ? 0 : x, is_nan_bits(x)), row, known);
  }
  const double left = tree.node(n.left).cover, right = tree.node(n.right).cover;
  const double share = left + right > 0 ? left / (left + right) : 0.5;
  return share * expectation(tree, n.left, row, known) +
         (1 - share) * expectation(tree, n.right, row, known);
}

double factorial(int n) { return std::tgamma(n + 1.0); }

/// By the definition: (features + 1), the mean last.
std::vector<double> naive_values(const tree::Tree& tree, const double* row, int features) {
  std::vector<double> phi(static_cast<std::size_t>(features) + 1, 0.0);
  for (int j = 0; j < features; ++j) {
    for (unsigned set = 0; set < 1u << features; ++set) {
      if (set >> j & 1u) continue;
      const int s = std::popcount(set);
      const double weight = factorial(s) * factorial(features - s - 1) / factorial(features);
      phi[static_cast<std::size_t>(j)] +=
          weight * (expectation(tree, 0, row, set | 1u << j) - expectation(tree, 0, row, set));
    }
  }
  phi.back() = expectation(tree, 0, row, 0);
  return phi;
}

/// Half of the Shapley interaction index of features i and j.
double naive_pair(const tree::Tree& tree, const double* row, int features, int i, int j) {
  double sum = 0;
  for (unsigned set = 0; set < 1u << features; ++set) {
    if ((set >> i & 1u) || (set >> j & 1u)) continue;
    const int s = std::popcount(set);
    const double weight =
        factorial(s) * factorial(features - s - 2) / (2 * factorial(features - 1));
    const unsigned a = 1u << i, b = 1u << j;
    sum += weight * (expectation(tree, 0, row, set | a | b) - expectation(tree, 0, row, set | a) -
                     expectation(tree, 0, row, set | b) + expectation(tree, 0, row, set));
  }
  return sum;
}

constexpr int features = 6;
constexpr double base = 0.25;

/// Covers of a tree that rows have passed through; leaf `zero` (by node) had none.
void set_covers(tree::Tree& tree, std::mt19937& random, std::int32_t zero = -1) {
  for (std::int32_t i = static_cast<std::int32_t>(tree.size()) - 1; i >= 0; --i) {
    tree::Node& n = tree.node(i);
    n.cover = i == zero     ? 0.0
              : n.is_leaf() ? 1.0 + static_cast<double>(random() % 20)
                            : tree.node(n.left).cover + tree.node(n.right).cover;
  }
}

/// Values and interactions of one tree are the definition's, at every SIMD level.
void expect_definition(const tree::Tree& tree, std::int64_t rows, std::uint32_t seed) {
  std::mt19937 random(seed);
  const std::vector<double> x = random_features<double>(rows * features, random);
  const tree::ShapForest forest({.trees = std::span(&tree, 1),
                                 .base = std::span(&base, 1),
                                 .features = features,
                                 .input_type = tree::InputType::float64});
  NdArray<double, 3> values({rows, 1, features + 1});
  NdArray<double, 4> pairs({rows, 1, features + 1, features + 1});
  const tree::FeatureView view = MatrixView<const double>(x.data(), {rows, features});
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    tree::shap_values(forest, view, values.view());
    tree::shap_interactions(forest, view, pairs.view());
    for (std::int64_t r = 0; r < rows; ++r) {
      const double* row = x.data() + r * features;
      std::vector<double> expected = naive_values(tree, row, features);
      expected.back() += base;
      for (int f = 0; f <= features; ++f) {
        ASSERT_NEAR(values(r, 0, f), expected[static_cast<std::size_t>(f)], 1e-12) << r << " " << f;
        double sum = 0;
        for (int g = 0; g <= features; ++g) {
          sum += pairs(r, 0, f, g);
          if (f == g) continue;
          const double pair =
              f == features || g == features ? 0.0 : naive_pair(tree, row, features, f, g);
          ASSERT_NEAR(pairs(r, 0, f, g), pair, 1e-12) << r << " " << f << " " << g;
        }
        ASSERT_NEAR(sum, expected[static_cast<std::size_t>(f)], 1e-12) << r << " " << f;
      }
    }
  }
}

TEST(Shap, IsTheDefinition) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 30; ++trial) {
    SCOPED_TRACE(trial);
    TreeShape shape;
    shape.features = 1 + trial % features;
    shape.leaves = 1 + trial % 16;
    shape.chain = trial % 4 == 3;
    shape.categorical = trial % 3 == 1 ? 0.3 : 0;
    tree::Tree tree = random_tree(shape, random);
    set_covers(tree, random);
    expect_definition(tree, 5, static_cast<std::uint32_t>(trial));
  }
}

TEST(Shap, OfOneLeafIsTheLeaf) {
  tree::Tree tree;
  tree.node(0).value = 3;
  expect_definition(tree, 3, 1);
}

TEST(Shap, NodesWithoutRowsShareAlike) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 10; ++trial) {
    TreeShape shape;
    shape.features = 2 + trial % 3;  // some are tested again below
    shape.leaves = 12;
    tree::Tree tree = random_tree(shape, random);
    set_covers(tree, random, tree.node(0).left + trial % 6);
    expect_definition(tree, 8, static_cast<std::uint32_t>(trial));
    for (tree::Node& n : tree.nodes) n.cover = 0;
    expect_definition(tree, 8, static_cast<std::uint32_t>(trial));
  }
}

TEST(Shap, HearsOfMissingRules) {
  std::mt19937 random(6);
  TreeShape shape;
  shape.leaves = 14;
  tree::Tree tree = random_tree(shape, random);
  set_covers(tree, random);
  for (std::size_t i = 0; i < tree.nodes.size(); ++i)
    tree.nodes[i].missing = static_cast<tree::MissingRule>(i % 3);
  expect_definition(tree, 30, 3);
}

/// Covers that fit, for all trees.
std::vector<tree::Tree> forest_trees(int count, TreeShape shape, std::mt19937& random) {
  std::vector<tree::Tree> trees = random_trees(count, shape, random);
  for (tree::Tree& tree : trees) set_covers(tree, random);
  return trees;
}

template <class T>
class ShapForestTest : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ShapForestTest, Scalars);

/// Deep trees, several outputs, vectors in leaves, weights: rows sum to the margin.
TYPED_TEST(ShapForestTest, RowsSumToTheMargin) {
  std::mt19937 random(7);
  const std::vector<double> bases = {0.5, -1, 2};
  for (const bool chain : {false, true}) {
    TreeShape shape;
    shape.leaves = chain ? 60 : 40;
    shape.features = 23;
    shape.chain = chain;
    shape.categorical = 0.1;
    std::vector<tree::Tree> trees = forest_trees(5, shape, random);
    shape.outputs = 3;
    trees.push_back(forest_trees(1, shape, random).front());
    const std::vector<std::int32_t> outputs = {0, 1, 2, 1, 1, 0};
    const std::vector<double> weights = {1, 0.5, -2, 1, 0.25, 0.75};
    const tree::ForestSource source = {.trees = trees,
                                       .tree_outputs = outputs,
                                       .tree_weights = weights,
                                       .base = bases,
                                       .features = 25,
                                       .input_type = tree::InputType::float64};
    const std::int64_t rows = 150;
    const std::vector<TypeParam> x = random_features<TypeParam>(rows * 25, random);
    const tree::FeatureView view = MatrixView<const TypeParam>(x.data(), {rows, 25});
    for (const std::int64_t used : {-1, 0, 3}) {
      NdArray<double, 2> margins({rows, 3});
      NdArray<double, 3> values({rows, 3, 26});
      tree::predict(tree::PackedForest(source), view, margins.view(), {.trees = used});
      tree::shap_values(tree::ShapForest(source), view, values.view(), {.trees = used});
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t k = 0; k < 3; ++k) {
          double sum = 0;
          for (std::int64_t f = 0; f < 26; ++f) sum += values(r, k, f);
          ASSERT_NEAR(sum, margins(r, k), 1e-11);
          ASSERT_EQ(values(r, k, 24), 0.0);
        }
      }
    }
  }
}

/// Threads, batches, layouts: the same bits.
TYPED_TEST(ShapForestTest, BitsAreTheRowsOwn) {
  std::mt19937 random(8);
  TreeShape shape;
  shape.leaves = 30;
  shape.features = 9;
  const std::vector<tree::Tree> trees = forest_trees(4, shape, random);
  const tree::ShapForest forest({.trees = trees, .base = std::span(&base, 1), .features = 9});
  const std::int64_t rows = 277;
  const std::vector<TypeParam> x = random_features<TypeParam>(rows * 9, random);
  const MatrixView<const TypeParam> dense(x.data(), {rows, 9});
  NdArray<double, 3> all({rows, 1, 10}), other({rows, 1, 10});
  NdArray<double, 4> pairs({rows, 1, 10, 10}), other_pairs({rows, 1, 10, 10});
  tree::shap_values(forest, dense, all.view(), {.threads = 1});
  tree::shap_interactions(forest, dense, pairs.view(), {.threads = 1});
  for (const int threads : {2, 3}) {
    tree::shap_values(forest, dense, other.view(), {.threads = threads});
    EXPECT_EQ(std::vector<double>(all.data(), all.data() + all.size()),
              std::vector<double>(other.data(), other.data() + other.size()));
    tree::shap_interactions(forest, dense, other_pairs.view(), {.threads = threads});
    EXPECT_EQ(std::vector<double>(pairs.data(), pairs.data() + pairs.size()),
              std::vector<double>(other_pairs.data(), other_pairs.data() + other_pairs.size()));
  }
  // One row, from a column-major matrix, into an output with gaps; and from CSR.
  std::vector<TypeParam> turned(x.size());
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<TypeParam> stored;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int32_t f = 0; f < 9; ++f) {
      turned[static_cast<std::size_t>(f * rows + r)] = dense(r, f);
      if (is_nan_bits(dense(r, f))) continue;
      columns.push_back(f);
      stored.push_back(dense(r, f));
    }
    offsets.push_back(static_cast<std::int64_t>(stored.size()));
  }
  const tree::CsrView<TypeParam> csr{offsets, columns, stored, 9};
  tree::shap_values(forest, csr, other.view());
  EXPECT_EQ(std::vector<double>(all.data(), all.data() + all.size()),
            std::vector<double>(other.data(), other.data() + other.size()));
  for (const std::int64_t r : {std::int64_t{0}, std::int64_t{100}, rows - 1}) {
    std::vector<double> gaps(40, -7.0);
    const MatrixView<const TypeParam> row(turned.data() + r, {1, 9}, {1, rows});
    tree::shap_values(forest, row, NdView<double, 3>(gaps.data(), {1, 1, 10}, {40, 40, 3}));
    for (std::int64_t f = 0; f < 10; ++f) {
      EXPECT_EQ(gaps[static_cast<std::size_t>(3 * f)], all(r, 0, f));
      EXPECT_EQ(gaps[static_cast<std::size_t>(3 * f + 1)], -7.0);
    }
  }
}

TEST(Shap, NamesWhatIsWrong) {
  std::mt19937 random(9);
  TreeShape shape;
  const std::vector<tree::Tree> trees = forest_trees(2, shape, random);
  const tree::ForestSource source = {
      .trees = trees, .base = std::span(&base, 1), .features = features};
  const tree::ShapForest forest(source);
  const std::vector<float> x(12, 0.5f);
  const tree::FeatureView view = MatrixView<const float>(x.data(), {2, 6});
  NdArray<double, 3> out({2, 1, 7}), narrow({2, 1, 6});
  NdArray<double, 4> pairs({2, 1, 7, 6});
  EXPECT_THROW(tree::shap_values(forest, view, narrow.view()), ShapeError);
  EXPECT_THROW(tree::shap_interactions(forest, view, pairs.view()), ShapeError);
  EXPECT_THROW(tree::shap_values(forest, MatrixView<const float>(x.data(), {2, 5}), out.view()),
               ShapeError);
  EXPECT_THROW(tree::shap_values(forest, view, out.view(), {.trees = 3}), ValueError);
  tree::shap_values(forest, MatrixView<const float>(x.data(), {0, 6}),
                    NdView<double, 3>(nullptr, {0, 1, 7}));
  const std::vector<std::int64_t> offsets = {0, 1, 2};
  const std::vector<std::int32_t> columns = {0, 9};
  const std::vector<float> stored = {1, 2};
  EXPECT_THROW(
      tree::shap_values(forest, tree::CsrView<float>{offsets, columns, stored, 6}, out.view()),
      ShapeError);
  shape.leaves = 1030;
  shape.chain = true;
  const tree::Tree deep = random_tree(shape, random);
  EXPECT_THROW(
      tree::ShapForest(
          {.trees = std::span(&deep, 1), .base = std::span(&base, 1), .features = features}),
      ValueError);
  const std::vector<double> weights(3, 1.0);
  tree::ForestSource bad = source;
  bad.tree_weights = weights;
  EXPECT_THROW(tree::ShapForest{bad}, ShapeError);
}

/// Many features on one path need many points: still exact.
TEST(Shap, LongPathsAreExact) {
  tree::Tree tree;
  const int n = 200;
  std::int32_t at = 0;
  for (int f = 0; f < n; ++f) {
    const std::int32_t left = tree.split(at);
    tree.node(at).feature = f;
    tree.node(at).threshold = 0;
    tree.node(left).cover = 1;
    tree.node(left + 1).cover = 9;
    at = left + 1;
  }
  tree.node(at).value = 1;  // all features positive
  const tree::ShapForest forest(
      {.trees = std::span(&tree, 1), .base = std::span(&base, 1), .features = n});
  std::vector<float> x(static_cast<std::size_t>(n), 1.0f);
  NdArray<double, 3> out({1, 1, n + 1});
  tree::shap_values(forest, MatrixView<const float>(x.data(), {1, n}), out.view());
  // All share alike what the mean leaves.
  const double each = (1 - std::pow(0.9, n)) / n;
  for (int f = 0; f < n; ++f) ASSERT_NEAR(out(0, 0, f), each, 1e-14);
}

}  // namespace
}  // namespace quern::test::shap
