// SPDX-License-Identifier: Apache-2.0

/// \file
/// Means over selections of entries, by hand. COCO's own are compared in tests/io/coco_test.cpp.

#include "quern/detection/coco_result.hpp"

#include "quern/core/error.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::coco_result {
namespace {

using detection::CocoResult;

/// Two thresholds, two levels, two classes, areas "all" and "small", limits 1 and 100: the entry
/// of a place is told by its digits. The second class has no small objects.
CocoResult result() {
  CocoResult r;
  r.options.iou_thresholds = {0.5, 0.75};
  r.options.recall_levels = {0, 1};
  r.options.areas.resize(2);
  r.options.max_detections = {1, 100};
  r.categories = {4, 9};
  r.precision = NdArray<double, 5>({2, 2, 2, 2, 2});
  r.recall = NdArray<double, 4>({2, 2, 2, 2});
  for (Index t = 0; t < 2; ++t) {
    for (Index k = 0; k < 2; ++k) {
      for (Index a = 0; a < 2; ++a) {
        for (Index m = 0; m < 2; ++m) {
          const bool none = k == 1 && a == 1;
          const double x = static_cast<double>(t) + 0.1 * static_cast<double>(k) +
                           0.01 * static_cast<double>(a) + 0.001 * static_cast<double>(m);
          r.recall(t, k, a, m) = none ? -1 : x;
          for (Index l = 0; l < 2; ++l) {
            r.precision(t, l, k, a, m) = none ? -1 : x + 10 * static_cast<double>(l);
          }
        }
      }
    }
  }
  return r;
}

TEST(CocoResultTest, MeansOfSelections) {
  const CocoResult r = result();
  EXPECT_NEAR(r.average_precision(), 0.5 + 0.05 + 0.001 + 5, 1e-12);
  EXPECT_NEAR(r.average_recall(), 0.5 + 0.05 + 0.001, 1e-12);
  EXPECT_NEAR(r.average_recall({.iou = 0.75}), 1.051, 1e-12);
  EXPECT_NEAR(r.average_recall({.limit = std::size_t{0}}), 0.55, 1e-12);
  EXPECT_NEAR(r.average_recall({.area = "small"}), 0.5 + 0.011, 1e-12);  // the first class alone
  EXPECT_NEAR(r.class_precision(1, 0.5), 0.101 + 5, 1e-12);
}

TEST(CocoResultTest, NothingIsMinusOne) {
  const CocoResult r = result();
  EXPECT_EQ(r.average_recall({.classes = std::vector<std::size_t>{}}), -1);
  EXPECT_EQ(r.class_precision(1, {}, "small"), -1);
}

TEST(CocoResultTest, WhatWasNotEvaluatedIsNamed) {
  CocoResult r = result();
  const auto message = [&](const detection::CocoSelect& select) -> std::string {
    try {
      (void)r.average_recall(select);
    } catch (const ValueError& e) {
      return e.what();
    }
    return "none";
  };
  EXPECT_EQ(message({.iou = 0.6}),
            "quern::detection::CocoResult: iou: expected one of 0.5, 0.75, got 0.6");
  EXPECT_EQ(message({.area = "huge"}),
            "quern::detection::CocoResult: area: expected one of all, small, got huge");
  EXPECT_NE(message({.limit = std::size_t{2}}).find("limit: expected a place below 2, got 2"),
            std::string::npos);
  EXPECT_THROW((void)r.class_precision(7), ValueError);
  // A threshold as it is written, though NumPy's is another by a bit; and the first area is main.
  const double all = r.average_precision(), strict = r.average_recall({.iou = 0.75});
  r.options.iou_thresholds[1] = 0.7500000000000001;
  r.options.areas[0].name = "whole";
  EXPECT_EQ(r.average_recall({.iou = 0.75}), strict);
  EXPECT_EQ(r.average_precision(), all);
  EXPECT_EQ(detection::coco_stats(r)[0].value, all);
}

TEST(CocoResultTest, NamesOfTheNumbers) {
  CocoResult r = result();
  const auto names = [](const std::vector<detection::CocoStat>& stats) {
    std::string all;
    for (const auto& s : stats) all += s.name + ' ';
    return all;
  };
  EXPECT_EQ(names(detection::coco_stats(r)),
            "AP AP50 AP75 APs APm APl AR@1 AR@100 AR@100 ARs ARm ARl ");
  const std::vector<detection::Category> categories = {{4, "a", 'r'}, {9, "b", 'f'}};
  const auto lvis = detection::lvis_stats(r, categories);
  EXPECT_EQ(names(lvis), "AP AP50 AP75 APs APm APl APr APc APf AR@100 ARs@100 ARm@100 ARl@100 ");
  EXPECT_NEAR(lvis[6].value, r.class_precision(0), 1e-12);
  EXPECT_EQ(lvis[7].value, -1);
  r.options.target = detection::CocoTarget::keypoints;
  EXPECT_EQ(names(detection::coco_stats(r)), "AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl ");
}

}  // namespace
}  // namespace quern::test::coco_result
