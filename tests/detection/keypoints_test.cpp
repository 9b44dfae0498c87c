// SPDX-License-Identifier: Apache-2.0

/// \file
/// Object key point similarity by its formula. COCO's numbers of key points are compared in
/// tests/io/coco_test.cpp.

#include "quern/detection/keypoints.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::keypoints {
namespace {

using detection::Box;
using detection::oks;

const std::vector<double> sigmas = {0.1, 0.05};
const Box box{0, 0, 10, 10};

TEST(KeypointsTest, VisiblePoints) {
  const std::vector<double> truth = {1, 2, 2, 5, 5, 1};
  EXPECT_EQ(oks(truth, truth, sigmas, 100, box), 1);
  const std::vector<double> found = {4, 6, 1, 5, 5, 1};  // 5 away, and right
  const double first = std::exp(-25 / (2 * 0.2 * 0.2 * 100));
  EXPECT_NEAR(oks(found, truth, sigmas, 100, box), (first + 1) / 2, 1e-14);
  // What is not labelled does not count, whatever the detector says of its visibility.
  std::vector<double> one = truth;
  one[5] = 0;
  EXPECT_NEAR(oks(found, one, sigmas, 100, box), first, 1e-14);
  // Twice as large in area and distance squared: the same.
  const std::vector<double> wide = {1 + 3 * 2, 2 + 4 * 2, 1, 5, 5, 1};
  EXPECT_NEAR(oks(wide, truth, sigmas, 400, box), (first + 1) / 2, 1e-14);
}

TEST(KeypointsTest, WithoutLabelsTheBoxCounts) {
  const std::vector<double> none = {0, 0, 0, 0, 0, 0};
  const std::vector<double> inside = {-10, 20, 1, 5, 5, 1};
  EXPECT_EQ(oks(inside, none, sigmas, 100, box), 1);
  const std::vector<double> outside = {-13, 24, 1, 5, 5, 1};  // 3 and 4 outside
  EXPECT_NEAR(oks(outside, none, sigmas, 100, box), (std::exp(-25 / (2 * 0.2 * 0.2 * 100)) + 1) / 2,
              1e-14);
}

TEST(KeypointsTest, SumsAsNumPyDoes) {
  const std::vector<double> x = {1e16, 1, 1, 1, 1, 1, 1, -1e16, 1};
  // Eight lanes are added in pairs, then the rest.
  EXPECT_EQ(detection::detail::pairwise_sum(x),
            ((1e16 + 1) + (1.0 + 1)) + ((1.0 + 1) + (1 - 1e16)) + 1);
  EXPECT_EQ(detection::detail::pairwise_sum({}), 0);
  EXPECT_EQ(detection::coco_sigmas().size(), 17u);
}

TEST(KeypointsTest, Refuses) {
  const std::vector<double> two = {0, 0, 1, 0, 0, 1}, one = {0, 0, 1};
  EXPECT_THROW((void)oks(one, two, sigmas, 1, box), ShapeError);
  EXPECT_THROW((void)oks(two, one, sigmas, 1, box), ShapeError);
}

}  // namespace
}  // namespace quern::test::keypoints
