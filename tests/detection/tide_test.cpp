// SPDX-License-Identifier: Apache-2.0

/// \file
/// Kinds of errors by hand, against the package tidecv (tests/reference/detection), and where that
/// and the paper part.

#include "quern/detection/tide.hpp"

#include "quern/detection/coco_eval.hpp"
#include "quern/io/coco.hpp"

#include "sample.hpp"

#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::tide {
namespace {

using detection::CocoTarget;
using detection::Detection;
using detection::TideError;
using detection::TideResult;
using detection_sample::at;
using detection_sample::scene;

double gain(const TideResult& r, TideError e) { return r.gain[static_cast<std::size_t>(e)]; }

TEST(TideTest, EveryKindByHand) {
  const auto data = scene();
  // Right; the same again; displaced by 5 (IoU 1/3); the wrong class; on nothing; displaced and
  // wrong.
  const std::vector<Detection> found = {at(0, 1, 0.9),   at(0, 1, 0.8),   at(105, 1, 0.7),
                                        at(300, 1, 0.6), at(500, 1, 0.5), at(205, 2, 0.4)};
  const auto result = detection::tide(data, found);
  EXPECT_EQ(result.count, (std::array<std::int64_t, 6>{1, 1, 1, 1, 1, 1}));
  // Class 1: one of three found at precision 1: 34 of the 101 levels; class 2: nothing.
  EXPECT_NEAR(result.ap, 34.0 / 101 / 2, 1e-12);
  // The third becomes right, after one false positive: precision 2/3 on 33 levels more.
  EXPECT_NEAR(gain(result, TideError::localization), 33.0 * 2 / 3 / 101 / 2, 1e-12);
  // The fourth becomes a right one of class 2, at precision 1.
  EXPECT_NEAR(gain(result, TideError::classification), 0.5, 1e-12);
  EXPECT_NEAR(gain(result, TideError::duplicate), 0, 1e-12);
  // Without the object at 200, two objects of class 1: 51 levels.
  EXPECT_NEAR(gain(result, TideError::missed), (51.0 - 34) / 101 / 2, 1e-12);
  EXPECT_NEAR(result.false_positive_gain, 0, 1e-12);
  // One object of class 1 is left, and found first; class 2 has none left and lost nothing.
  EXPECT_NEAR(result.false_negative_gain, 1 - result.ap, 1e-12);
}

TEST(TideTest, CompatEqualsTheirPackage) {
  const auto cases = detection_sample::load("tide_expected.json");
  ASSERT_EQ(cases.size(), 5u);
  for (const auto& c : cases) {
    const bool masks = c["mode"] == "mask";
    const detection::TideOptions options{.target = masks ? CocoTarget::masks : CocoTarget::boxes,
                                         .foreground = c["limits"][0].get<double>(),
                                         .background = c["limits"][1].get<double>(),
                                         .compat = true};
    SCOPED_TRACE(c["truths"].get<std::string>());
    const io::CocoReadOptions read{.target = options.target};
    const auto path = [](const nlohmann::json& name) {
      return detection_sample::reference(name.get<std::string>() + ".json");
    };
    const auto data = io::read_coco(path(c["truths"]), read);
    const auto found = io::read_coco_results(path(c["found"]), data, read);
    const auto got = detection::tide(data, found.detections, options);
    EXPECT_NEAR(got.ap, c["ap"].get<double>(), 1e-12);
    for (std::size_t e = 0; e < detection::tide_errors; ++e) {
      const char* name = detection::tide_names[e];
      EXPECT_EQ(got.count[e], c["count"][name].get<std::int64_t>()) << name;
      EXPECT_NEAR(got.gain[e], c["gain"][name].get<double>(), 1e-12) << name;
    }
    EXPECT_NEAR(got.false_positive_gain, c["special"]["FalsePos"].get<double>(), 1e-12);
    EXPECT_NEAR(got.false_negative_gain, c["special"]["FalseNeg"].get<double>(), 1e-12);
  }
}

TEST(TideTest, ApIsCocosAtOneThreshold) {
  for (const bool ties : {false, true}) {
    const auto s = detection_sample::sample(3, {.ties = ties});
    const auto ap = detection::evaluate(s.data, s.found).average_precision({.iou = 0.5});
    EXPECT_NEAR(detection::tide(s.data, s.found).ap, ap, 1e-12);
  }
}

TEST(TideTest, MendingAKindTakesItsOwnBest) {
  // Both would find the object at 100: one is displaced, one of the wrong class and better.
  const std::vector<Detection> found = {at(100, 2, 0.9), at(105, 1, 0.8), at(0, 1, 0.5)};
  const auto paper = detection::tide(scene(), found);
  EXPECT_GT(gain(paper, TideError::localization), 0.1);
  const auto package = detection::tide(scene(), found, {.compat = true});
  EXPECT_LT(gain(package, TideError::localization), gain(paper, TideError::localization));
  EXPECT_EQ(gain(paper, TideError::classification), gain(package, TideError::classification));
}

TEST(TideTest, WhatLiesOnACrowdIsNoError) {
  auto data = scene();
  data.truths[1].crowd = true;
  const std::vector<Detection> found = {at(100, 1, 0.9), at(101, 1, 0.8), at(0, 1, 0.5)};
  EXPECT_EQ(detection::tide(data, found).count, (std::array<std::int64_t, 6>{0, 0, 0, 0, 0, 2}));
  const auto package = detection::tide(data, found, {.compat = true});
  EXPECT_EQ(package.count[static_cast<std::size_t>(TideError::background)], 2);
}

TEST(TideTest, NothingAndBadInput) {
  const auto data = scene();
  EXPECT_EQ(detection::tide(data, {}).ap, 0);
  EXPECT_EQ(detection::tide(data, {}).count.back(), 4);
  EXPECT_EQ(detection::tide({}, {}).ap, -1);
  EXPECT_THROW((void)detection::tide(data, {}, {.foreground = 1.5}), ValueError);
  EXPECT_THROW((void)detection::tide(data, {}, {.background = 0.6}), ValueError);
  EXPECT_THROW((void)detection::tide(data, {}, {.target = CocoTarget::keypoints}), ValueError);
  std::vector<Detection> found = {at(0, 7, 0.5)};
  EXPECT_THROW((void)detection::tide(data, found), ValueError);
  found = {at(0, 1, std::numeric_limits<double>::quiet_NaN())};
  EXPECT_THROW((void)detection::tide(data, found), ValueError);
  found = {at(0, 1, 0.5)};
  EXPECT_THROW((void)detection::tide(data, found, {.target = CocoTarget::masks}), ValueError);
}

}  // namespace
}  // namespace quern::test::tide
