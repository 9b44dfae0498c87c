// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/binning.hpp"

#include "../boosting/reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace quern::test::binning {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Cuts of a column as the documentation of QuantileSketch words it, in doubles.
std::vector<double> naive_cuts(const std::vector<double>& column,
                               const std::vector<double>& weights, int max_bin) {
  std::map<double, double> mass;
  for (std::size_t i = 0; i < column.size(); ++i) {
    const double w = weights.empty() ? 1.0 : weights[i];
    if (!std::isnan(column[i]) && w > 0) mass[column[i] == 0 ? 0.0 : column[i]] += w;
  }
  std::vector<double> values, below = {0};
  for (const auto& [value, w] : mass) {
    values.push_back(value);
    below.push_back(below.back() + w);
  }
  std::vector<double> cuts;
  if (values.size() <= static_cast<std::size_t>(max_bin)) {
    if (values.size() > 1) cuts.assign(values.begin() + 1, values.end());
    return cuts;
  }
  const double total = below.back();
  for (int j = 1; j < max_bin; ++j) {
    const double rank = j * total / max_bin;
    std::size_t v = 0;
    while (below[v + 1] <= rank) ++v;
    const bool heavy = below[v + 1] - below[v] > total / (16.0 * max_bin);
    const bool upper = rank > 0.5 * (below[v] + below[v + 1]);
    if ((v == 0 || (heavy && upper)) && v + 1 < values.size()) ++v;
    cuts.push_back(values[v]);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  return cuts;
}

int naive_code(const std::vector<double>& cuts, double x) {
  if (std::isnan(x)) return 0;
  return 1 + static_cast<int>(std::upper_bound(cuts.begin(), cuts.end(), x) - cuts.begin());
}

std::vector<double> cuts_of(const tree::Cuts& cuts, std::int64_t f) {
  const auto i = static_cast<std::size_t>(f);
  return {cuts.values.begin() + cuts.offsets[i], cuts.values.begin() + cuts.offsets[i + 1]};
}

/// The invariants of a binned matrix, and that blocks, columns and code() say the same.
void expect_consistent(const tree::BinnedMatrix& m) {
  std::vector<int> owners(static_cast<std::size_t>(m.features()), 0);
  for (std::size_t b = 0; b < m.blocks.size(); ++b) {
    const tree::FeatureBlock& block = m.blocks[b];
    ASSERT_EQ(block.cell_offsets.size(), block.features.size() + 1);
    for (std::size_t j = 0; j < block.features.size(); ++j) {
      const std::int32_t f = block.features[j];
      ++owners[static_cast<std::size_t>(f)];
      EXPECT_EQ(m.block_of[static_cast<std::size_t>(f)], static_cast<std::int32_t>(b));
      EXPECT_EQ(m.place_in_block[static_cast<std::size_t>(f)], static_cast<std::int32_t>(j));
      EXPECT_EQ(block.cells_end(j) - block.cell_offsets[j], m.cuts.bins(f) + 1);
    }
    if (block.layout == tree::BlockLayout::dense) {
      EXPECT_LE(block.size(), 64);
      EXPECT_EQ(block.stride % 8, 0);
      for (std::int64_t r = 0; r < m.rows; ++r)
        for (std::int32_t j = block.size(); j < block.stride; ++j)
          ASSERT_EQ(block.codes[static_cast<std::size_t>(r * block.stride + j)], 0);
    } else {
      EXPECT_LE(block.cells(), 65536);
      for (std::int64_t r = 0; r < m.rows; ++r) {
        const std::uint16_t* begin =
            block.entries.data() + block.row_offsets[static_cast<std::size_t>(r)];
        const std::uint16_t* end =
            block.entries.data() + block.row_offsets[static_cast<std::size_t>(r) + 1];
        ASSERT_TRUE(std::is_sorted(begin, end)) << "row " << r;
      }
    }
  }
  for (std::int32_t f = 0; f < m.features(); ++f)
    EXPECT_EQ(owners[static_cast<std::size_t>(f)],
              m.block_of[static_cast<std::size_t>(f)] >= 0 ? 1 : 0);
}

template <class T>
void expect_same(const tree::Cuts& a, const tree::Cuts& b, T) {
  EXPECT_EQ(a.offsets, b.offsets);
  EXPECT_EQ(a.values, b.values);
  EXPECT_EQ(a.has_missing, b.has_missing);
}

bool same_bits(const tree::BinnedMatrix& a, const tree::BinnedMatrix& b) {
  const auto equal = [](const auto& x, const auto& y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end());
  };
  bool same = a.blocks.size() == b.blocks.size() && equal(a.columns, b.columns) &&
              a.block_of == b.block_of && a.constant_codes == b.constant_codes;
  for (std::size_t i = 0; same && i < a.blocks.size(); ++i)
    same = a.blocks[i].features == b.blocks[i].features &&
           equal(a.blocks[i].codes, b.blocks[i].codes) &&
           equal(a.blocks[i].entries, b.blocks[i].entries) &&
           equal(a.blocks[i].row_offsets, b.blocks[i].row_offsets);
  return same;
}

/// Columns of many kinds: continuous, tied, zero-inflated, constant, all missing, one-hot, huge,
/// denormal, clustered far from zero.
template <class T>
RowMajor<T> awkward(std::int64_t rows, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  RowMajor<T> x(rows, 21);
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto integer = [&](unsigned n) { return static_cast<double>(generator() % n); };
    const double z = normal(generator);
    const double values[21] = {z,
                               std::floor(3 * z),
                               integer(10) < 7 ? 0.0 : std::abs(z),
                               5.0,
                               nan,
                               integer(20) == 0 ? 1.0 : 0.0,
                               z * 1e37,
                               z * 1e-40,
                               1e6 + 0.125 * integer(5000),
                               integer(3) == 0 ? nan : z,
                               integer(2) == 0 ? nan : 2.0,
                               integer(300),
                               integer(2) == 0 ? -0.0 : 0.0,
                               std::exp(8 * z),
                               i % 2 == 0 ? -1e30 : z,
                               integer(50) == 0 ? z : -1.0,
                               integer(50) == 0 ? z : nan,
                               integer(256),
                               -integer(255) * 3,
                               integer(10) < 9 ? std::max(z, -1.0) : nan,
                               i == rows / 2 ? 1.0 : 0.0};
    for (int f = 0; f < 21; ++f) x(i, f) = static_cast<T>(values[f]);
  }
  return x;
}

template <class T>
void expect_naive(const RowMajor<T>& x, const std::vector<float>& weights, int max_bin) {
  tree::Dataset data = tree::make_dataset(x);
  data.weights = weights;
  const tree::BinnedMatrix m = tree::bin(data, max_bin, {.threads = 2});
  expect_consistent(m);
  const std::vector<double> w(weights.begin(), weights.end());
  for (std::int64_t f = 0; f < x.cols(); ++f) {
    SCOPED_TRACE("feature " + std::to_string(f) + " of " + std::to_string(x.rows()) + " rows");
    std::vector<double> column;
    bool missing = false;
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      column.push_back(static_cast<double>(x(i, f)));
      missing |= std::isnan(column.back());
    }
    const std::vector<double> cuts = naive_cuts(column, w, max_bin);
    EXPECT_EQ(cuts_of(m.cuts, f), cuts);
    EXPECT_EQ(m.cuts.has_missing[static_cast<std::size_t>(f)] != 0, missing);
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      const int expected = naive_code(cuts, column[static_cast<std::size_t>(i)]);
      ASSERT_EQ(m.column(static_cast<std::int32_t>(f))[i], expected) << "row " << i;
    }
  }
}

/// The codes that a matrix gives without its columns: from blocks and constants.
std::vector<std::uint8_t> block_codes(tree::BinnedMatrix& m) {
  m.columns = {};
  std::vector<std::uint8_t> codes;
  for (std::int32_t f = 0; f < m.features(); ++f)
    for (std::int64_t i = 0; i < m.rows; ++i) codes.push_back(tree::code(m, i, f));
  return codes;
}

template <class T>
struct Csr {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<T> values;
  std::int64_t cols = 0;
  explicit Csr(const RowMajor<T>& x, bool store_missing = false) : cols(x.cols()) {
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      for (std::int64_t f = 0; f < x.cols(); ++f) {
        if (std::isnan(x(i, f)) && !(store_missing && (i + f) % 3 == 0)) continue;
        columns.push_back(static_cast<std::int32_t>(f));
        values.push_back(x(i, f));
      }
      offsets.push_back(static_cast<std::int64_t>(values.size()));
    }
  }
  [[nodiscard]] tree::CsrView<T> view() const { return {offsets, columns, values, cols}; }
};

template <class T>
class BinningTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(BinningTest, Scalars);

TYPED_TEST(BinningTest, EqualsNaiveOnAwkwardColumns) {
  for (const std::int64_t rows : {0, 1, 2, 3, 7, 8, 100, 1025, 5000, 20001})
    for (const int max_bin : {2, 255}) expect_naive(awkward<TypeParam>(rows), {}, max_bin);
  expect_naive(awkward<TypeParam>(70000), {}, 64);
}

TYPED_TEST(BinningTest, EqualsNaiveWithWeights) {
  for (const std::int64_t rows : {2, 100, 5000}) {
    std::vector<float> weights;
    // Quarters are exact in the sketch's integers and in the doubles of the test.
    for (std::int64_t i = 0; i < rows; ++i)
      weights.push_back(0.25f * static_cast<float>(i * 7 % 9));
    for (const int max_bin : {2, 31, 255})
      expect_naive(awkward<TypeParam>(rows, 3), weights, max_bin);
  }
}

TYPED_TEST(BinningTest, EqualWeightsAreNoWeights) {
  const RowMajor<TypeParam> x = awkward<TypeParam>(9000);
  tree::Dataset data = tree::make_dataset(x);
  const tree::Cuts plain = tree::make_cuts(data, 100);
  data.weights.assign(9000, 0.37f);
  expect_same(tree::make_cuts(data, 100), plain, 0);
}

TYPED_TEST(BinningTest, EveryLayoutGivesTheSame) {
  using T = TypeParam;
  const RowMajor<T> x = awkward<T>(3000);
  const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> by_column = x;
  RowMajor<T> wide(6000, 44);
  wide.setConstant(T(77));
  for (std::int64_t i = 0; i < x.rows(); ++i)
    for (std::int64_t f = 0; f < x.cols(); ++f) wide(5999 - 2 * i, 1 + 2 * f) = x(i, f);
  const MatrixView<const T> strided(&wide(5999, 1), {x.rows(), x.cols()}, {-88, 2});
  const Csr<T> csr(x), with_missing(x, true);

  const tree::BinnedMatrix expected = tree::bin(tree::make_dataset(x));
  for (const tree::Dataset& data :
       {tree::make_dataset(by_column), tree::make_dataset(strided), tree::make_dataset(csr.view()),
        tree::make_dataset(with_missing.view())}) {
    const tree::BinnedMatrix m = tree::bin(data);
    expect_same(m.cuts, expected.cuts, 0);
    EXPECT_TRUE(same_bits(m, expected));
  }
}

TYPED_TEST(BinningTest, ThreadsDoNotMatter) {
  using T = TypeParam;
  const RowMajor<T> x = awkward<T>(70000);
  const Csr<T> csr(x);
  for (const tree::Dataset& data : {tree::make_dataset(x), tree::make_dataset(csr.view())}) {
    const tree::BinnedMatrix one = tree::bin(data, 255, {.threads = 1});
    for (const int threads : {2, 3}) {
      const tree::BinnedMatrix m = tree::bin(data, 255, {.threads = threads});
      expect_same(m.cuts, one.cuts, 0);
      EXPECT_TRUE(same_bits(m, one));
    }
  }
}

TYPED_TEST(BinningTest, BlocksHoldWhatColumnsHold) {
  const RowMajor<TypeParam> x = awkward<TypeParam>(5000);
  tree::BinnedMatrix m = tree::bin(tree::make_dataset(x));
  const std::vector<std::uint8_t> columns(m.columns.begin(), m.columns.end());
  EXPECT_EQ(block_codes(m), columns);
  EXPECT_EQ(m.block_of[3], -1);   // constant
  EXPECT_EQ(m.block_of[4], -1);   // all missing
  EXPECT_EQ(m.block_of[12], -1);  // both zeros
  EXPECT_GE(m.block_of[20], 0);   // one row differs
}

TYPED_TEST(BinningTest, SparseCsrHasNoColumns) {
  using T = TypeParam;
  RowMajor<T> x = RowMajor<T>::Constant(3000, 700, T(nan));
  std::mt19937 generator(5);
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    for (int k = 0; k < 20; ++k)
      x(i, static_cast<std::int64_t>(generator() % 600)) = static_cast<T>(generator() % 1000);
    for (int f = 600; f < 640; ++f) x(i, f) = static_cast<T>(generator() % 1000);  // dense
    for (int f = 640; f < 690; ++f) x(i, f) = T(2);                                // constant
  }
  const Csr<T> csr(x);
  tree::BinnedMatrix sparse = tree::bin(tree::make_dataset(csr.view()));
  EXPECT_EQ(sparse.column(0), nullptr);
  expect_consistent(sparse);
  const tree::BinnedMatrix dense = tree::bin(tree::make_dataset(x));
  expect_same(sparse.cuts, dense.cuts, 0);
  EXPECT_EQ(block_codes(sparse),
            std::vector<std::uint8_t>(dense.columns.begin(), dense.columns.end()));
  EXPECT_EQ(sparse.block_of[650], -1);
  EXPECT_EQ(sparse.block_of[699], -1);
  for (const tree::FeatureBlock& block : sparse.blocks)
    EXPECT_EQ(block.layout == tree::BlockLayout::dense, block.features.front() >= 600);
}

TYPED_TEST(BinningTest, OneHotFeaturesShareABlock) {
  RowMajor<TypeParam> x = RowMajor<TypeParam>::Zero(2000, 1200);
  for (std::int64_t i = 0; i < x.rows(); ++i)
    for (int k = 0; k < 3; ++k) x(i, k * 400 + (i * 7 + k * 13) % 400) = 1;
  tree::BinnedMatrix m = tree::bin(tree::make_dataset(x));
  ASSERT_EQ(m.blocks.size(), 1u);
  EXPECT_EQ(m.blocks[0].layout, tree::BlockLayout::sparse);
  EXPECT_EQ(m.blocks[0].size(), 1200);
  EXPECT_EQ(m.blocks[0].entries.size(), 6000u);
  const std::vector<std::uint8_t> columns(m.columns.begin(), m.columns.end());
  EXPECT_EQ(block_codes(m), columns);
}

TYPED_TEST(BinningTest, UnseenValuesGoToTheEndBins) {
  using T = TypeParam;
  RowMajor<T> train(4, 1), other(6, 1);
  train << 1, 2, 3, 4;
  other << T(-100), T(1.5), 2, T(3.99), T(1e30), T(nan);
  const tree::Cuts cuts = tree::make_cuts(tree::make_dataset(train));
  const tree::BinnedMatrix m = tree::bin(tree::make_dataset(other), cuts, {.fill_blocks = false});
  const std::vector<std::uint8_t> expected = {1, 1, 2, 3, 4, 0};
  EXPECT_EQ(std::vector<std::uint8_t>(m.columns.begin(), m.columns.end()), expected);
  EXPECT_TRUE(m.blocks.empty());
}

TEST(BinningTest, DoubleCutsOnFloatValues) {
  // 0.1f is above 0.1, and 0.3f is below ... 0.3 rounded up: the comparison is in double.
  RowMajor<double> train(3, 1);
  train << 0.1, 0.3, 1e300;
  RowMajor<float> x(5, 1);
  x << 0.1f, 0.3f, std::nextafter(0.3f, 0.0f), std::numeric_limits<float>::max(), -1.0f;
  const tree::Cuts cuts = tree::make_cuts(tree::make_dataset(train));
  const tree::BinnedMatrix m = tree::bin(tree::make_dataset(x), cuts);
  for (std::int64_t i = 0; i < 5; ++i)
    EXPECT_EQ(m.columns[static_cast<std::size_t>(i)],
              naive_code({0.3, 1e300}, static_cast<double>(x(i, 0))));
}

TYPED_TEST(BinningTest, InfiniteFeaturesAreRefused) {
  using T = TypeParam;
  for (const T infinity :
       {std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity()}) {
    RowMajor<T> x = awkward<T>(3000);
    const tree::Cuts cuts = tree::make_cuts(tree::make_dataset(x));
    x(2345, 17) = infinity;
    const Csr<T> csr(x);
    for (const tree::Dataset& data : {tree::make_dataset(x), tree::make_dataset(csr.view())}) {
      for (const bool with_cuts : {false, true}) {
        try {
          if (with_cuts) {
            (void)tree::bin(data, cuts);
          } else {
            (void)tree::bin(data, 255);
          }
          FAIL() << "no error";
        } catch (const ValueError& error) {
          EXPECT_NE(std::string(error.what()).find("row 2345, column 17"), std::string::npos)
              << error.what();
        }
      }
    }
  }
}

TEST(BinningTest, BadArguments) {
  const RowMajor<float> x = RowMajor<float>::Random(10, 3);
  const tree::Dataset data = tree::make_dataset(x);
  EXPECT_THROW((void)tree::bin(data, 1), ValueError);
  EXPECT_THROW((void)tree::bin(data, 256), ValueError);
  const RowMajor<float> y = RowMajor<float>::Random(10, 4);
  EXPECT_THROW((void)tree::bin(tree::make_dataset(y), tree::make_cuts(data)), ShapeError);
  tree::Cuts many;
  many.offsets = {0, 0, 255, 255};
  for (int c = 0; c < 255; ++c) many.values.push_back(c);
  many.has_missing = {0, 0, 0};
  EXPECT_THROW((void)tree::bin(data, many), ValueError);
  const RowMajor<float> none(10, 0);
  const tree::BinnedMatrix m = tree::bin(tree::make_dataset(none));
  EXPECT_EQ(m.features(), 0);
  EXPECT_TRUE(m.blocks.empty());
}

/// XGBoost's cuts for max_bin 8 lie within 0.015 of the quantiles, ours within 0.02 (a row is
/// 0.004); where values are few all cuts are the same. Its first and last value are bounds.
TEST(BinningTest, CutsAreNearTheQuantilesThatXgboostCutsAt) {
  const ReferenceText stored("stored.txt");
  const std::vector<float> x = reference_npy<float>("X"), w = reference_npy<float>("w");
  for (const std::string name : {"cuts8", "cuts8_w"}) {
    tree::Dataset data =
        tree::make_dataset(MatrixView<const float>(x.data(), {std::int64_t{311}, std::int64_t{9}}));
    if (name == "cuts8_w") data.weights = w;
    const tree::Cuts cuts = tree::bin(data, 8).cuts;
    for (std::int32_t f = 0; f < 7; ++f) {
      double all = 0;
      for (std::size_t r = 0; r < 311; ++r) {
        const float v = x[r * 9 + static_cast<std::size_t>(f)];
        if (!std::isnan(v)) all += data.weights.empty() ? 1.0 : static_cast<double>(w[r]);
      }
      ASSERT_EQ(cuts.bins(f), 8) << f;
      for (std::int32_t b = 1; b < 8; ++b) {
        double below = 0;
        for (std::size_t r = 0; r < 311; ++r) {
          const float v = x[r * 9 + static_cast<std::size_t>(f)];
          if (static_cast<double>(v) < cuts.cut(f, b))
            below += data.weights.empty() ? 1.0 : static_cast<double>(w[r]);
        }
        EXPECT_NEAR(below / all, b / 8.0, 0.02) << name << " " << f << " " << b;
      }
    }
    const auto from = static_cast<std::int64_t>(stored[name + ".ptr"][7]) + 1;
    ASSERT_EQ(cuts.bins(7) - 1, static_cast<std::int64_t>(stored[name + ".ptr"][8]) - 1 - from);
    for (std::int32_t b = 1; b < cuts.bins(7); ++b)
      EXPECT_EQ(cuts.cut(7, b), stored[name + ".val"][static_cast<std::size_t>(from + b - 1)]);
  }
}

}  // namespace
}  // namespace quern::test::binning
