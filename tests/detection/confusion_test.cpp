// SPDX-License-Identifier: Apache-2.0

/// \file
/// The confusion matrix by hand.

#include "quern/detection/confusion.hpp"

#include "quern/detection/rle.hpp"

#include "sample.hpp"

#include <limits>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::confusion {
namespace {

using detection::CocoTarget;
using detection::Detection;
using detection_sample::at;
using detection_sample::scene;

void expect_counts(const detection::Confusion& c, const std::vector<std::int64_t>& expected) {
  ASSERT_EQ(c.counts.size(), static_cast<Index>(expected.size()));
  EXPECT_TRUE(std::equal(c.counts.begin(), c.counts.end(), expected.begin()));
}

const std::vector<Detection> found = {at(0, 1, 0.9), at(0, 1, 0.8), at(300, 1, 0.6),
                                      at(100, 2, 0.7), at(200, 1, 0.2)};

TEST(ConfusionTest, ByHand) {
  const auto c = detection::confusion_matrix(scene(), found);
  EXPECT_EQ(c.categories, (std::vector<std::int64_t>{1, 2}));
  expect_counts(c, {1, 1, 1, 1, 0, 0, 1, 0, 0});
  // The one of score 0.2 as well.
  expect_counts(detection::confusion_matrix(scene(), found, {.min_score = 0}),
                {2, 1, 0, 1, 0, 0, 1, 0, 0});
}

TEST(ConfusionTest, CrowdsForgive) {
  auto data = scene();
  data.truths[0].crowd = true;
  expect_counts(detection::confusion_matrix(data, found), {0, 1, 1, 1, 0, 0, 0, 0, 0});
}

TEST(ConfusionTest, RotatedBoxesAndMasks) {
  // Turned by 90 degrees a square is itself; by 45 it covers 83 % of itself.
  std::vector<Detection> turned = found;
  for (Detection& d : turned) d.degrees = 90;
  const detection::ConfusionOptions rotated{.iou_threshold = 0.9,
                                            .target = CocoTarget::rotated_boxes};
  expect_counts(detection::confusion_matrix(scene(), turned, rotated), {1, 1, 1, 1, 0, 0, 1, 0, 0});
  for (Detection& d : turned) d.degrees = 45;
  expect_counts(detection::confusion_matrix(scene(), turned, rotated), {0, 0, 3, 0, 0, 1, 3, 1, 0});
  const detection::Rle left{2, 4, {0, 4, 4}}, right{2, 4, {4, 4}};
  auto data = scene();
  data.truths.resize(2);
  data.truths[0].mask = &left;
  data.truths[1].mask = &right;
  std::vector<Detection> masks = {at(0, 2, 0.9), at(0, 1, 0.8)};
  masks[0].mask = masks[1].mask = &right;
  expect_counts(detection::confusion_matrix(data, masks, {.target = CocoTarget::masks}),
                {0, 1, 1, 0, 0, 0, 1, 0, 0});
}

TEST(ConfusionTest, EveryObjectAndDetectionIsCountedOnce) {
  const auto s = detection_sample::sample(8);
  const auto c = detection::confusion_matrix(s.data, s.found, {.min_score = 0});
  const Index background = c.counts.extent(0) - 1;
  for (Index k = 0; k < background; ++k) {
    std::int64_t row = 0, objects = 0;
    for (Index j = 0; j <= background; ++j) row += c.counts(k, j);
    for (const auto& t : s.data.truths) {
      if (t.category == c.categories[static_cast<std::size_t>(k)] && !t.crowd) ++objects;
    }
    EXPECT_EQ(row, objects);
  }
}

TEST(ConfusionTest, Refuses) {
  EXPECT_THROW((void)detection::confusion_matrix(scene(), {}, {.iou_threshold = 2}), ValueError);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW((void)detection::confusion_matrix(scene(), {}, {.min_score = nan}), ValueError);
  std::vector<Detection> bad = {at(0, 9, 0.9)};
  EXPECT_THROW((void)detection::confusion_matrix(scene(), bad), ValueError);
  bad = {at(0, 1, 0.9)};
  bad[0].image = 5;
  EXPECT_THROW((void)detection::confusion_matrix(scene(), bad), ValueError);
}

}  // namespace
}  // namespace quern::test::confusion
