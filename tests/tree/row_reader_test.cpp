// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/row_reader.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::row_reader {
namespace {

using tree::InputType;
using tree::RowReader;

const double nan = std::numeric_limits<double>::quiet_NaN();
const double third = 1.0 / 3;

TEST(RowReader, ReadsWhatTheModelCompares) {
  const std::vector<double> x = {third, nan, 2, 4};
  const tree::FeatureView dense(MatrixView<const double>(x.data(), {2, 2}));
  bool missing = false;
  EXPECT_EQ(RowReader(dense, InputType::float64).value(0, 0, missing), third);
  EXPECT_EQ(RowReader(dense, InputType::float32).value(0, 0, missing),
            static_cast<double>(static_cast<float>(third)));
  EXPECT_FALSE(missing);
  EXPECT_EQ(RowReader(dense, InputType::float64).value(0, 1, missing), 0);
  EXPECT_TRUE(missing);
}

TEST(RowReader, SparseRowsMissWhatIsNotStored) {
  const std::vector<std::int64_t> offsets = {0, 2, 2, 3};
  const std::vector<std::int32_t> columns = {1, 5, 0};
  const std::vector<double> values = {7, nan, 9};
  const RowReader reader(tree::CsrView<double>{offsets, columns, values, 6}, InputType::float64);
  const double expected[3][6] = {
      {nan, 7, nan, nan, nan, nan}, {nan, nan, nan, nan, nan, nan}, {9, nan, nan, nan, nan, nan}};
  for (int r = 0; r < 3; ++r) {
    for (int f = 0; f < 6; ++f) {
      bool missing = false;
      const double value = reader.value(r, f, missing);
      EXPECT_EQ(missing, expected[r][f] != expected[r][f]) << r << ", " << f;
      EXPECT_EQ(value, missing ? 0 : expected[r][f]);
    }
  }
}

TEST(RowReader, WalksToLeaves) {
  tree::Tree t;
  t.split(0);
  t.split(2);
  t.node(0).feature = 0;
  t.node(0).threshold = 1;
  t.node(2).feature = 1;
  t.node(2).default_left = true;
  t.node(1).value = 5;
  t.linear = {{0, 0, 1, 1, 1, 1}, {0}, {2.0}, {0, 1, 0, 0, 0}};
  const std::vector<float> x = {0.5f, 3, 1,    -1,
                                2,    0, 1.5f, std::numeric_limits<float>::quiet_NaN()};
  const RowReader reader(MatrixView<const float>(x.data(), {4, 2}), InputType::float32);
  const std::int32_t leaves[] = {1, 3, 4, 3};
  for (int r = 0; r < 4; ++r) EXPECT_EQ(reader.leaf(t, r), leaves[r]);
  EXPECT_EQ(reader.leaf_value(t, 1, 0), 1 + 2 * 0.5);
  t.linear = {};
  EXPECT_EQ(reader.leaf_value(t, 1, 0), 5);
}

}  // namespace
}  // namespace quern::test::row_reader
