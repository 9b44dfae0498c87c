// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/detail/copy_rows.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace quern::test::copy_rows {
namespace {

TEST(CopyRows, DenseRowsOfAnyOrderAndSparseOnesWithGaps) {
  const std::vector<double> x = {1, 4, 7, 2, 5, 8, 3, 6, 9};  // column-major (3, 3)
  std::vector<double> out(6);
  tree::detail::copy_rows(MatrixView<const double>(x.data(), {3, 3}, {1, 3}), {1, 3}, out.data());
  EXPECT_EQ(out, (std::vector<double>{4, 5, 6, 7, 8, 9}));
  const std::vector<std::int64_t> offsets = {0, 1, 1, 3};
  const std::vector<std::int32_t> columns = {2, 0, 1};
  const std::vector<double> values = {1, 2, 3};
  tree::detail::copy_rows(tree::CsrView<double>{offsets, columns, values, 3}, {1, 3}, out.data());
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NE(out[i], out[i]) << i;
  EXPECT_EQ(out[3], 2);
  EXPECT_EQ(out[4], 3);
  EXPECT_NE(out[5], out[5]);
}

}  // namespace
}  // namespace quern::test::copy_rows
