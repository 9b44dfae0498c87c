// SPDX-License-Identifier: Apache-2.0

/// \file
/// Properties of COCO's evaluation: what may not change the numbers, threads, merging, bad input.
/// The numbers themselves are compared with COCO's tools in tests/io/coco_test.cpp.

#include "quern/detection/coco_eval.hpp"

#include "quern/core/random.hpp"

#include "sample.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace quern::test::coco_eval {
namespace {

using detection::CocoDataset;
using detection::CocoEvaluator;
using detection::CocoOptions;
using detection::CocoResult;
using detection::Detection;
using detection::Truth;
using detection_sample::Sample;
using detection_sample::sample;

template <class Array>
bool same(const Array& x, const Array& y) {
  return x.extents() == y.extents() && std::equal(x.begin(), x.end(), y.begin());
}
bool equal(const CocoResult& a, const CocoResult& b) {
  return same(a.precision, b.precision) && same(a.recall, b.recall) && same(a.scores, b.scores);
}

/// The room's sample, or a small one that a property asked for.
struct Drawn {
  Sample s;
  Philox rng;
};
Drawn drawn(bool ties = false) {
  const auto seed = *rc::gen::arbitrary<std::uint32_t>();
  const auto images = *rc::gen::inRange<std::int64_t>(1, 25);
  return {sample(seed, {.images = images, .ties = ties}), Philox(seed, "change")};
}

TEST(CocoEvalTest, PerfectDetectionsGiveOne) {
  EXPECT_TRUE(rc::check("all numbers are 1", [] {
    const auto seed = *rc::gen::arbitrary<std::uint32_t>();
    const Sample s = sample(seed, {.images = 12, .perfect = true});
    for (const auto& stat : detection::coco_stats(detection::evaluate(s.data, s.found))) {
      if (stat.name == "AR@1") continue;  // more than one object an image and class
      // -1 where no object is of that size.
      if (stat.value != -1) RC_ASSERT(std::fabs(stat.value - 1) < 1e-12);
    }
  }));
}

TEST(CocoEvalTest, ShufflingChangesNothing) {
  EXPECT_TRUE(rc::check("shuffling", [] {
    auto [s, rng] = drawn();
    const CocoResult before = detection::evaluate(s.data, s.found);
    rng.shuffle(std::span<Detection>(s.found));
    rng.shuffle(std::span<Truth>(s.data.truths));
    rng.shuffle(std::span<detection::ImageInfo>(s.data.images));
    rng.shuffle(std::span<detection::Category>(s.data.categories));
    RC_ASSERT(equal(before, detection::evaluate(s.data, s.found)));
  }));
}

TEST(CocoEvalTest, RelabellingChangesNothing) {
  EXPECT_TRUE(rc::check("other names", [] {
    auto [s, rng] = drawn();
    const CocoResult before = detection::evaluate(s.data, s.found);
    // Classes in the same order, images in the reverse one: no scores are equal here.
    const std::int64_t far = *rc::gen::element<std::int64_t>(1, 100, 1000000007);
    for (auto& c : s.data.categories) c.id *= far;
    for (auto& i : s.data.images) i.id *= -far;
    for (auto& t : s.data.truths) t.category *= far, t.image *= -far, t.id = t.id * 3 + 5;
    for (auto& d : s.found) d.category *= far, d.image *= -far;
    RC_ASSERT(equal(before, detection::evaluate(s.data, s.found)));
    // Classes in another order: the same numbers of each.
    for (auto& c : s.data.categories) c.id = -c.id;
    for (auto& t : s.data.truths) t.category = -t.category;
    for (auto& d : s.found) d.category = -d.category;
    const CocoResult turned = detection::evaluate(s.data, s.found);
    const std::size_t last = before.categories.size() - 1;
    for (std::size_t k = 0; k <= last; ++k) {
      RC_ASSERT(before.class_precision(k) == turned.class_precision(last - k));
    }
  }));
}

TEST(CocoEvalTest, ScalingScoresAndBoxesChangesNothing) {
  EXPECT_TRUE(rc::check("scales", [] {
    auto [s, rng] = drawn(true);
    const CocoResult before = detection::evaluate(s.data, s.found);
    for (auto& d : s.found) d.score = std::exp(d.score) * 4 - 9;  // increasing
    const CocoResult scored = detection::evaluate(s.data, s.found);
    RC_ASSERT(same(before.precision, scored.precision) && same(before.recall, scored.recall));
    // Powers of two, so that nothing is rounded; areas are scaled with the boxes.
    CocoOptions options;
    for (auto& a : options.areas) a.low *= 16, a.high *= 16;
    const auto grow = [](detection::Box& b) { b.x *= 4, b.y *= 4, b.w *= 4, b.h *= 4; };
    for (auto& t : s.data.truths) grow(t.box), t.area *= 16;
    for (auto& d : s.found) grow(d.box);
    const CocoResult scaled = detection::evaluate(s.data, s.found, options);
    RC_ASSERT(same(before.precision, scaled.precision) && same(before.recall, scaled.recall));
  }));
}

TEST(CocoEvalTest, UprightRotatedBoxesAreBoxes) {
  Sample s = sample(9);
  CocoOptions options = CocoOptions::of(detection::CocoTarget::rotated_boxes);
  options.iou_thresholds = {0.5, 0.75};  // not on a threshold but for rounding
  CocoOptions upright = options;
  upright.target = detection::CocoTarget::boxes;
  const CocoResult before = detection::evaluate(s.data, s.found, upright);
  EXPECT_TRUE(equal(before, detection::evaluate(s.data, s.found, options)));
  // All turned alike, about their own centres: overlaps change, and one that is not told loses.
  for (auto& t : s.data.truths) t.degrees = 30;
  const double told = detection::evaluate(s.data, s.found, options).average_precision();
  EXPECT_LT(told, before.average_precision());
  for (auto& d : s.found) d.degrees = 30;
  EXPECT_GT(detection::evaluate(s.data, s.found, options).average_precision(), told);
  s.found[0].degrees = std::numeric_limits<double>::infinity();
  EXPECT_THROW((void)detection::evaluate(s.data, s.found, options), ValueError);
}

TEST(CocoEvalTest, ThreadsMergingAndStreamingGiveTheSameBits) {
  const Sample s = sample(4);
  const CocoResult whole = detection::evaluate(s.data, s.found);
  for (const int threads : {2, 3}) {
    CocoOptions options;
    options.threads = threads;
    EXPECT_TRUE(equal(whole, detection::evaluate(s.data, s.found, options)));
  }
  // Images one by one, from the last to the first, in three evaluators.
  std::vector<CocoEvaluator> parts(3, CocoEvaluator(s.categories()));
  for (std::size_t i = s.data.images.size(); i-- > 0;) {
    const std::int64_t image = s.data.images[i].id;
    std::vector<Truth> truths;
    std::vector<Detection> found;
    for (const Truth& t : s.data.truths) {
      if (t.image == image) truths.push_back(t);
    }
    for (const Detection& d : s.found) {
      if (d.image == image) found.push_back(d);
    }
    parts[i % 3].add_image(image, truths, found);
  }
  const auto sent = parts[2].bytes();
  parts[0].merge(parts[1]);
  parts[0].merge_bytes(sent);
  EXPECT_EQ(parts[0].images(), 90);
  EXPECT_TRUE(equal(whole, parts[0].accumulate()));
  EXPECT_THROW(parts[0].merge(parts[1]), ValueError);
  EXPECT_THROW(parts[0].merge_bytes(sent), ValueError);
  auto broken = sent;
  broken[broken.size() / 2] ^= std::byte{4};
  CocoEvaluator fresh(s.categories());
  EXPECT_THROW(fresh.merge_bytes(broken), ParseError);
  CocoOptions other;
  other.compat = true;
  EXPECT_THROW(fresh.merge(CocoEvaluator(s.categories(), other)), ValueError);
}

TEST(CocoEvalTest, MasksMustFillTheirImages) {
  CocoOptions options;
  options.target = detection::CocoTarget::masks;
  const detection::Rle whole{4, 4, {0, 16}}, more{4, 4, {0, 100}};
  const std::vector<Truth> truths = {{.category = 1, .mask = &whole}};
  std::vector<Detection> found = {{.category = 1, .score = 0.5, .mask = &whole}};
  CocoEvaluator evaluator({1}, options);
  evaluator.add_image(1, truths, found);
  EXPECT_NEAR(evaluator.accumulate().average_precision(), 1, 1e-12);
  found[0].mask = &more;
  EXPECT_THROW(evaluator.add_image(2, truths, found), ShapeError);
}

TEST(CocoEvalTest, EmptyResultsAreZeroAndNoObjectsMinusOne) {
  const Sample s = sample(5);
  const CocoResult none = detection::evaluate(s.data, {});
  for (const auto& stat : detection::coco_stats(none)) EXPECT_EQ(stat.value, 0) << stat.name;
  const CocoDataset empty;
  EXPECT_EQ(detection::evaluate(empty, {}).average_precision(), -1);
}

TEST(CocoEvalTest, AreasAreTheBoxesUnlessToldOtherwise) {
  Sample s = sample(5);
  for (auto& t : s.data.truths) t.area = t.box.area();
  const CocoResult told = detection::evaluate(s.data, s.found);
  for (auto& t : s.data.truths) t.area = Truth{}.area;
  EXPECT_TRUE(equal(told, detection::evaluate(s.data, s.found)));
}

TEST(CocoEvalTest, RefusesBadInput) {
  CocoEvaluator e({1, 2});
  const auto refuse = [&](const Truth& t, const Detection& d) {
    EXPECT_THROW(e.add_image(1, {&t, 1}, {&d, 1}), ValueError);
  };
  Truth good;
  good.category = 1;
  good.box = {0, 0, 4, 4};
  Detection found;
  found.image = 1, found.category = 2, found.score = 0.5, found.box = {0, 0, 4, 4};
  Detection bad = found;
  bad.score = std::numeric_limits<double>::quiet_NaN();
  refuse(good, bad);
  bad = found;
  bad.category = 9;
  refuse(good, bad);
  bad = found;
  bad.box.w = -1;
  refuse(good, bad);
  Truth wrong = good;
  wrong.category = 9;
  refuse(wrong, found);
  wrong = good;
  wrong.area = -2;
  refuse(wrong, found);
  EXPECT_EQ(e.images(), 0);
  e.add_image(1, {&good, 1}, {&found, 1});
  EXPECT_THROW(e.add_image(1, {}, {}), ValueError);
  EXPECT_THROW(CocoEvaluator({1, 1}), ValueError);
  CocoOptions options;
  options.max_detections = {10, 1};
  EXPECT_THROW(CocoEvaluator({1}, options), ValueError);
  CocoDataset data;
  data.categories = {{1, "a", 0}};
  EXPECT_THROW((void)detection::evaluate(data, {&found, 1}), ValueError);
  options = CocoOptions::of(detection::CocoTarget::masks);
  CocoEvaluator masks({1, 2}, options);
  EXPECT_THROW(masks.add_image(1, {}, {&found, 1}), ValueError);
}

}  // namespace
}  // namespace quern::test::coco_eval
