// SPDX-License-Identifier: Apache-2.0

/// \file
/// The best macro F1: every number of faster-coco-eval's extended metrics of 100 real images
/// (tests/reference/detection), and its definition.

#include "quern/detection/f1.hpp"

#include "quern/io/coco.hpp"

#include "sample.hpp"

#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::f1 {
namespace {

using detection::CocoEvaluator;
using detection_sample::reference;

TEST(F1Test, RealImagesGiveTheExtendedMetrics) {
  const auto expected = detection_sample::load("real_coco100_bbox_f1_metrics.json");
  const auto data = io::read_coco(reference("real_coco100_gt.json"));
  const auto found = io::read_coco_results(reference("real_coco100_bbox_dt.json"), data);
  std::vector<std::int64_t> ids;
  std::map<std::string, std::int64_t> names;
  for (const auto& c : data.categories) ids.push_back(c.id), names[c.name] = c.id;
  CocoEvaluator evaluator(ids);
  evaluator.add(data.images, data.truths, found.detections);
  const auto result = evaluator.accumulate();
  const auto best = detection::macro_f1(evaluator);
  EXPECT_NEAR(best.score, 0.012, 1e-12);
  EXPECT_NEAR(best.precision, expected["precision"].get<double>(), 1e-12);
  EXPECT_NEAR(best.recall, expected["recall"].get<double>(), 1e-12);
  EXPECT_NEAR(result.average_precision({.iou = 0.5}), expected["map"].get<double>(), 1e-12);
  const detection::IdIndex places(result.categories);
  std::size_t classes = 0;
  for (const auto& c : expected["class_map"]) {
    const auto name = c["class"].get<std::string>();
    if (name == "all") {
      EXPECT_NEAR(result.average_precision(), c["map@50:95"].get<double>(), 1e-12);
      EXPECT_NEAR(best.precision, c["precision"].get<double>(), 1e-12);
      continue;
    }
    SCOPED_TRACE(name);
    const auto k = static_cast<std::size_t>(places.find(names.at(name)));
    EXPECT_NEAR(result.class_precision(k), c["map@50:95"].get<double>(), 1e-12);
    EXPECT_NEAR(result.class_precision(k, 0.5), c["map@50"].get<double>(), 1e-12);
    EXPECT_NEAR(best.class_precision[k], c["precision"].get<double>(), 1e-12);
    EXPECT_NEAR(best.class_recall[k], c["recall"].get<double>(), 1e-12);
    ++classes;
  }
  EXPECT_EQ(classes, 70u);
}

TEST(F1Test, NoThresholdIsBetter) {
  const auto s = detection_sample::sample(6, {.ties = true});
  CocoEvaluator all(s.categories());
  all.add(s.data.images, s.data.truths, s.found);
  const auto best = detection::macro_f1(all, 0.75);
  for (int tenth = 0; tenth < 10; ++tenth) {
    std::vector<detection::Detection> kept;
    for (const auto& d : s.found) {
      if (d.score >= tenth / 10.0) kept.push_back(d);
    }
    // Macro F1 with all of `kept` is what some threshold gives.
    CocoEvaluator some(s.categories());
    some.add(s.data.images, s.data.truths, kept);
    EXPECT_LE(detection::macro_f1(some, 0.75).f1, best.f1);
    if (tenth / 10.0 == best.score) {
      EXPECT_EQ(detection::macro_f1(some, 0.75).f1, best.f1);
    }
  }
}

TEST(F1Test, NothingAndBadInput) {
  CocoEvaluator e({1, 2});
  EXPECT_EQ(detection::macro_f1(e).f1, 0);
  EXPECT_EQ(detection::macro_f1(e).class_recall.size(), 2u);
  EXPECT_THROW((void)detection::macro_f1(e, 0.51), ValueError);
}

}  // namespace
}  // namespace quern::test::f1
