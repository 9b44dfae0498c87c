// SPDX-License-Identifier: Apache-2.0

/// \file
/// Batches: every sample once an epoch, in an order that the seed and the epoch decide; their rows.

#include "quern/nn/loader.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <set>
#include <vector>

namespace quern::test::nn_loader {
namespace {

TEST(NnLoader, ShufflerSeesEverythingOnce) {
  nn::Shuffler order(10, 4, 3);
  EXPECT_EQ(order.batches(), 3);
  std::vector<Index> first, again, second;
  for (Index b = 0; b < 3; ++b) {
    for (const Index i : order.batch(0, b)) first.push_back(i);
  }
  for (Index b = 0; b < 3; ++b) {
    for (const Index i : order.batch(1, b)) second.push_back(i);
  }
  for (Index b = 0; b < 3; ++b) {
    for (const Index i : order.batch(0, b)) again.push_back(i);
  }
  EXPECT_EQ(std::set<Index>(first.begin(), first.end()).size(), 10u);
  EXPECT_EQ(first, again);
  EXPECT_NE(first, second);
  nn::Shuffler plain(10, 4, 3, false, true);
  EXPECT_EQ(plain.batches(), 2);
  EXPECT_EQ(plain.batch(0, 1)[0], 4);
  EXPECT_THROW(nn::Shuffler(0, 4), ValueError);
  EXPECT_THROW(nn::Shuffler(3, 0), ValueError);
  EXPECT_THROW(nn::Shuffler(3, 4, 0, true, true), ValueError);
}

TEST(NnLoader, SamplesAreGatheredInTheOrderAsked) {
  nn::Tensor<double> all({4, 2, 3}), some;
  for (Index i = 0; i < all.size(); ++i) all[i] = static_cast<double>(i);
  const std::vector<Index> rows = {3, 0, 3};
  nn::gather_samples<double>(all.view(), rows, some);
  ASSERT_EQ(some.shape(), (nn::Extents{3, 2, 3}));
  for (Index i = 0; i < some.size(); ++i) {
    EXPECT_EQ(some[i], static_cast<double>(rows[static_cast<std::size_t>(i / 6)] * 6 + i % 6));
  }
}

}  // namespace
}  // namespace quern::test::nn_loader
