// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/sorted_columns.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::sorted_columns {
namespace {

using tree::SortedColumns;

template <class T>
class SortedColumnsOf : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(SortedColumnsOf, Scalars);

TYPED_TEST(SortedColumnsOf, ValuesThenRowsWithoutTheMissing) {
  using T = TypeParam;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> x = {3, nan, 1, 5, 3, -5, 1, nan, 2, 5};
  const MatrixView<const T> m(x.data(), {5, 2});
  const std::vector<std::int64_t> offsets = {0, 1, 3, 5, 6, 8};
  const std::vector<std::int32_t> columns = {0, 0, 1, 0, 1, 0, 0, 1};
  const std::vector<T> values = {3, 1, 5, 3, -5, 1, 2, 5};
  const tree::CsrView<T> csr{offsets, columns, values, 2};
  for (const tree::FeatureView& view : {tree::FeatureView(m), tree::FeatureView(csr)}) {
    for (const int threads : {1, 2, 3}) {
      const SortedColumns s(view, threads);
      ASSERT_EQ(s.features(), 2);
      EXPECT_EQ(s.rows(), 5);
      EXPECT_EQ(s.column(0).values, (std::vector<double>{1, 1, 2, 3, 3}));
      EXPECT_EQ(s.column(0).rows, (std::vector<std::int32_t>{1, 3, 4, 0, 2}));
      EXPECT_EQ(s.column(1).rows, (std::vector<std::int32_t>{2, 1, 4}));
      EXPECT_FALSE(s.has_missing(0));
      EXPECT_TRUE(s.has_missing(1));
    }
  }
}

TYPED_TEST(SortedColumnsOf, ThresholdsLieBetweenAndBeyond) {
  using T = TypeParam;
  const std::vector<T> x = {0};
  const SortedColumns s(tree::FeatureView(MatrixView<const T>(x.data(), {1, 1})), 1);
  EXPECT_EQ(s.middle(1, 2), 1.5);
  // Neighbours have no middle: the larger one is above the smaller and not above itself.
  const T one = 1, next = one + std::numeric_limits<T>::epsilon();
  EXPECT_EQ(s.middle(one, static_cast<double>(next)), static_cast<double>(next));
  for (const double last : {-7.0, 0.0, 3.0}) {
    EXPECT_GT(s.beyond(last, 1), last);
    EXPECT_LT(s.beyond(last, -1), last);
  }
}

TYPED_TEST(SortedColumnsOf, RefusesInfinity) {
  using T = TypeParam;
  const std::vector<T> x = {0, -std::numeric_limits<T>::infinity()};
  EXPECT_THROW(SortedColumns(tree::FeatureView(MatrixView<const T>(x.data(), {2, 1})), 1),
               ValueError);
}

}  // namespace
}  // namespace quern::test::sorted_columns
