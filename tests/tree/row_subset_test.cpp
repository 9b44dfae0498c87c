// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/row_subset.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

namespace quern::test::row_subset {
namespace {

using tree::Dataset;
using tree::RowSubset;
using Rows = std::vector<std::int32_t>;

TEST(RowSubset, DenseRowsAndWhatGoesWithThem) {
  const std::vector<double> x = {0, 1, 10, 11, 20, 21, 30, 31};
  Dataset d = tree::make_dataset(MatrixView<const double>(x.data(), {4, 2}), {5, 6, 7, 8});
  d.weights = {1, 2, 3, 4};
  d.base_margin = {0, 1, 2, 3, 4, 5, 6, 7};
  d.label_lower_bound = {1, 1, 2, 2};
  d.feature_names = {"a", "b"};
  const RowSubset subset(d, Rows{3, 1, 3});
  const Dataset copy = subset.data();  // shares the memory
  const auto& rows = std::get<MatrixView<const double>>(copy.features);
  ASSERT_EQ(rows.rows(), 3);
  EXPECT_EQ(rows(0, 1), 31);
  EXPECT_EQ(rows(1, 0), 10);
  EXPECT_EQ(copy.labels, (std::vector<float>{8, 6, 8}));
  EXPECT_EQ(copy.weights, (std::vector<float>{4, 2, 4}));
  EXPECT_EQ(copy.base_margin, (std::vector<float>{6, 7, 2, 3, 6, 7}));
  EXPECT_EQ(copy.label_lower_bound, (std::vector<float>{2, 1, 2}));
  EXPECT_TRUE(copy.label_upper_bound.empty());
  EXPECT_EQ(copy.feature_names, d.feature_names);
  EXPECT_THROW(RowSubset(d, Rows{4}), ValueError);
  EXPECT_THROW(RowSubset(d, Rows{-1}), ValueError);
  EXPECT_EQ(RowSubset(d, Rows{}).data().rows(), 0);
}

TEST(RowSubset, SparseRows) {
  const std::vector<std::int64_t> offsets = {0, 2, 2, 3};
  const std::vector<std::int32_t> columns = {0, 4, 2};
  const std::vector<float> values = {1, 2, 3};
  const RowSubset subset(tree::make_dataset(tree::CsrView<float>{offsets, columns, values, 5}),
                         Rows{2, 1, 0});
  const auto& x = std::get<tree::CsrView<float>>(subset.data().features);
  EXPECT_EQ(x.cols, 5);
  EXPECT_EQ(Rows(x.columns.begin(), x.columns.end()), (Rows{2, 0, 4}));
  EXPECT_EQ(std::vector<std::int64_t>(x.row_offsets.begin(), x.row_offsets.end()),
            (std::vector<std::int64_t>{0, 1, 1, 3}));
  EXPECT_EQ(std::vector<float>(x.values.begin(), x.values.end()), (std::vector<float>{3, 1, 2}));
}

TEST(RowSubset, GroupsStayWhole) {
  const std::vector<float> x = {0, 1, 2, 3, 4, 5};
  Dataset d = tree::make_dataset(MatrixView<const float>(x.data(), {6, 1}));
  d.group_offsets = {0, 2, 2, 3, 6};
  EXPECT_EQ(RowSubset(d, Rows{0, 1, 3, 4, 5}).data().group_offsets,
            (std::vector<std::int64_t>{0, 2, 5}));
  EXPECT_EQ(RowSubset(d, Rows{2}).data().group_offsets, (std::vector<std::int64_t>{0, 1}));
  EXPECT_THROW(RowSubset(d, Rows{0, 1, 3, 4}), ShapeError);
  EXPECT_THROW(RowSubset(d, Rows{1, 2}), ShapeError);
  EXPECT_THROW(RowSubset(d, Rows{2, 0, 1}), ShapeError);
}

}  // namespace
}  // namespace quern::test::row_subset
