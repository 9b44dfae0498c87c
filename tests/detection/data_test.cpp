// SPDX-License-Identifier: Apache-2.0

/// \file
/// Ids to places, dense and far apart.

#include "quern/detection/data.hpp"

#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::detection_data {
namespace {

using detection::IdIndex;

void expect_places(const IdIndex& index, const std::vector<std::int64_t>& ids) {
  EXPECT_EQ(index.ids(), ids);
  EXPECT_EQ(index.size(), ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(index.find(ids[i]), static_cast<std::int32_t>(i));
  }
}

TEST(DataTest, IdsInAscendingOrderOnce) {
  const IdIndex near({7, -3, 12, 7});
  expect_places(near, {-3, 7, 12});
  for (const std::int64_t id : {-4, 0, 13, 1 << 30}) EXPECT_EQ(near.find(id), -1);
  constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const IdIndex far({most, 0, least});
  expect_places(far, {least, 0, most});
  EXPECT_EQ(far.find(1), -1);
  EXPECT_EQ(near.find(least), -1);
  EXPECT_EQ(near.find(most), -1);
  EXPECT_EQ(IdIndex().find(0), -1);
  EXPECT_EQ(IdIndex(std::vector<std::int64_t>{}).find(5), -1);
}

TEST(DataTest, ShapesKeepTheirPlaceWhenMoved) {
  detection::CocoDataset data;
  detection::Truth t;
  t.mask = &data.shapes.masks.emplace_back(detection::Rle{1, 1, {1}});
  data.truths.push_back(t);
  const detection::CocoDataset moved = std::move(data);
  EXPECT_EQ(moved.truths[0].mask, &moved.shapes.masks[0]);
}

}  // namespace
}  // namespace quern::test::detection_data
