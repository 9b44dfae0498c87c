// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/dataset.hpp"
#include "quern/tree/eigen_dataset.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace quern::test::dataset {
namespace {

using tree::Dataset;

/// The message of the error of type E that check() throws, "" if none.
template <class E>
std::string error_of(const Dataset& data) {
  try {
    data.check("f");
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

template <class T>
class DatasetTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(DatasetTest, Scalars);

TEST(DatasetTest, ChecksRowData) {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Zero(3, 2);
  const Dataset good = tree::make_dataset(x, {0.0f, 1.0f, 0.0f});
  EXPECT_EQ(error_of<Error>(good), "");
  Dataset d = good;
  d.labels.pop_back();
  EXPECT_TRUE(contains(error_of<ShapeError>(d), "f: labels: expected none or 3, got 2"));
  d = good;
  d.labels[1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(contains(error_of<ValueError>(d), "label of row 1"));
  d = good;
  d.weights = {1.0f, 0.0f, -1.0f};
  EXPECT_TRUE(contains(error_of<ValueError>(d), "weight of row 2"));
  d.weights = {1.0f, std::numeric_limits<float>::infinity(), 1.0f};
  EXPECT_TRUE(contains(error_of<ValueError>(d), "weight of row 1"));
  d = good;
  d.base_margin = {0.0f, 1.0f, 2.0f, 3.0f};
  EXPECT_TRUE(contains(error_of<ShapeError>(d), "base_margin"));
  d.base_margin.resize(6);
  EXPECT_EQ(error_of<Error>(d), "");
  d.base_margin[5] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(contains(error_of<ValueError>(d), "base_margin of row 5"));
  d = good;
  d.feature_names = {"only one"};
  EXPECT_TRUE(contains(error_of<ShapeError>(d), "feature_names"));
  d = good;
  d.feature_kinds.resize(3);
  EXPECT_TRUE(contains(error_of<ShapeError>(d), "feature_kinds"));
  d = good;
  d.categories.resize(5);
  EXPECT_TRUE(contains(error_of<ShapeError>(d), "categories"));
}

TEST(DatasetTest, ChecksGroups) {
  const Eigen::MatrixXf x = Eigen::MatrixXf::Zero(3, 2);
  Dataset d = tree::make_dataset(x);
  for (const std::vector<std::int64_t>& good :
       {std::vector<std::int64_t>{0, 3}, {0, 1, 1, 3}, {}}) {
    d.group_offsets = good;
    EXPECT_EQ(error_of<Error>(d), "");
  }
  for (const std::vector<std::int64_t>& bad :
       {std::vector<std::int64_t>{0}, {1, 3}, {0, 2}, {0, 2, 1, 3}, {0, 4}}) {
    d.group_offsets = bad;
    EXPECT_TRUE(contains(error_of<ShapeError>(d), "group_offsets"));
  }
}

TYPED_TEST(DatasetTest, ChecksCsr) {
  using T = TypeParam;
  std::vector<std::int64_t> offsets = {0, 2, 2, 3};
  std::vector<std::int32_t> columns = {0, 2, 1};
  const std::vector<T> values = {1, 2, 3};
  const auto error = [&](std::int64_t cols) {
    return error_of<ShapeError>(
        tree::make_dataset(tree::CsrView<T>{offsets, columns, values, cols}));
  };
  EXPECT_EQ(error(3), "");
  EXPECT_TRUE(contains(error(2), "CSR row 0"));
  EXPECT_TRUE(contains(error(-1), "CSR columns"));
  columns = {2, 0, 1};
  EXPECT_TRUE(contains(error(3), "CSR row 0"));
  columns = {1, 1, 1};
  EXPECT_TRUE(contains(error(3), "CSR row 0"));
  columns = {0, 1, -1};
  EXPECT_TRUE(contains(error(3), "CSR row 2"));
  columns = {0, 1};
  EXPECT_TRUE(contains(error(3), "CSR columns"));
  columns = {0, 2, 1};
  for (const std::vector<std::int64_t>& bad :
       {std::vector<std::int64_t>{0, 2, 2, 4}, {1, 2, 2, 3}, {0, 3, 2, 3}, {0, 9, 9, 3}, {}}) {
    offsets = bad;
    EXPECT_TRUE(contains(error(3), "CSR row"));
  }
}

TEST(BaseMargins, AreOneForEachRowAndOutput) {
  const std::vector<float> x = {1, 2, 3, 4};
  Dataset d = tree::make_dataset(MatrixView<const float>(x.data(), {4, 1}));
  EXPECT_NO_THROW(tree::detail::check_base_margin("f", "base_margin", d, 3));
  d.base_margin.assign(12, 0.5f);
  EXPECT_NO_THROW(tree::detail::check_base_margin("f", "base_margin", d, 3));
  d.base_margin.resize(4);
  try {
    tree::detail::check_base_margin("f", "base_margin of test", d, 3);
    ADD_FAILURE();
  } catch (const ShapeError& e) {
    EXPECT_STREQ(e.what(),
                 "f: base_margin of test: expected 12 values (4 rows x 3 outputs) or none, got 4");
  }
}

}  // namespace
}  // namespace quern::test::dataset
