// SPDX-License-Identifier: Apache-2.0

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace quern::test::tree_partition {
namespace {

TEST(TreePartitionKernel, RoutesInOrderAndByBothDefaults) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    for (const std::int32_t n : {0, 1, 2, 31, 32, 33, 500}) {
      Philox rng(1, "partition", static_cast<std::uint64_t>(n));
      std::vector<std::uint8_t> column(static_cast<std::size_t>(3 * n + 1));
      for (std::uint8_t& c : column) c = static_cast<std::uint8_t>(rng.integer(256));
      std::vector<std::int32_t> index;
      for (std::int32_t i = 0; i < n; ++i) index.push_back(3 * i);
      for (const bool listed : {false, true}) {
        for (const int bin : {1, 100, 254, 255}) {
          for (const bool missing_left : {false, true}) {
            std::vector<std::int32_t> left, right;
            for (std::int32_t i = 0; i < n; ++i) {
              const std::int32_t row = listed ? index[static_cast<std::size_t>(i)] : i + 1;
              const int code = column[static_cast<std::size_t>(row)];
              (code == 0 ? missing_left : code <= bin) ? left.push_back(row) : right.push_back(row);
            }
            std::reverse(right.begin(), right.end());
            std::vector<std::int32_t> expected = left;
            expected.insert(expected.end(), right.begin(), right.end());
            std::vector<std::int32_t> out(static_cast<std::size_t>(n));
            const kernels::RowList rows{listed ? index.data() : nullptr, 1, n};
            const std::int64_t lefts = QUERN_DISPATCH(
                partition_rows<std::int32_t>(column.data(), missing_left ? 0 : 1,
                                             bin + (missing_left ? 1 : 0), rows, out.data()));
            EXPECT_EQ(lefts, static_cast<std::int64_t>(left.size()));
            EXPECT_EQ(out, expected);
          }
        }
      }
    }
  }
}

TEST(TreePartitionKernel, RoutesByATable) {
  Philox rng(2, "partition table");
  std::vector<std::uint8_t> column(400), goes_left(256);
  for (std::uint8_t& c : column) c = static_cast<std::uint8_t>(rng.integer(256));
  for (std::uint8_t& l : goes_left) l = rng.bernoulli(0.4) ? 1 : 0;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    for (const std::int32_t n : {0, 1, 2, 33, 300}) {
      std::vector<std::int32_t> left, right, out(static_cast<std::size_t>(n));
      for (std::int32_t row = 7; row < 7 + n; ++row)
        (goes_left[column[static_cast<std::size_t>(row)]] != 0 ? left : right).push_back(row);
      const auto lefts = static_cast<std::int64_t>(left.size());
      left.insert(left.end(), right.rbegin(), right.rend());
      const kernels::RowList rows{nullptr, 7, n};
      EXPECT_EQ(QUERN_DISPATCH(partition_rows_by_table<std::int32_t>(
                    column.data(), goes_left.data(), rows, out.data())),
                lefts);
      EXPECT_EQ(out, left);
    }
  }
}

}  // namespace
}  // namespace quern::test::tree_partition
