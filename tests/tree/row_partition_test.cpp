// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/row_partition.hpp"

#include "quern/core/random.hpp"
#include "quern/tree/binning.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::row_partition {
namespace {

TEST(RowPartition, SplitsInOrderAndSumsItsRanges) {
  const std::int64_t rows = 50000;  // several tasks
  Philox rng(1, "partition test");
  Eigen::MatrixXf x(rows, 2);
  std::vector<tree::GradientPair> gradients;
  for (std::int64_t i = 0; i < rows; ++i) {
    x(i, 0) = rng.normal<float>();
    x(i, 1) = rng.bernoulli(0.2) ? std::numeric_limits<float>::quiet_NaN() : rng.normal<float>();
    gradients.push_back({rng.normal<float>(), rng.uniform<float>()});
  }
  const tree::BinnedMatrix data = tree::bin(tree::make_dataset(x), 32);
  tree::QuantisedGradients q;
  q.assign(gradients, tree::HistogramPrecision::packed, 1);
  for (const int threads : {1, 2, 3}) {
    tree::RowPartition partition(data, threads);
    partition.reset({});
    tree::Split split;
    split.feature = 1;
    split.bin = 10;
    split.missing_left = threads == 2;
    std::vector<std::int32_t> left, right;
    for (std::int32_t i = 0; i < rows; ++i) {
      const int c = tree::code(data, i, 1);
      (c == 0 ? split.missing_left : c <= 10) ? left.push_back(i) : right.push_back(i);
    }
    tree::RowPartition::Request request{partition.all(), split, 0};
    partition.split({&request, 1});
    ASSERT_EQ(request.lefts, static_cast<std::int64_t>(left.size()));
    const tree::RowRange ranges[] = {{0, request.lefts}, {request.lefts, rows}};
    const auto sums = partition.sums(ranges, gradients, q);
    for (const int side : {0, 1}) {
      const std::vector<std::int32_t>& expected = side == 0 ? left : right;
      const kernels::RowList list = partition.list(ranges[side]);
      ASSERT_EQ(std::vector<std::int32_t>(list.index, list.index + list.size), expected);
      tree::GradientSum<std::int64_t> sum;
      for (const std::int32_t r : expected) sum += q.exact(gradients[static_cast<std::size_t>(r)]);
      EXPECT_EQ(sums[static_cast<std::size_t>(side)].g, sum.g);
      EXPECT_EQ(sums[static_cast<std::size_t>(side)].h, sum.h);
    }
    partition.rejoin(partition.all(), request.lefts);
    const kernels::RowList all = partition.list(partition.all());
    for (std::int32_t i = 0; i < rows; ++i) ASSERT_EQ(all.index[i], i);
  }
}

}  // namespace
}  // namespace quern::test::row_partition
