// SPDX-License-Identifier: Apache-2.0

/// \file
/// Intervals of AP: against evaluating the resampled images for real, and properties.

#include "quern/detection/bootstrap.hpp"

#include "sample.hpp"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::bootstrap {
namespace {

using detection::BootstrapOptions;
using detection::CocoEvaluator;
using detection_sample::Sample;
using detection_sample::sample;

CocoEvaluator evaluator_of(const Sample& s) {
  CocoEvaluator e(s.categories());
  e.add(s.data.images, s.data.truths, s.found);
  return e;
}

/// The data set in which image i occurs weights[i] times, under new ids in the same order.
Sample repeated(const Sample& s, const std::vector<std::uint32_t>& weights) {
  Sample out;
  out.data.categories = s.data.categories;
  std::int64_t id = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    for (std::uint32_t k = 0; k < weights[i]; ++k) {
      out.data.images.emplace_back();
      out.data.images.back().id = ++id;
      for (detection::Truth t : s.data.truths) {
        if (t.image != s.data.images[i].id) continue;
        t.image = id;
        out.data.truths.push_back(t);
      }
      for (detection::Detection d : s.found) {
        if (d.image != s.data.images[i].id) continue;
        d.image = id;
        out.found.push_back(d);
      }
    }
  }
  return out;
}

TEST(BootstrapTest, WeightsStandForRepeatedImages) {
  const Sample s = sample(2, {.images = 40});
  const auto e = evaluator_of(s);
  const detection::detail::WeightedAp ap(e, {});
  for (std::int64_t i = 0; i < 5; ++i) {
    const auto weights = detection::detail::drawn(40, 1, i);
    const Sample again = repeated(s, weights);
    EXPECT_NEAR(ap(weights), detection::evaluate(again.data, again.found).average_precision(),
                1e-9);
  }
}

TEST(BootstrapTest, SurroundsTheValue) {
  const auto e = evaluator_of(sample(4));
  BootstrapOptions options{.replicates = 200};
  const auto wide = detection::bootstrap_ap(e, options);
  EXPECT_NEAR(wide.value, e.accumulate().average_precision(), 1e-12);
  EXPECT_LT(wide.low, wide.value);
  EXPECT_GT(wide.high, wide.value);
  EXPECT_GT(wide.standard_error, 0);
  options.confidence = 0.5;
  const auto narrow = detection::bootstrap_ap(e, options);
  EXPECT_GT(narrow.low, wide.low);
  EXPECT_LT(narrow.high, wide.high);
  options.iou = 0.5;
  EXPECT_NEAR(detection::bootstrap_ap(e, options).value,
              e.accumulate().average_precision({.iou = 0.5}), 1e-12);
}

TEST(BootstrapTest, ComparesPairs) {
  Sample s = sample(4);
  const auto b = evaluator_of(s);
  for (std::size_t i = 0; i < s.found.size(); i += 3) s.found[i].box.x += 40;
  const auto a = evaluator_of(s);
  BootstrapOptions options{.replicates = 200};
  const auto same = detection::compare_ap(a, a, options);
  EXPECT_EQ(same.difference.low, 0);
  EXPECT_EQ(same.difference.high, 0);
  EXPECT_EQ(same.second_better, 0.5);
  const auto better = detection::compare_ap(a, b, options);
  EXPECT_GT(better.second_better, 0.99);
  EXPECT_GT(better.difference.low, 0);
  // Pairs are sharper than two intervals.
  EXPECT_LT(better.difference.high - better.difference.low, better.first.high - better.first.low);
  for (const int threads : {2, 3}) {
    options.threads = threads;
    const auto again = detection::compare_ap(a, b, options);
    EXPECT_EQ(again.difference.low, better.difference.low);
    EXPECT_EQ(again.second.standard_error, better.second.standard_error);
  }
}

TEST(BootstrapTest, NothingAndBadInput) {
  const auto e = evaluator_of(sample(4, {.images = 8}));
  EXPECT_EQ(detection::bootstrap_ap(CocoEvaluator({1})).value, -1);
  EXPECT_THROW((void)detection::compare_ap(e, CocoEvaluator({1})), ValueError);
  detection::CocoOptions half;
  half.iou_thresholds = {0.5};
  EXPECT_THROW((void)detection::compare_ap(CocoEvaluator({1}), CocoEvaluator({1}, half)),
               ValueError);
  EXPECT_THROW((void)detection::bootstrap_ap(e, {.replicates = 0}), ValueError);
  EXPECT_THROW((void)detection::bootstrap_ap(e, {.confidence = 1.5}), ValueError);
  EXPECT_THROW((void)detection::bootstrap_ap(e, {.iou = 0.51}), ValueError);
}

}  // namespace
}  // namespace quern::test::bootstrap
