// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/compact_forest.hpp"

#include "quern/core/nd_array.hpp"
#include "quern/tree/cart.hpp"
#include "quern/tree/predict.hpp"
#include "quern/tree/shap.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::compact_forest {
namespace {

using tree::CompactForest;

struct Grown {
  std::vector<float> x;
  std::vector<std::int32_t> labels;
  std::int64_t rows = 270;
  CompactForest forest{5, 3, true};
  [[nodiscard]] MatrixView<const float> view() const { return {x.data(), {rows, 5}}; }

  /// \p whole: whole numbers of 0..255, none missing.
  explicit Grown(std::int32_t depth = 0, bool whole = false) {
    Philox rng(1, "compact");
    for (std::int64_t r = 0; r < rows; ++r) {
      for (int f = 0; f < 5; ++f) {
        const double u = rng.uniform();
        const auto v = static_cast<float>(whole ? std::floor(256 * u) : u);
        x.push_back(!whole && u < 0.1 ? std::numeric_limits<float>::quiet_NaN() : v);
      }
      labels.push_back(static_cast<std::int32_t>(rng.integer(3)));
    }
    const tree::CartColumns columns(view());
    const tree::detail::ClassTarget<std::uint32_t> target(labels, 3, tree::Criterion::gini);
    tree::detail::CartGrower<tree::detail::ClassTarget<std::uint32_t>> grower(
        columns, target, {.max_depth = depth, .max_features = tree::MaxFeatures::count(2)}, 1);
    for (std::uint64_t t = 0; t < 6; ++t) {
      tree::CartGrowth growth;
      grower.grow(std::vector<std::uint32_t>(static_cast<std::size_t>(rows), 1), t, growth);
      forest.add(forest.compact(growth));
    }
  }
};

std::vector<float> predicted(const CompactForest& forest, MatrixView<const float> x, int threads) {
  std::vector<float> out(static_cast<std::size_t>(x.rows() * forest.outputs()));
  forest.predict(x, MatrixView<float>(out.data(), {x.rows(), Index{forest.outputs()}}), threads);
  return out;
}

TEST(CompactForest, PredictsWhatItsTreesDo) {
  for (const std::int32_t depth : {0, 3}) {
    const Grown g(depth);
    std::vector<tree::Tree> trees;
    for (std::int64_t t = 0; t < g.forest.size(); ++t) {
      trees.push_back(g.forest.tree(t));
      trees.back().check(5, "tree");
    }
    const std::vector<double> weights(6, 1.0 / 6), base(3, 0.0);
    const tree::PackedForest packed(
        {.trees = trees, .tree_outputs = {}, .tree_weights = weights, .base = base, .features = 5});
    std::vector<double> expected(static_cast<std::size_t>(3 * g.rows));
    tree::predict(packed, g.view(), MatrixView<double>(expected.data(), {g.rows, 3}));
    const std::vector<float> got = predicted(g.forest, g.view(), 1);
    for (std::size_t i = 0; i < got.size(); ++i)
      EXPECT_NEAR(static_cast<double>(got[i]), expected[i], 1e-6);
    EXPECT_EQ(got, predicted(g.forest, g.view(), 3));
    NdArray<std::int32_t, 2> a({g.rows, 6}), b({g.rows, 6});
    g.forest.apply(g.view(), a.view());
    tree::predict_leaves(packed, g.view(), b.view());
    for (Index r = 0; r < g.rows; ++r)
      for (Index t = 0; t < 6; ++t) EXPECT_EQ(a(r, t), b(r, t));
  }
}

// 256 rows and more of bytes take a way of their own.
TEST(CompactForest, BytesPredictWhatFloatsDo) {
  const Grown g(0, true);
  const std::vector<float> got = predicted(g.forest, g.view(), 1);
  EXPECT_EQ(got, predicted(g.forest, g.view(), 3));
  for (Index r = 0; r < g.rows; ++r) {
    const std::vector<float> one = predicted(g.forest, {g.x.data() + 5 * r, {1, 5}}, 1);
    for (std::size_t k = 0; k < 3; ++k) EXPECT_EQ(one[k], got[static_cast<std::size_t>(3 * r) + k]);
  }
  // Columns that lie side by side.
  std::vector<float> turned(g.x.size());
  for (Index r = 0; r < g.rows; ++r)
    for (Index c = 0; c < 5; ++c) turned[static_cast<std::size_t>(c * g.rows + r)] = g.view()(r, c);
  EXPECT_EQ(got, predicted(g.forest, {turned.data(), {g.rows, 5}, {1, g.rows}}, 1));
  // A value that is no byte, in the last row alone.
  std::vector<float> x = g.x;
  for (const float v : {-0.5f, 255.5f, 1e9f, std::numeric_limits<float>::quiet_NaN(),
                        -std::numeric_limits<float>::infinity()}) {
    x.back() = v;
    const std::vector<float> mixed = predicted(g.forest, {x.data(), {g.rows, 5}}, 2);
    const std::vector<float> last = predicted(g.forest, {x.data() + x.size() - 5, {1, 5}}, 1);
    for (std::size_t k = 0; k < 3; ++k) EXPECT_EQ(mixed[mixed.size() - 3 + k], last[k]);
    for (std::size_t i = 0; i + 3 < got.size(); ++i) EXPECT_EQ(mixed[i], got[i]);
  }
}

TEST(CompactForest, ShapleyValuesSumToThePrediction) {
  const Grown g(4);
  std::vector<tree::Tree> trees;
  for (std::int64_t t = 0; t < g.forest.size(); ++t) trees.push_back(g.forest.tree(t));
  const std::vector<double> weights(6, 1.0 / 6), base(3, 0.0);
  const tree::ShapForest shap(
      {.trees = trees, .tree_outputs = {}, .tree_weights = weights, .base = base, .features = 5});
  NdArray<double, 3> values({g.rows, 3, 6});
  tree::shap_values(shap, g.view(), values.view());
  const std::vector<float> p = predicted(g.forest, g.view(), 1);
  for (Index r = 0; r < g.rows; ++r) {
    for (Index k = 0; k < 3; ++k) {
      double sum = 0;
      for (Index f = 0; f < 6; ++f) sum += values(r, k, f);
      EXPECT_NEAR(sum, static_cast<double>(p[static_cast<std::size_t>(3 * r + k)]), 1e-6);
    }
  }
}

TEST(CompactForest, ArchiveGivesEveryBitBack) {
  const Grown g;
  ArchiveWriter out("forest", 1);
  g.forest.save(out);
  const ArchiveReader in(out.bytes());
  CompactForest loaded;
  loaded.load(in);
  EXPECT_EQ(predicted(g.forest, g.view(), 1), predicted(loaded, g.view(), 1));
  EXPECT_EQ(loaded.bytes(), g.forest.bytes());
}

TEST(CompactForest, RefusesDamagedTrees) {
  const Grown g(3);
  const auto refused = [&](const auto& damage) {
    tree::CompactTree t = g.forest.compact_trees()[0];
    damage(t);
    CompactForest broken(5, 3, true);
    broken.add(t);
    ArchiveWriter out("forest", 1);
    broken.save(out);
    CompactForest loaded;
    EXPECT_THROW(loaded.load(ArchiveReader(out.bytes())), ParseError);
    EXPECT_EQ(loaded.size(), 0);
  };
  refused([](tree::CompactTree& t) { t.nodes[0].child = 9999; });
  refused([](tree::CompactTree& t) { t.nodes[1].child = 1; });
  refused([](tree::CompactTree& t) { t.nodes[0].slot = 5; });
  refused([](tree::CompactTree& t) { t.leaves.assign(t.leaves.size(), 100000); });
  refused([](tree::CompactTree& t) { t.depth = 50; });
  refused([](tree::CompactTree& t) { t.covers[2] = 0; });
  refused([](tree::CompactTree& t) {
    t.values.push_back(std::numeric_limits<double>::infinity());
    t.values.resize(t.values.size() + 2);
  });
  refused([](tree::CompactTree& t) { t.values.push_back(1); });
  refused([](tree::CompactTree& t) { t.nodes.back().threshold = 1; });
}

}  // namespace
}  // namespace quern::test::compact_forest
