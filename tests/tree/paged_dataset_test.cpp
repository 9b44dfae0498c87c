// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/paged_dataset.hpp"

#include "quern/core/random.hpp"
#include "quern/tree/eigen_dataset.hpp"
#include "quern/tree/grow.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::paged_dataset {
namespace {

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
RowMajor<T> features(std::int64_t rows, std::int64_t cols) {
  Philox rng(3, "paged test");
  RowMajor<T> x(rows, cols);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < cols; ++j) {
      x(i, j) = j % 3 == 0 ? static_cast<T>(rng.integer(7)) : rng.normal<T>();
      if (j % 5 == 1 && rng.bernoulli(0.2)) x(i, j) = std::numeric_limits<T>::quiet_NaN();
    }
  return x;
}

/// Blocks of \p size rows, with weights unless they are empty.
template <class T>
tree::RowBlocks blocks(const RowMajor<T>& x, std::int64_t size, std::vector<float> weights) {
  return [&x, size, weights = std::move(weights)](std::int64_t number, tree::Dataset& block) {
    const std::int64_t begin = number * size,
                       end = (std::min)(begin + size, std::int64_t{x.rows()});
    if (begin >= end) return false;
    block.features = MatrixView<const T>(x.data() + begin * x.cols(), {end - begin, x.cols()});
    if (!weights.empty()) block.weights.assign(weights.begin() + begin, weights.begin() + end);
    return true;
  };
}

template <class T>
class PagedDataset : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(PagedDataset, Types);

TYPED_TEST(PagedDataset, HoldsTheCodesOfBinningInMemory) {
  using T = TypeParam;
  const RowMajor<T> x = features<T>(5000, 130);  // three blocks of features, two passes of sketches
  std::vector<float> weights;
  Philox rng(4, "weights");
  for (std::int64_t i = 0; i < x.rows(); ++i) weights.push_back(rng.uniform<float>());
  tree::Dataset all = tree::make_dataset(x);
  for (const bool weighted : {false, true}) {
    if (weighted) all.weights = weights;
    const tree::BinnedMatrix expected = tree::bin(all, 40);
    for (const std::int64_t page : {1000, 700, 9000}) {
      const tree::PagedDataset paged =
          tree::page_rows(blocks(x, page == 700 ? 1300 : 999, all.weights),
                          {.max_bin = 40, .page_rows = page, .threads = page == 1000 ? 1 : 3});
      EXPECT_EQ(paged.cuts.values, expected.cuts.values);
      EXPECT_EQ(paged.cuts.offsets, expected.cuts.offsets);
      EXPECT_EQ(paged.cuts.has_missing, expected.cuts.has_missing);
      EXPECT_EQ(paged.data.weights, all.weights);
      const tree::BinnedMatrix m = paged.matrix();
      for (std::int64_t p = 0; p * page < x.rows(); ++p) {
        const tree::PageCodes codes = m.pages->load(p);
        ASSERT_EQ(codes.begin, p * page);
        for (std::int64_t r = codes.begin; r < codes.end; ++r)
          for (std::int32_t f = 0; f < m.features(); ++f)
            ASSERT_EQ(tree::code(m, codes, r, f), tree::code(expected, r, f)) << r << ", " << f;
      }
    }
  }
}

TEST(PagedDataset, GrowsTheTreesOfMemory) {
  const RowMajor<float> x = features<float>(40000, 9);
  Philox rng(5, "gradients");
  std::vector<tree::GradientPair> g;
  for (std::int64_t i = 0; i < x.rows(); ++i)
    g.push_back(
        {rng.normal<float>() + (x(i, 2) > 0 ? x(i, 4) : 0.5f), 0.5f + rng.uniform<float>()});
  std::vector<std::int32_t> sample;
  for (std::int32_t i = 0; i < x.rows(); i += 1 + i % 3) sample.push_back(i);
  const tree::BinnedMatrix memory = tree::bin(tree::make_dataset(x), 64);
  for (const std::int64_t page : {3000, 16384, 50000}) {
    const tree::PagedDataset paged =
        tree::page_rows(blocks(x, 7000, {}), {.max_bin = 64, .page_rows = page});
    const tree::BinnedMatrix m = paged.matrix();
    for (const int threads : {1, 2, 3}) {
      tree::GrowOptions options;
      options.threads = threads;
      options.max_depth = threads == 3 ? 0 : 6;
      options.max_leaves = threads == 3 ? 50 : 0;
      options.policy = threads == 3 ? tree::GrowPolicy::lossguide : tree::GrowPolicy::depthwise;
      for (const auto precision :
           {tree::HistogramPrecision::packed, tree::HistogramPrecision::full}) {
        options.precision = precision;
        for (const bool sampled : {false, true}) {
          const std::vector<std::int32_t> rows = sampled ? sample : std::vector<std::int32_t>();
          const tree::Tree a = tree::Grower(memory, options).grow(g, rows, 1);
          const tree::Tree b = tree::Grower(m, options).grow(g, rows, 1);
          ASSERT_EQ(a.nodes.size(), b.nodes.size());
          for (std::size_t i = 0; i < a.nodes.size(); ++i) {
            ASSERT_EQ(a.nodes[i].feature, b.nodes[i].feature);
            ASSERT_EQ(a.nodes[i].threshold, b.nodes[i].threshold);
            ASSERT_EQ(a.nodes[i].value, b.nodes[i].value);
          }
        }
      }
    }
  }
}

TEST(PagedDataset, SparseBlocksAreSpreadOut) {
  const RowMajor<float> x = features<float>(500, 6);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<float> values;
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    for (std::int32_t j = 0; j < 6; ++j) {
      if (tree::float_key(x(i, j)) == kernels::missing_key<std::int32_t>) continue;
      columns.push_back(j);
      values.push_back(x(i, j));
    }
    offsets.push_back(static_cast<std::int64_t>(values.size()));
  }
  const auto one = [&](std::int64_t number, tree::Dataset& block) {
    block.features = tree::CsrView<float>{offsets, columns, values, 6};
    return number == 0;
  };
  const tree::PagedDataset paged = tree::page_rows(one, {.page_rows = 123});
  const tree::BinnedMatrix expected = tree::bin(tree::make_dataset(x));
  EXPECT_EQ(paged.cuts.values, expected.cuts.values);
  const tree::BinnedMatrix m = paged.matrix();
  const tree::PageCodes codes = m.pages->load(4);
  EXPECT_EQ(codes.end, 500);
  for (std::int32_t f = 0; f < 6; ++f)
    EXPECT_EQ(tree::code(m, codes, 499, f), tree::code(expected, 499, f));
}

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(PagedDataset, BlocksThatChangeAreRefused) {
  const RowMajor<float> x = features<float>(300, 4), narrow = features<float>(300, 3);
  int asked = 0;
  const auto shrinking = [&](std::int64_t number, tree::Dataset& block) {
    if (number == 0) ++asked;
    block = tree::make_dataset(x);
    return number < (asked == 1 ? 2 : 1);
  };
  EXPECT_NE(message_of([&] { (void)tree::page_rows(shrinking); }).find("600 rows on every pass"),
            std::string::npos);
  const auto uneven = [&](std::int64_t number, tree::Dataset& block) {
    block = tree::make_dataset(number == 0 ? x : narrow);
    return number < 2;
  };
  EXPECT_NE(message_of([&] { (void)tree::page_rows(uneven); }).find("features of block 1"),
            std::string::npos);
  const auto good = blocks(x, 100, {});
  EXPECT_NE(message_of([&] { (void)tree::page_rows(good, {.page_rows = 0}); }).find("page_rows"),
            std::string::npos);
  EXPECT_NE(
      message_of([&] { (void)tree::page_rows(good, {.directory = "/no/such"}); }).find("/no/such"),
      std::string::npos);
}

}  // namespace
}  // namespace quern::test::paged_dataset
