// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/detail/categories.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::categories {
namespace {

using namespace tree::detail;

TEST(Categories, TheMostFrequentAreKeptTheLowerOneOnATie) {
  CategoryCounts counts;
  for (std::uint32_t c = 0; c < 300; ++c) counts.add(static_cast<float>(c), 0, 0);
  counts.add(299.0f, 0, 0);
  counts.add(100000.0f, 0, 0);
  counts.add(100000.0f, 0, 0);
  const std::vector<double> kept = counts.kept();
  ASSERT_EQ(kept.size(), kept_categories);
  EXPECT_EQ(kept.back(), 100000);
  EXPECT_EQ(kept[kept.size() - 2], 299);
  for (std::size_t i = 0; i + 2 < kept.size(); ++i) EXPECT_EQ(kept[i], static_cast<double>(i));
}

TEST(Categories, WhatIsNoneIsRefused) {
  CategoryCounts counts;
  for (const double x : {-1.0, 0.5, 16777216.0, std::numeric_limits<double>::infinity()})
    EXPECT_THROW(counts.add(x, 3, 1), ValueError) << x;
  EXPECT_NO_THROW(counts.add(16777215.0f, 3, 1));
}

tree::Cuts cuts_of(std::vector<double> categories) {
  tree::Cuts cuts;
  cuts.offsets = {0, static_cast<std::int64_t>(categories.size())};
  cuts.values = std::move(categories);
  cuts.categorical = {1};
  return cuts;
}

TEST(Categories, CodesFollowTheKeptOnesAndOthersShareTheLast) {
  const tree::Cuts cuts = cuts_of({2, 7, 70000, 80000});
  const CategoryTable table(cuts, 0);
  const double values[] = {2, 7, 70000, 80000, 2.9, 3, 90000, 75000, -1, 1e30, 0};
  const int codes[] = {1, 2, 3, 4, 1, 5, 5, 5, 5, 5, 5};
  for (int i = 0; i < 11; ++i) {
    EXPECT_EQ(table.code(values[i]), codes[i]) << values[i];
    EXPECT_EQ(table.code(static_cast<float>(values[i])), codes[i]) << values[i];
  }
}

TEST(Categories, ReplaceTheCutsOfTheirFeaturesAlone) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {1, 5, 2, 3, 3, nan, 4, 5, 0, 9};  // (5, 2)
  const std::vector<float> weights = {1, 1, 1, 1, 0};             // a row without weight
  for (const int threads : {1, 2, 3}) {
    tree::Cuts cuts;
    cuts.offsets = {0, 2, 3};
    cuts.values = {1.5, 2.5, 4};
    set_categories(MatrixView<const float>(x.data(), {5, 2}),
                   {tree::FeatureKind::numeric, tree::FeatureKind::categorical}, weights, threads,
                   cuts);
    EXPECT_EQ(cuts.offsets, (std::vector<std::int64_t>{0, 2, 4}));
    EXPECT_EQ(cuts.values, (std::vector<double>{1.5, 2.5, 3, 5}));
    EXPECT_EQ(category_tables(cuts)[1].code(9.0f), 3);
  }
}

}  // namespace
}  // namespace quern::test::categories
