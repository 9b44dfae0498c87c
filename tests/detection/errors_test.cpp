// SPDX-License-Identifier: Apache-2.0

/// \file
/// Confusion, kinds of errors, intervals: small cases worked by hand, and properties.

#include "quern/detection/errors.hpp"

#include "quern/core/random.hpp"
#include "quern/detection/bootstrap.hpp"
#include "quern/detection/f1.hpp"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::errors {
namespace {

using detection::Box;
using detection::CocoDataset;
using detection::Detection;
using detection::TideError;

/// Two classes, one image: objects of class 1 at x = 0, 100, 200, of class 2 at 300; all 10 x 10.
CocoDataset scene() {
  CocoDataset data;
  data.categories = {{1, "a", 0}, {2, "b", 0}};
  data.images.emplace_back();
  data.images[0].id = 1;
  for (int i = 0; i < 4; ++i) {
    detection::Truth t;
    t.id = i + 1, t.image = 1, t.category = i < 3 ? 1 : 2;
    t.box = {100.0 * i, 0, 10, 10}, t.area = 100;
    data.truths.push_back(t);
  }
  return data;
}

Detection at(double x, std::int64_t category, double score) {
  return {1, category, score, Box{x, 0, 10, 10}, nullptr, {}};
}

TEST(ErrorsTest, EveryKindByHand) {
  const CocoDataset data = scene();
  // Right; the same again; displaced by 5 (IoU 1/3); the wrong class; on nothing; displaced and
  // wrong.
  const std::vector<Detection> found = {at(0, 1, 0.9),   at(0, 1, 0.8),   at(105, 1, 0.7),
                                        at(300, 1, 0.6), at(500, 1, 0.5), at(205, 2, 0.4)};
  const auto result = detection::tide(data, found);
  EXPECT_EQ(result.count, (std::array<std::int64_t, 6>{1, 1, 1, 1, 1, 1}));
  // Class 1: one of three found at precision 1: 34 of the 101 levels; class 2: nothing.
  EXPECT_NEAR(result.ap, 34.0 / 101 / 2, 1e-12);
  const auto gain = [&](TideError e) { return result.gain[static_cast<std::size_t>(e)]; };
  // The third becomes right, after one false positive: precision 2/3 on 33 levels more.
  EXPECT_NEAR(gain(TideError::localization), 33.0 * 2 / 3 / 101 / 2, 1e-12);
  // The fourth becomes a right one of class 2, at precision 1.
  EXPECT_NEAR(gain(TideError::classification), 0.5, 1e-12);
  EXPECT_NEAR(gain(TideError::duplicate), 0, 1e-12);
  // Without the object at 200, two objects of class 1: 51 levels.
  EXPECT_NEAR(gain(TideError::missed), (51.0 - 34) / 101 / 2, 1e-12);
}

TEST(ErrorsTest, ConfusionWithBackground) {
  const std::vector<Detection> found = {at(0, 1, 0.9), at(0, 1, 0.8), at(300, 1, 0.6),
                                        at(100, 2, 0.7), at(200, 1, 0.2)};
  const auto c = detection::confusion_matrix(scene(), found);
  const std::vector<std::int64_t> expected = {1, 1, 1, 1, 0, 0, 1, 0, 0};
  EXPECT_TRUE(std::equal(c.counts.begin(), c.counts.end(), expected.begin()));
  EXPECT_EQ(c.categories, (std::vector<std::int64_t>{1, 2}));
}

TEST(ErrorsTest, BootstrapSurroundsTheValue) {
  CocoDataset data;
  data.categories = {{1, "a", 0}};
  Philox rng(5, "bootstrap test");
  std::vector<Detection> first, second;
  for (std::int64_t i = 1; i <= 60; ++i) {
    data.images.emplace_back();
    data.images.back().id = i;
    detection::Truth t;
    t.id = i, t.image = i, t.category = 1, t.box = {0, 0, 10, 10}, t.area = 100;
    data.truths.push_back(t);
    for (auto* list : {&first, &second}) {
      const bool good = rng.bernoulli(list == &first ? 0.5 : 0.8);
      list->push_back({i, 1, rng.uniform<double>(), {good ? 0.0 : 8.0, 0, 10, 10}, nullptr, {}});
    }
  }
  const auto evaluate = [&](const std::vector<Detection>& found) {
    detection::CocoEvaluator e({1});
    e.add(data.images, data.truths, found);
    return e;
  };
  const auto a = evaluate(first), b = evaluate(second);
  detection::BootstrapOptions options;
  options.replicates = 200;
  const auto interval = detection::bootstrap_ap(a, options);
  EXPECT_NEAR(interval.value, a.accumulate().average_precision(), 1e-12);
  EXPECT_LT(interval.low, interval.value);
  EXPECT_GT(interval.high, interval.value);
  EXPECT_GT(interval.standard_error, 0);
  const auto same = detection::compare_ap(a, a, options);
  EXPECT_EQ(same.difference.high, 0);
  EXPECT_EQ(same.second_better, 0.5);
  const auto other = detection::compare_ap(a, b, options);
  EXPECT_GT(other.second_better, 0.9);
  options.threads = 3;
  EXPECT_EQ(detection::compare_ap(a, b, options).difference.low, other.difference.low);
  EXPECT_THROW((void)detection::compare_ap(a, detection::CocoEvaluator({1})), ValueError);
  // F1 by hand: all detections kept, precision and recall are both the share that is right.
  const auto f1 = detection::macro_f1(b);
  EXPECT_GT(f1.f1, 0.7);
  EXPECT_THROW((void)detection::macro_f1(b, 0.51), ValueError);
}

}  // namespace
}  // namespace quern::test::errors
