// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/detail/feature_bundles.hpp"

#include "quern/core/random.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/grow.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::feature_bundles {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// Six categories of ten values each as columns, then three columns of several values that are
/// seldom present and meet each other, and two dense ones.
Eigen::MatrixXf one_hot(std::int64_t rows, float absent) {
  Philox rng(4, "bundle test");
  Eigen::MatrixXf x = Eigen::MatrixXf::Constant(rows, 65, absent);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < 6; ++k) {
      if (k == 5 && rng.bernoulli(0.3)) continue;
      x(i, 10 * k + static_cast<std::int64_t>(rng.integer(10))) = 1;
    }
    for (std::int64_t k = 60; k < 63; ++k)
      if (rng.bernoulli(0.1)) x(i, k) = static_cast<float>(rng.integer(20)) + 1;
    x(i, 63) = rng.normal<float>();
    x(i, 64) = rng.bernoulli(0.4) ? nan : rng.normal<float>();
  }
  return x;
}

/// CSR of what is not NaN.
struct Csr {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<float> values;

  explicit Csr(const Eigen::MatrixXf& x) {
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      for (std::int64_t j = 0; j < x.cols(); ++j) {
        if (tree::float_key(x(i, j)) == kernels::missing_key<std::int32_t>) continue;
        columns.push_back(static_cast<std::int32_t>(j));
        values.push_back(x(i, j));
      }
      offsets.push_back(static_cast<std::int64_t>(values.size()));
    }
  }
  [[nodiscard]] tree::Dataset data(std::int64_t cols) const {
    return tree::make_dataset(tree::CsrView<float>{offsets, columns, values, cols});
  }
};

std::vector<tree::GradientPair> gradients(const Eigen::MatrixXf& x) {
  Philox rng(5, "gradients");
  std::vector<tree::GradientPair> g;
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    float t = rng.normal<float>();
    for (const std::int64_t j : {3, 17, 44, 58}) t += x(i, j) == 1 ? 1.0f : 0.0f;
    if (x(i, 61) > 9) t -= 2;
    g.push_back({t, 0.5f + rng.uniform<float>()});
  }
  return g;
}

tree::Tree grow(const tree::BinnedMatrix& m, const std::vector<tree::GradientPair>& g,
                tree::HistogramPrecision precision, int threads) {
  tree::GrowOptions options;
  options.max_depth = 7;
  options.precision = precision;
  options.threads = threads;
  return tree::Grower(m, options).grow(g, {}, 1);
}

void expect_equal(const tree::Tree& a, const tree::Tree& b) {
  ASSERT_EQ(a.nodes.size(), b.nodes.size());
  for (std::size_t i = 0; i < a.nodes.size(); ++i) {
    EXPECT_EQ(a.nodes[i].feature, b.nodes[i].feature) << i;
    EXPECT_EQ(a.nodes[i].threshold, b.nodes[i].threshold) << i;
    EXPECT_EQ(a.nodes[i].default_left, b.nodes[i].default_left) << i;
    EXPECT_EQ(a.nodes[i].value, b.nodes[i].value) << i;
  }
}

int bundled_features(const tree::BinnedMatrix& m) {
  int count = 0;
  for (const tree::FeatureBlock& block : m.blocks)
    for (std::size_t j = 0; j < block.features.size(); ++j)
      count += block.shares_column(j) && !block.in_product(j);
  return count;
}

void expect_bundles_change_nothing(const tree::Dataset& data, const Eigen::MatrixXf& x) {
  const tree::BinnedMatrix plain = tree::bin(data, 255, {.bundle = false});
  const tree::BinnedMatrix m = tree::bin(data, 255);
  EXPECT_EQ(bundled_features(plain), 0);
  EXPECT_GE(bundled_features(m), 60);
  for (std::int32_t f = 0; f < m.features(); ++f)
    for (std::int64_t r = 0; r < m.rows; ++r)
      ASSERT_EQ(tree::code(m, r, f), tree::code(plain, r, f)) << "row " << r << ", feature " << f;
  const std::vector<tree::GradientPair> g = gradients(x);
  for (const auto precision : {tree::HistogramPrecision::packed, tree::HistogramPrecision::full}) {
    const tree::Tree expected = grow(plain, g, precision, 1);
    EXPECT_GT(expected.nodes.size(), 60u);
    for (const int threads : {1, 2, 3}) {
      const tree::BinnedMatrix again = tree::bin(data, 255, {.threads = threads});
      expect_equal(grow(again, g, precision, threads), expected);
    }
  }
}

TEST(FeatureBundles, SparseInputGrowsTheSameTrees) {
  const Eigen::MatrixXf x = one_hot(20000, nan);
  const Csr csr(x);
  const tree::Dataset data = csr.data(x.cols());
  EXPECT_EQ(tree::bin(data, 255).columns.size(), 0u);
  expect_bundles_change_nothing(data, x);
}

TEST(FeatureBundles, DenseInputGrowsTheSameTrees) {
  for (const float absent : {nan, 0.0f}) {
    const Eigen::MatrixXf x = one_hot(20000, absent);
    expect_bundles_change_nothing(tree::make_dataset(x), x);
  }
}

TEST(FeatureBundles, ColumnsOf256CellsGrowTheSameTrees) {
  const Eigen::MatrixXf x = one_hot(20000, nan);
  const Csr csr(x);
  for (const auto& data : {csr.data(x.cols()), tree::make_dataset(x)}) {
    const std::vector<tree::GradientPair> g = gradients(x);
    tree::BinnedMatrix even = tree::bin(data, 255);
    const auto packed = tree::HistogramPrecision::packed, full = tree::HistogramPrecision::full;
    const tree::Tree with_packed = grow(even, g, packed, 1), with_full = grow(even, g, full, 1);
    for (tree::FeatureBlock& block : even.blocks) {
      if (block.layout != tree::BlockLayout::dense) continue;
      const std::int32_t before = block.cells();
      tree::detail::even_out_cells(block, tree::detail::even_cells_rows);
      EXPECT_GE(block.cells(), before);
      EXPECT_EQ(block.cells(), 256 * block.columns());
      for (std::int32_t c = 0; c < block.columns(); ++c) EXPECT_EQ(block.first_cells()[c], 256 * c);
    }
    expect_equal(grow(even, g, packed, 2), with_packed);
    expect_equal(grow(even, g, full, 2), with_full);
  }
}

TEST(FeatureBundles, WithoutColumnsRowsAreRoutedByTheirBytes) {
  const Eigen::MatrixXf x = one_hot(5000, 0.0f);
  const auto data = tree::make_dataset(x);
  const std::vector<tree::GradientPair> g = gradients(x);
  const auto packed = tree::HistogramPrecision::packed;
  expect_equal(grow(tree::bin(data, 255, {.keep_columns = false}), g, packed, 2),
               grow(tree::bin(data, 255), g, packed, 1));
}

/// Columns of few values, some missing, beside two of many; their codes multiply to more than a
/// byte holds.
Eigen::MatrixXf few_values(std::int64_t rows) {
  Eigen::MatrixXf x(rows, 10);
  Philox rng(9, "few values");
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t f = 0; f < 10; ++f) {
      const auto values = static_cast<std::uint64_t>(f % 4 + 2);
      x(i, f) = static_cast<float>(rng.integer(values));
      if (f % 3 == 1 && rng.bernoulli(0.2)) x(i, f) = nan;
      if (f == 4 || f == 7) x(i, f) = rng.normal<float>();
    }
  }
  return x;
}

TEST(FeatureProducts, GrowTheSameTrees) {
  const std::int64_t rows = tree::detail::product_rows + 1001;
  const Eigen::MatrixXf x = few_values(rows);
  const auto data = tree::make_dataset(x);
  const tree::BinnedMatrix plain = tree::bin(data, 255, {.bundle = false});
  const tree::BinnedMatrix m = tree::bin(data, 255);
  ASSERT_EQ(m.blocks.size(), 1u);
  const tree::FeatureBlock& block = m.blocks[0];
  EXPECT_EQ(plain.blocks[0].columns(), 10);
  EXPECT_LE(block.columns(), 5);
  for (std::size_t j = 1; j < block.features.size(); ++j)
    EXPECT_GE(block.in_product(j), block.in_product(j - 1)) << "products are last";
  std::vector<tree::GradientPair> g;
  Philox rng(10, "gradients");
  for (std::int64_t i = 0; i < rows; ++i) {
    float t = rng.normal<float>() + (x(i, 0) == 1 ? x(i, 2) : 0.0f) + 0.3f * x(i, 4);
    if (std::isnan(x(i, 1))) t += 1;
    g.push_back({t, 0.5f + rng.uniform<float>()});
  }
  tree::BinnedMatrix rows_alone = tree::bin(data, 255, {.keep_columns = false});
  for (std::int32_t f = 0; f < 10; ++f)
    for (std::int64_t r = 0; r < rows; r += 7)
      ASSERT_EQ(tree::code(rows_alone, r, f), tree::code(plain, r, f)) << r << ", " << f;
  for (const auto precision : {tree::HistogramPrecision::packed, tree::HistogramPrecision::full}) {
    const tree::Tree expected = grow(plain, g, precision, 1);
    EXPECT_GT(expected.nodes.size(), 60u);
    for (const int threads : {1, 2, 3}) expect_equal(grow(m, g, precision, threads), expected);
    expect_equal(grow(rows_alone, g, precision, 2), expected);
  }
}

/// One conflict in all rows, which no sample of a long table would see.
TEST(FeatureBundles, ALateConflictIsSeen) {
  const std::int64_t rows = 100000;
  Eigen::MatrixXf x = Eigen::MatrixXf::Zero(rows, 4);
  for (std::int64_t i = 0; i < rows; ++i) x(i, i % 4) = 1;
  const auto bundles = [&] { return bundled_features(tree::bin(tree::make_dataset(x), 255)); };
  EXPECT_EQ(bundles(), 4);
  ASSERT_EQ(x(rows - 699, 1), 1);
  x(rows - 699, 2) = 1;
  EXPECT_EQ(bundles(), 3);  // feature 2 left
  ASSERT_EQ(x(rows - 797, 3), 1);
  x(rows - 797, 3) = nan;  // missing beside a default of 0
  EXPECT_EQ(bundles(), 2);
}

/// Features that do not fit one byte column together make several.
TEST(FeatureBundles, ABundleIsFullAt256Cells) {
  Eigen::MatrixXf x = Eigen::MatrixXf::Zero(3000, 300);
  for (std::int64_t i = 0; i < x.rows(); ++i) x(i, (i * 7) % 300) = 1;
  tree::BinnedMatrix m = tree::bin(tree::make_dataset(x), 255);
  for (const tree::FeatureBlock& block : m.blocks) {
    EXPECT_EQ(block.layout, tree::BlockLayout::dense);
    for (std::size_t j = 0; j < block.features.size(); ++j) {
      const auto c = static_cast<std::size_t>(block.column_of.at(j));
      EXPECT_LE(block.cell_offsets[j + 1] - block.column_cells[c], 256);
    }
  }
  EXPECT_EQ(bundled_features(m), 300);
}

}  // namespace
}  // namespace quern::test::feature_bundles
