// SPDX-License-Identifier: Apache-2.0

/// \file
/// Prediction against following the tree step by step: the bits have to be equal, for every layout
/// of the input, number of rows, SIMD level and number of threads.

#include "quern/tree/predict.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "random_trees.hpp"

namespace quern::test::predict {
namespace {

using tree::InputType;
using tree::PackedForest;
using tree::Tree;

struct Forest {
  std::vector<Tree> trees = {};
  std::vector<std::int32_t> outputs = {};
  std::vector<double> weights = {};
  std::vector<double> base = {0.25};
  std::int64_t features = 5;
  InputType input = InputType::float32;

  [[nodiscard]] PackedForest pack() const {
    return PackedForest({.trees = trees,
                         .tree_outputs = outputs,
                         .tree_weights = weights,
                         .base = base,
                         .features = features,
                         .input_type = input});
  }
};

template <class C, class T>
std::vector<double> naive_sums(const Forest& f, const T* row) {
  std::vector<double> sums = f.base;
  for (std::size_t t = 0; t < f.trees.size(); ++t) {
    const Tree& tree = f.trees[t];
    const std::int32_t leaf = naive_leaf<C>(tree, row);
    const double weight = f.weights.empty() ? 1.0 : f.weights[t];
    const auto first = static_cast<std::size_t>(f.outputs.empty() ? 0 : f.outputs[t]);
    for (std::size_t v = 0; v < static_cast<std::size_t>(tree.outputs); ++v) {
      const std::size_t at =
          static_cast<std::size_t>(leaf) * static_cast<std::size_t>(tree.outputs);
      // Rounded by itself, as packed forests keep it: flags that allow it would fuse the sum.
      const volatile double part =
          weight * (tree.outputs == 1 ? tree.node(leaf).value : tree.vector_values[at + v]);
      sums[first + v] += part;
    }
  }
  return sums;
}

/// Batch, single rows and leaves of \p rows random rows against the naive walk.
template <class T>
void expect_as_naive(const Forest& f, std::int64_t rows, std::mt19937& random, int threads = 1,
                     double missing = 0.15) {
  const PackedForest forest = f.pack();
  const std::vector<T> x = random_features<T>(rows * f.features, random, missing);
  const auto outputs = static_cast<Index>(f.base.size());
  const auto trees = static_cast<Index>(f.trees.size());
  std::vector<double> out(static_cast<std::size_t>(rows * outputs), -1);
  std::vector<std::int32_t> leaves(static_cast<std::size_t>(rows * trees), -1);
  const tree::FeatureView view = MatrixView<const T>(x.data(), {rows, f.features});
  tree::predict(forest, view, MatrixView<double>(out.data(), {rows, outputs}),
                {.threads = threads});
  tree::predict_leaves(forest, view, MatrixView<std::int32_t>(leaves.data(), {rows, trees}),
                       {.threads = threads});
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* row = x.data() + r * f.features;
    const bool wide = sizeof(T) == 8 && f.input == InputType::float64;
    const std::vector<double> expected =
        wide ? naive_sums<double>(f, row) : naive_sums<float>(f, row);
    std::vector<double> one(static_cast<std::size_t>(outputs));
    tree::predict_one(forest, std::span(row, static_cast<std::size_t>(f.features)), std::span(one));
    for (Index k = 0; k < outputs; ++k) {
      const auto i = static_cast<std::size_t>(k);
      ASSERT_EQ(std::bit_cast<std::uint64_t>(out[static_cast<std::size_t>(r * outputs + k)]),
                std::bit_cast<std::uint64_t>(expected[i]))
          << "row " << r;
      ASSERT_EQ(std::bit_cast<std::uint64_t>(one[i]), std::bit_cast<std::uint64_t>(expected[i]))
          << "single row " << r;
    }
    for (Index t = 0; t < trees; ++t) {
      const Tree& tree = f.trees[static_cast<std::size_t>(t)];
      ASSERT_EQ(leaves[static_cast<std::size_t>(r * trees + t)],
                wide ? naive_leaf<double>(tree, row) : naive_leaf<float>(tree, row));
    }
  }
}

template <class T>
class Predict : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Predict, Scalars);

template <class Body>
void at_every_level(Body body) {
  for (simd::Level level : simd::attainable_levels()) {
    simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    body();
  }
}

TYPED_TEST(Predict, AnyNumberOfRows) {
  std::mt19937 random(1);
  const Forest f{.trees = random_trees(7, {.leaves = 20}, random)};
  at_every_level([&] {
    for (std::int64_t rows : {0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 600}) {
      expect_as_naive<TypeParam>(f, rows, random);
    }
  });
}

TYPED_TEST(Predict, AnyShapeOfTree) {
  std::mt19937 random(2);
  at_every_level([&] {
    for (std::int32_t leaves : {1, 2, 3, 64, 255, 256, 257, 700}) {
      SCOPED_TRACE(leaves);
      expect_as_naive<TypeParam>({.trees = random_trees(3, {.leaves = leaves}, random)}, 70,
                                 random);
    }
    expect_as_naive<TypeParam>({.trees = random_trees(2, {.leaves = 250, .chain = true}, random)},
                               40, random);
    expect_as_naive<TypeParam>({.trees = random_trees(2, {.leaves = 1001, .chain = true}, random)},
                               40, random);
  });
}

TYPED_TEST(Predict, MoreThresholdsThanOneColumnHolds) {
  std::mt19937 random(3);
  // 40 trees of 63 splits on two features with hardly a threshold twice: five columns a feature.
  for (InputType input : {InputType::float32, InputType::float64}) {
    const Forest f{.trees = random_trees(40, {.leaves = 64, .features = 2, .grid = 0}, random),
                   .features = 2,
                   .input = input};
    at_every_level([&] { expect_as_naive<TypeParam>(f, 100, random); });
  }
}

TYPED_TEST(Predict, ThresholdsThatOnlyDoublesTellApart) {
  std::mt19937 random(4);
  Forest f{.trees = random_trees(30, {.leaves = 16, .features = 1, .grid = 4}, random),
           .features = 1};
  for (Tree& tree : f.trees) {
    for (tree::Node& n : tree.nodes)
      n.threshold += static_cast<double>(random() % 3) * 1e-12 - 1e-12;
  }
  for (InputType input : {InputType::float32, InputType::float64}) {
    f.input = input;
    expect_as_naive<TypeParam>(f, 200, random);
  }
}

TYPED_TEST(Predict, ManyFeaturesAndMissingEverywhere) {
  std::mt19937 random(5);
  const Forest f{.trees = random_trees(60, {.leaves = 60, .features = 3000}, random),
                 .features = 3000};
  expect_as_naive<TypeParam>(f, 40, random);
  expect_as_naive<TypeParam>(f, 20, random, 1, 1.0);
}

TYPED_TEST(Predict, InfiniteThresholds) {
  std::mt19937 random(6);
  Forest f{.trees = random_trees(8, {.leaves = 12, .features = 2}, random), .features = 2};
  constexpr double inf = std::numeric_limits<double>::infinity();
  for (Tree& tree : f.trees) {
    for (tree::Node& n : tree.nodes) {
      if (random() % 3 == 0) n.threshold = (random() & 1u) ? inf : -inf;
    }
  }
  for (InputType input : {InputType::float32, InputType::float64}) {
    f.input = input;
    at_every_level([&] { expect_as_naive<TypeParam>(f, 64, random); });
  }
}

TYPED_TEST(Predict, CategoriesOutputsWeightsAndVectorLeaves) {
  std::mt19937 random(7);
  Forest f{.base = {0.5, -1, 2}};
  for (std::int32_t t = 0; t < 12; ++t) {
    f.trees.push_back(random_tree({.leaves = t == 5 ? 300 : 24,
                                   .categorical = t % 4 == 3 ? 0.5 : 0.0,
                                   .outputs = t == 6 ? 2 : 1,
                                   .other_missing = t % 3 == 1 ? 0.7 : 0.0},
                                  random));
    f.outputs.push_back(t == 6 ? 1 : t % 3);
    f.weights.push_back(0.5 + t);
  }
  at_every_level([&] { expect_as_naive<TypeParam>(f, 90, random); });
}

TYPED_TEST(Predict, FullAndSymmetricTrees) {
  std::mt19937 random(14);
  for (const std::int32_t levels : {1, 2, 3, 4, 5, 6, 7, 8, 9}) {
    SCOPED_TRACE(levels);
    Forest f{.weights = {}, .base = {0.5, -1}};
    for (std::int32_t t = 0; t < 19; ++t) {
      const bool symmetric = t % 3 == 0;
      f.trees.push_back(random_full_tree({.grid = t % 2 == 0 ? 16 : 0}, levels, symmetric,
                                         symmetric ? 0 : 0.1, random));
      f.outputs.push_back(t % 5 == 4 ? 1 : 0);
      f.weights.push_back(t % 4 == 0 ? 0.3 : 1.0);
      if (symmetric) f.trees.back().check(f.features, "symmetric");
    }
    at_every_level([&] { expect_as_naive<TypeParam>(f, 90, random); });
    f.input = InputType::float64;
    expect_as_naive<TypeParam>(f, 70, random, 2);
  }
}

TYPED_TEST(Predict, AnyThreads) {
  std::mt19937 random(8);
  const Forest f{.trees = random_trees(5, {.leaves = 30}, random)};
  for (int threads : {1, 2, 3}) expect_as_naive<TypeParam>(f, 2000, random, threads);
}

TYPED_TEST(Predict, RandomForests) {
  EXPECT_TRUE(rc::check("batch, single row and leaves follow the trees", [] {
    std::mt19937 random(*rc::gen::arbitrary<unsigned>());
    const auto features = *rc::gen::inRange(1, 12);
    const TreeShape shape{.leaves = *rc::gen::inRange(1, 40),
                          .features = features,
                          .chain = *rc::gen::arbitrary<bool>(),
                          .grid = *rc::gen::element(0, 1, 8),
                          .categorical = *rc::gen::element(0.0, 0.0, 0.1),
                          .other_missing = *rc::gen::element(0.0, 0.0, 0.3, 1.0)};
    const Forest f{.trees = random_trees(*rc::gen::inRange(0, 11), shape, random),
                   .features = features,
                   .input = *rc::gen::element(InputType::float32, InputType::float64)};
    expect_as_naive<TypeParam>(f, *rc::gen::inRange(0, 80), random);
    RC_ASSERT(!testing::Test::HasFatalFailure());
  }));
}

TYPED_TEST(Predict, AnyStridesGiveTheSameBits) {
  std::mt19937 random(9);
  const Forest f{.trees = random_trees(9, {.leaves = 40}, random)};
  const PackedForest forest = f.pack();
  constexpr Index rows = 75;
  const std::vector<TypeParam> x = random_features<TypeParam>(rows * 5, random);
  std::vector<float> expected(rows), out(3 * rows);
  tree::predict(forest, MatrixView<const TypeParam>(x.data(), {rows, 5}),
                MatrixView<float>(expected.data(), {rows, 1}));
  // Column-major, padded, and rows backwards.
  std::vector<TypeParam> wide(2 * rows * 7);
  const MatrixView<TypeParam> columns(wide.data(), {rows, 5}, {1, rows + 3});
  const MatrixView<TypeParam> backwards(wide.data() + (rows - 1) * 7, {rows, 5}, {-7, 1});
  for (const MatrixView<TypeParam>& to : {columns, backwards}) {
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < 5; ++c) to(r, c) = x[static_cast<std::size_t>(r * 5 + c)];
    }
    const MatrixView<float> strided(out.data() + 3 * (rows - 1), {rows, 1}, {-3, 1});
    tree::predict(forest, MatrixView<const TypeParam>(to), strided);
    for (Index r = 0; r < rows; ++r)
      EXPECT_EQ(strided(r, 0), expected[static_cast<std::size_t>(r)]);
  }
}

TYPED_TEST(Predict, SparseRowsAreDenseRowsWithMissing) {
  std::mt19937 random(10);
  for (std::int32_t leaves : {30, 300}) {
    const Forest f{.trees = random_trees(6, {.leaves = leaves}, random)};
    const PackedForest forest = f.pack();
    constexpr Index rows = 300;
    const std::vector<TypeParam> x = random_features<TypeParam>(rows * 5, random, 0.6);
    std::vector<std::int64_t> offsets = {0};
    std::vector<std::int32_t> columns;
    std::vector<TypeParam> values;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (!is_nan_bits(x[i])) {
        columns.push_back(static_cast<std::int32_t>(i % 5));
        values.push_back(x[i]);
      }
      if (i % 5 == 4) offsets.push_back(static_cast<std::int64_t>(values.size()));
    }
    std::vector<double> expected(rows), out(rows);
    tree::predict(forest, MatrixView<const TypeParam>(x.data(), {rows, 5}),
                  MatrixView<double>(expected.data(), {rows, 1}));
    tree::predict(forest, tree::CsrView<TypeParam>{offsets, columns, values, 5},
                  MatrixView<double>(out.data(), {rows, 1}), {.threads = 2});
    EXPECT_EQ(out, expected);
  }
}

TEST(PredictOptions, FirstTreesOnly) {
  std::mt19937 random(11);
  Forest f{.trees = random_trees(9, {.leaves = 10}, random)};
  const PackedForest whole = f.pack();
  f.trees.resize(5);
  const PackedForest part = f.pack();
  const std::vector<float> x = random_features<float>(40 * 5, random);
  std::vector<float> a(40), b(40);
  const tree::FeatureView view = MatrixView<const float>(x.data(), {40, 5});
  tree::predict(whole, view, MatrixView<float>(a.data(), {40, 1}), {.trees = 5});
  tree::predict(part, view, MatrixView<float>(b.data(), {40, 1}));
  EXPECT_EQ(a, b);
  float one = 0;
  tree::predict_one(whole, std::span(x.data(), 5), std::span(&one, 1), 5);
  EXPECT_EQ(one, b[0]);
  tree::predict(whole, view, MatrixView<float>(a.data(), {40, 1}), {.trees = 0});
  EXPECT_EQ(a, std::vector<float>(40, 0.25f));
}

TEST(PredictErrors, ShapesAndOptions) {
  std::mt19937 random(12);
  const Forest f{.trees = random_trees(2, {.leaves = 4}, random)};
  const PackedForest forest = f.pack();
  std::vector<float> x(100), out(100);
  std::vector<std::int32_t> leaves(100);
  const tree::FeatureView good = MatrixView<const float>(x.data(), {10, 5});
  const tree::FeatureView narrow = MatrixView<const float>(x.data(), {10, 4});
  EXPECT_THROW(tree::predict(forest, narrow, MatrixView<float>(out.data(), {10, 1})), ShapeError);
  EXPECT_THROW(tree::predict(forest, good, MatrixView<float>(out.data(), {9, 1})), ShapeError);
  EXPECT_THROW(tree::predict(forest, good, MatrixView<float>(out.data(), {10, 2})), ShapeError);
  EXPECT_THROW(tree::predict(forest, good, MatrixView<float>(out.data(), {10, 1}), {.trees = 3}),
               ValueError);
  EXPECT_THROW(tree::predict(forest, good, MatrixView<float>(out.data(), {10, 1}), {.trees = -2}),
               ValueError);
  EXPECT_THROW(tree::predict_leaves(forest, good, MatrixView<std::int32_t>(leaves.data(), {10, 1})),
               ShapeError);
  EXPECT_THROW(
      tree::predict_one(forest, std::span<const float>(x.data(), 4), std::span(out.data(), 1)),
      ShapeError);
  EXPECT_THROW(
      tree::predict_one(forest, std::span<const float>(x.data(), 5), std::span(out.data(), 2)),
      ShapeError);
}

TEST(PredictErrors, SparseInputThatIsNone) {
  std::mt19937 random(13);
  const Forest f{.trees = random_trees(2, {.leaves = 4}, random)};
  const PackedForest forest = f.pack();
  std::vector<float> out(1);
  const auto run = [&](std::vector<std::int64_t> offsets, std::vector<std::int32_t> columns,
                       std::vector<float> values) {
    tree::predict(forest, tree::CsrView<float>{offsets, columns, values, 5},
                  MatrixView<float>(out.data(), {1, 1}));
  };
  EXPECT_NO_THROW(run({0, 1}, {4}, {1}));
  EXPECT_THROW(run({0, 1}, {5}, {1}), ShapeError);
  EXPECT_THROW(run({0, 1}, {-1}, {1}), ShapeError);
  EXPECT_THROW(run({0, 2}, {1}, {1}), ShapeError);
  EXPECT_THROW(run({1, 0}, {1}, {1}), ShapeError);
  EXPECT_THROW(run({0, 1}, {1, 2}, {1}), ShapeError);
}

}  // namespace
}  // namespace quern::test::predict
