// SPDX-License-Identifier: Apache-2.0

/// \file
/// T5's buckets of distances against the table that its authors' formula gives; the bias by
/// distance and its gradient.

#include "quern/attention/relative_bias.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace quern::test::relative_bias {
namespace {

using attention::RelativeBuckets;

/// Where each bucket from the first wide one on begins.
void check(const RelativeBuckets& bucket, Index sign, Index first_wide, Index base,
           const std::vector<Index>& begins) {
  for (Index n = 0; n < first_wide; ++n) EXPECT_EQ(bucket(sign * n), n == 0 ? 0 : base + n);
  for (std::size_t k = 0; k < begins.size(); ++k) {
    const Index expected = base + first_wide + static_cast<Index>(k);
    EXPECT_EQ(bucket(sign * begins[k]), expected) << begins[k];
    const Index end = k + 1 < begins.size() ? begins[k + 1] - 1 : 100000;
    EXPECT_EQ(bucket(sign * end), expected) << end;
  }
}

TEST(RelativeBias, BucketsOfThirtyTwo) {
  check({.causal = true}, -1, 16, 0,
        {16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113});
  const std::vector<Index> both = {8, 12, 16, 23, 32, 46, 64, 91};
  check({}, -1, 8, 0, both);
  check({}, 1, 8, 16, both);
  const RelativeBuckets causal{.causal = true};
  EXPECT_EQ(causal(5), 0) << "keys after the query";
}

TEST(RelativeBias, GradientIsTheTransposedTable) {
  constexpr Index length = 200, buckets = 32;
  std::vector<double> table(buckets), dtable(buckets, 1.0), slope(2 * length - 1);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<double>(i) - 7;
  for (std::size_t i = 0; i < slope.size(); ++i) slope[i] = static_cast<double>(i % 13) - 5;
  for (const bool causal : {false, true}) {
    const std::vector<double> bias = attention::detail::bias_by_distance<double>(
        NdView<const double, 1>(table.data(), {buckets}), length, causal, 3.0, "test");
    ASSERT_EQ(bias.size(), slope.size());
    std::vector<double> gradient(buckets, 0.0);
    attention::detail::add_bias_gradient<double>(
        slope, length, causal, 3.0, NdView<double, 1>(gradient.data(), {buckets}), "test");
    double by_bias = 0, by_table = 0;
    for (std::size_t i = 0; i < bias.size(); ++i) by_bias += bias[i] * slope[i];
    for (std::size_t i = 0; i < table.size(); ++i) by_table += table[i] * gradient[i];
    EXPECT_NEAR(by_bias, by_table, 1e-9);
  }
  EXPECT_THROW(static_cast<void>(attention::detail::bias_by_distance<double>(
                   NdView<const double, 1>(table.data(), {31}), 5, true, 1.0, "test")),
               ShapeError);
}

}  // namespace
}  // namespace quern::test::relative_bias
