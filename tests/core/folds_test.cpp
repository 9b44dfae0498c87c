// SPDX-License-Identifier: Apache-2.0

/// \file
/// Folds part the rows, evenly, by label, by group.

#include "quern/core/folds.hpp"

#include <cstdint>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::folds {
namespace {

void expect_partition(const std::vector<Fold>& folds, std::size_t rows) {
  std::set<std::int32_t> all;
  for (const Fold& fold : folds) {
    for (std::size_t i = 1; i < fold.size(); ++i) EXPECT_LT(fold[i - 1], fold[i]);
    all.insert(fold.begin(), fold.end());
  }
  std::size_t sum = 0;
  for (const Fold& fold : folds) sum += fold.size();
  EXPECT_EQ(sum, rows);
  EXPECT_EQ(all.size(), rows);
}

TEST(Folds, EqualStratifiedGrouped) {
  const auto plain = make_folds(103, 5, 1);
  expect_partition(plain, 103);
  for (const Fold& fold : plain) EXPECT_TRUE(fold.size() == 20 || fold.size() == 21);
  EXPECT_EQ(plain, make_folds(103, 5, 1));
  EXPECT_NE(plain, make_folds(103, 5, 2));

  std::vector<float> labels(200, 0.0f);
  for (std::size_t i = 0; i < 30; ++i) labels[i * 5] = 1;
  const auto even = make_stratified_folds(labels, 4, 1);
  expect_partition(even, 200);
  for (const Fold& fold : even) {
    int ones = 0;
    for (const std::int32_t row : fold) ones += labels[static_cast<std::size_t>(row)] > 0 ? 1 : 0;
    EXPECT_TRUE(ones == 7 || ones == 8);
    EXPECT_EQ(fold.size(), 50u);
  }

  std::vector<std::int64_t> groups;
  for (std::int64_t i = 0; i < 120; ++i) groups.push_back(i * i % 17);
  const auto grouped = make_grouped_folds(groups, 3, 1);
  expect_partition(grouped, 120);
  std::set<std::int64_t> seen;
  for (const Fold& fold : grouped) {
    std::set<std::int64_t> mine;
    for (const std::int32_t row : fold) mine.insert(groups[static_cast<std::size_t>(row)]);
    for (const std::int64_t g : mine) EXPECT_TRUE(seen.insert(g).second) << g;
    EXPECT_GE(fold.size(), 30u);
  }
  EXPECT_THROW((void)make_folds(3, 4), ValueError);
  EXPECT_THROW((void)make_folds(3, 1), ValueError);
}

TEST(Folds, TheOtherRows) {
  EXPECT_EQ(other_rows({1, 3}, 5), (std::vector<std::int32_t>{0, 2, 4}));
  EXPECT_THROW((void)other_rows({5}, 5), ValueError);
}

}  // namespace
}  // namespace quern::test::folds
