// SPDX-License-Identifier: Apache-2.0

/// \file
/// COCO's overlap of two boxes by hand; its bits are compared in boxes_test.cpp.

#include "quern/detection/box.hpp"

#include <gtest/gtest.h>

namespace quern::test::box {
namespace {

using detection::Box;
using detection::coco_iou;

TEST(BoxTest, ByHand) {
  const Box a{0, 0, 10, 10}, half{5, 0, 10, 10};
  EXPECT_EQ(a.area(), 100);
  EXPECT_EQ(coco_iou(a, a, false), 1);
  EXPECT_EQ(coco_iou(a, half, false), 50.0 / 150);
  EXPECT_EQ(coco_iou(a, half, true), 0.5);
  EXPECT_EQ(coco_iou({0, 0, 5, 10}, a, true), 1);  // all of it lies in the crowd
}

TEST(BoxTest, TouchingAndEmptyBoxesHaveNone) {
  const Box a{0, 0, 10, 10};
  EXPECT_EQ(coco_iou(a, {10, 0, 10, 10}, false), 0);
  EXPECT_EQ(coco_iou(a, {0, 10, 10, 10}, false), 0);
  EXPECT_EQ(coco_iou(a, {20, 20, 1, 1}, true), 0);
  EXPECT_EQ(coco_iou(a, {5, 5, 0, 5}, false), 0);
  EXPECT_EQ(coco_iou({5, 5, 0, 0}, {5, 5, 0, 0}, false), 0);
  EXPECT_EQ(coco_iou({1, 1, 1e-200, 1e-200}, {1, 1, 1e-200, 1e-200}, true), 0);
}

}  // namespace
}  // namespace quern::test::box
