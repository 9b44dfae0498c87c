// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pascal VOC against Object-Detection-Metrics and the development kit's rule
/// (tests/reference/detection), and the example of docs/detection/average_precision.md by hand.

#include "quern/detection/voc_eval.hpp"

#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace quern::test::voc_eval {
namespace {

using detection::CornerBox;
using detection::VocCompare;
using detection::VocDetection;
using detection::VocTruth;
using nlohmann::json;

json load(const std::string& name) {
  std::ifstream file(std::string(QUERN_TEST_REFERENCE_DIR) + "/detection/" + name);
  return json::parse(file);
}

CornerBox box_of(const json& b) {
  return {b[0].get<double>(), b[1].get<double>(), b[2].get<double>(), b[3].get<double>()};
}

/// Numbers for names, as they come.
struct Names {
  std::map<std::string, std::int64_t> numbers;
  std::int64_t operator()(const json& name) {
    return numbers.emplace(name.get<std::string>(), static_cast<std::int64_t>(numbers.size()))
        .first->second;
  }
};

void expect_curve(const detection::VocClass& c, const json& expected) {
  EXPECT_EQ(c.curve.positives, expected["total_positives"].get<std::int64_t>());
  EXPECT_EQ(c.curve.true_positives, expected["total_TP"].get<std::int64_t>());
  EXPECT_EQ(c.curve.false_positives, expected["total_FP"].get<std::int64_t>());
  ASSERT_EQ(c.curve.precision.size(), expected["precision"].size());
  for (std::size_t i = 0; i < c.curve.precision.size(); ++i) {
    EXPECT_NEAR(c.curve.precision[i], expected["precision"][i].get<double>(), 1e-12);
    EXPECT_NEAR(c.curve.recall[i], expected["recall"][i].get<double>(), 1e-12);
  }
  EXPECT_NEAR(c.ap_all_points, expected["AP_all_point"].get<double>(), 1e-12);
  EXPECT_NEAR(c.ap_11_points, expected["AP_eleven_point"].get<double>(), 1e-12);
}

TEST(VocEvalTest, EqualsObjectDetectionMetricsAndTheDevelopmentKit) {
  const json file = load("voc_case.json");
  Names images, classes;
  std::vector<VocTruth> all, easy;
  std::vector<VocDetection> found;
  for (const json& g : file["gt"]) {
    const bool difficult = g["difficult"].get<int>() != 0;
    all.push_back({images(g["image"]), classes(g["class"]), box_of(g["xyxy"]), difficult});
    if (!difficult) easy.push_back(all.back());
  }
  for (const json& d : file["det"]) {
    found.push_back(
        {images(d["image"]), classes(d["class"]), d["score"].get<double>(), box_of(d["xyxy"])});
  }
  for (const auto& [threshold, expected] : file["expected"]["odm_no_difficult"].items()) {
    SCOPED_TRACE(threshold);
    const auto result =
        detection::evaluate_voc(easy, found, {.iou_threshold = std::stod(threshold)});
    for (const auto& [name, c] : expected.items()) {
      expect_curve(result[static_cast<std::size_t>(classes.numbers.at(name))], c);
    }
  }
  for (const auto& [threshold, expected] : file["expected"]["devkit"].items()) {
    SCOPED_TRACE(threshold);
    for (const auto& [name, c] : expected.items()) {
      for (const bool above : {false, true}) {
        const auto result =
            detection::evaluate_voc(all, found,
                                    {.iou_threshold = std::stod(threshold),
                                     .compare = above ? VocCompare::above : VocCompare::at_least});
        const auto& got = result[static_cast<std::size_t>(classes.numbers.at(name))];
        const std::string suffix = above ? "_gt" : "_ge";
        EXPECT_NEAR(got.ap_all_points, c["all_point" + suffix].get<double>(), 1e-12);
        EXPECT_NEAR(got.ap_11_points, c["eleven_point" + suffix].get<double>(), 1e-12);
      }
    }
  }
}

TEST(VocEvalTest, EqualsAPublishedSample) {
  const json file = load("voc_odm_sample2.json");
  Names images;
  std::vector<VocTruth> truths;
  std::vector<VocDetection> found;
  for (const json& g : file["gt_xyxy"]) truths.push_back({images(g[0]), 0, box_of(g[2]), false});
  for (const json& d : file["det_xyxy"]) {
    found.push_back({images(d[0]), 0, d[2].get<double>(), box_of(d[3])});
  }
  for (const auto& [threshold, expected] : file["expected"].items()) {
    const auto result =
        detection::evaluate_voc(truths, found, {.iou_threshold = std::stod(threshold)});
    expect_curve(result[0], expected["object"]);
  }
  EXPECT_NEAR(detection::evaluate_voc(truths, found, {.iou_threshold = 0.3})[0].ap_all_points,
              0.2457, 5e-5);
}

// Four objects on three images, six detections; docs/detection/average_precision.md walks through.
const std::vector<VocTruth> worked_truths = {{1, 0, {0, 0, 10, 10}, false},
                                             {1, 0, {20, 0, 30, 10}, false},
                                             {2, 0, {0, 0, 10, 10}, false},
                                             {3, 0, {0, 0, 20, 20}, false}};
const std::vector<VocDetection> worked_detections = {
    {1, 0, 0.95, {0, 0, 10, 10}}, {2, 0, 0.90, {5, 0, 15, 10}}, {1, 0, 0.85, {1, 0, 11, 10}},
    {1, 0, 0.80, {20, 0, 30, 8}}, {3, 0, 0.60, {0, 0, 20, 10}}, {2, 0, 0.40, {0, 0, 10, 9}}};

TEST(VocEvalTest, WorkedExample) {
  detection::VocOptions options;
  options.pixel = false;
  const auto at_least = detection::evaluate_voc(worked_truths, worked_detections, options)[0];
  const std::vector<double> precision = {1, 1.0 / 2, 1.0 / 3, 2.0 / 4, 3.0 / 5, 4.0 / 6};
  EXPECT_EQ(at_least.curve.precision, precision);
  EXPECT_EQ(at_least.curve.recall, (std::vector<double>{0.25, 0.25, 0.25, 0.5, 0.75, 1}));
  EXPECT_NEAR(at_least.ap_all_points, 0.75, 1e-15);
  EXPECT_NEAR(at_least.ap_11_points, 25.0 / 33, 1e-15);
  const auto best = detection::best_f1(at_least.curve);
  EXPECT_EQ(best.score, 0.40);
  EXPECT_NEAR(best.f1, 0.8, 1e-15);
  // The fifth has an IoU of exactly 1/2.
  options.compare = VocCompare::above;
  const auto above = detection::evaluate_voc(worked_truths, worked_detections, options)[0];
  EXPECT_EQ(above.curve.true_positives, 3);
  EXPECT_NEAR(above.ap_all_points, 0.5, 1e-15);
  EXPECT_NEAR(above.ap_11_points, 0.5, 1e-15);
}

TEST(VocEvalTest, Refuses) {
  std::vector<VocDetection> found = worked_detections;
  found[0].score = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW((void)detection::evaluate_voc(worked_truths, found), ValueError);
  std::vector<VocTruth> truths = worked_truths;
  truths[0].box.x2 = -5;
  EXPECT_THROW((void)detection::evaluate_voc(truths, worked_detections), ValueError);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(
      (void)detection::evaluate_voc(worked_truths, worked_detections, {.iou_threshold = nan}),
      ValueError);
  detection::CocoDataset data;
  data.images.resize(1);
  data.categories.resize(1);
  const std::vector<detection::Detection> elsewhere = {{.image = 7}}, other = {{.category = 7}};
  EXPECT_THROW((void)detection::evaluate_voc(data, elsewhere), ValueError);
  EXPECT_THROW((void)detection::evaluate_voc(data, other), ValueError);
  EXPECT_TRUE(detection::evaluate_voc({}, {}).empty());
  EXPECT_EQ(detection::evaluate_voc(worked_truths, {})[0].ap_all_points, 0);
}

}  // namespace
}  // namespace quern::test::voc_eval
