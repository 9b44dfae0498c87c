// SPDX-License-Identifier: Apache-2.0

/// \file
/// Defaults are COCO's, and options that mean nothing are refused by name.

#include "quern/detection/coco_options.hpp"

#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace quern::test::coco_options {
namespace {

using detection::CocoOptions;
using detection::CocoTarget;

TEST(CocoOptionsTest, AreCocos) {
  const CocoOptions boxes;
  EXPECT_NO_THROW(detection::check_options(boxes));
  EXPECT_EQ(boxes.iou_thresholds.size(), 10u);
  EXPECT_EQ(boxes.recall_levels.size(), 101u);
  EXPECT_EQ(boxes.areas[2].name, "medium");
  EXPECT_EQ(boxes.areas[2].high, 9216);
  const auto points = CocoOptions::of(CocoTarget::keypoints);
  EXPECT_EQ(points.max_detections, (std::vector<std::int64_t>{20}));
  EXPECT_EQ(points.areas.size(), 3u);
  EXPECT_EQ(CocoOptions::lvis_of(CocoTarget::masks).max_detections.back(), 300);
  EXPECT_TRUE(CocoOptions::lvis_of(CocoTarget::masks).lvis);
}

template <class F>
void expect_refused(const std::string& name, F&& change) {
  CocoOptions o = CocoOptions::of(CocoTarget::keypoints);
  change(o);
  try {
    detection::check_options(o);
    ADD_FAILURE() << name << " was not refused";
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what()).find("CocoOptions: " + name), std::string::npos)
        << error.what();
  }
}

TEST(CocoOptionsTest, RefusesByName) {
  expect_refused("iou_thresholds", [](CocoOptions& o) { o.iou_thresholds.clear(); });
  expect_refused("iou_thresholds", [](CocoOptions& o) { o.iou_thresholds[0] = 50; });
  expect_refused("recall_levels", [](CocoOptions& o) { o.recall_levels[0] = -0.1; });
  expect_refused("recall_levels", [](CocoOptions& o) { o.recall_levels = {1, 0}; });
  expect_refused("max_detections", [](CocoOptions& o) { o.max_detections = {100, 1}; });
  expect_refused("max_detections", [](CocoOptions& o) { o.max_detections = {-1}; });
  expect_refused("areas", [](CocoOptions& o) { o.areas.clear(); });
  expect_refused("areas", [](CocoOptions& o) { o.areas.resize(33, o.areas[0]); });
  expect_refused("areas", [](CocoOptions& o) { o.areas[0].low = 1e20; });
  expect_refused("sigmas", [](CocoOptions& o) { o.sigmas[3] = 0; });
  expect_refused("sigmas",
                 [](CocoOptions& o) { o.sigmas[3] = std::numeric_limits<double>::quiet_NaN(); });
}

}  // namespace
}  // namespace quern::test::coco_options
