// SPDX-License-Identifier: Apache-2.0

/// \file
/// Properties of COCO's evaluation: what may not change the numbers, threads, merging, bad input.
/// The numbers themselves are compared with COCO's tools in tests/io/coco_test.cpp.

#include "quern/detection/coco_eval.hpp"

#include "quern/core/random.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::coco_eval {
namespace {

using detection::CocoDataset;
using detection::CocoEvaluator;
using detection::CocoOptions;
using detection::CocoResult;
using detection::Detection;
using detection::Truth;

struct Sample {
  CocoDataset data;
  std::vector<Detection> found;
};

Sample sample(std::uint64_t seed, bool perfect = false) {
  Philox rng(seed, "coco");
  Sample s;
  for (std::int64_t c = 0; c < 4; ++c) s.data.categories.push_back({c * 3 + 1, "c", 0});
  for (std::int64_t i = 0; i < 90; ++i) {
    detection::ImageInfo info;
    info.id = 7 * i + 2;
    s.data.images.push_back(info);
    for (std::uint64_t n = rng.integer(7); n > 0; --n) {
      Truth t;
      t.id = static_cast<std::int64_t>(s.data.truths.size());
      t.image = info.id;
      t.category = static_cast<std::int64_t>(rng.integer(4)) * 3 + 1;
      t.box = {rng.uniform(0.0, 300.0), rng.uniform(0.0, 300.0), rng.uniform(5.0, 150.0),
               rng.uniform(5.0, 150.0)};
      t.area = t.box.area() * 0.7;
      t.crowd = !perfect && rng.bernoulli(0.1);
      s.data.truths.push_back(t);
      for (std::uint64_t k = perfect ? 1 : rng.integer(3); k > 0; --k) {
        Detection d{info.id, t.category, rng.uniform<double>(), t.box, nullptr, {}};
        if (!perfect) {
          d.box.x += rng.normal() * 8, d.box.w += rng.uniform(0.0, 20.0);
          if (rng.bernoulli(0.1)) d.category = 1;
        }
        s.found.push_back(d);
      }
    }
  }
  return s;
}

bool equal(const CocoResult& a, const CocoResult& b) {
  const auto same = [](const auto& x, const auto& y) {
    return x.extents() == y.extents() && std::equal(x.begin(), x.end(), y.begin());
  };
  return same(a.precision, b.precision) && same(a.recall, b.recall) && same(a.scores, b.scores);
}

std::vector<std::int64_t> ids_of(const CocoDataset& data) {
  std::vector<std::int64_t> ids;
  for (const auto& c : data.categories) ids.push_back(c.id);
  return ids;
}

TEST(CocoEvalTest, PerfectDetectionsGiveOne) {
  const Sample s = sample(1, true);
  for (const auto& stat : detection::coco_stats(detection::evaluate(s.data, s.found))) {
    if (stat.name.substr(0, 4) == "AR@1") continue;  // more than one object an image and class
    EXPECT_NEAR(stat.value, 1, 1e-12) << stat.name;
  }
}

TEST(CocoEvalTest, OrderNamesAndScaleDoNotMatter) {
  Sample s = sample(2);
  const CocoResult before = detection::evaluate(s.data, s.found);
  EXPECT_GT(before.average_precision(), 0.1);
  Philox rng(3, "shuffle");
  rng.shuffle(std::span<Detection>(s.found));
  rng.shuffle(std::span<Truth>(s.data.truths));
  rng.shuffle(std::span<detection::ImageInfo>(s.data.images));
  rng.shuffle(std::span<detection::Category>(s.data.categories));
  EXPECT_TRUE(equal(before, detection::evaluate(s.data, s.found)));
  // Other classes' names in the same order, images' in another: no scores are equal here.
  for (auto& c : s.data.categories) c.id += 100;
  for (auto& i : s.data.images) i.id = -i.id;
  for (auto& t : s.data.truths) t.category += 100, t.image = -t.image;
  for (auto& d : s.found) d.category += 100, d.image = -d.image;
  EXPECT_TRUE(equal(before, detection::evaluate(s.data, s.found)));
  // Powers of two, so that nothing is rounded; areas are scaled with the boxes.
  CocoOptions options;
  for (auto& a : options.areas) a.low *= 16, a.high *= 16;
  const auto grow = [](detection::Box& b) { b.x *= 4, b.y *= 4, b.w *= 4, b.h *= 4; };
  for (auto& t : s.data.truths) grow(t.box), t.area *= 16;
  for (auto& d : s.found) grow(d.box), d.score = d.score * 2 - 1;
  const CocoResult scaled = detection::evaluate(s.data, s.found, options);
  EXPECT_TRUE(
      std::equal(before.precision.begin(), before.precision.end(), scaled.precision.begin()));
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
  std::vector<CocoEvaluator> parts(3, CocoEvaluator(ids_of(s.data)));
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
  CocoEvaluator fresh(ids_of(s.data));
  EXPECT_THROW(fresh.merge_bytes(broken), ParseError);
  CocoOptions other;
  other.compat = true;
  EXPECT_THROW(fresh.merge(CocoEvaluator(ids_of(s.data), other)), ValueError);
}

TEST(CocoEvalTest, EmptyResultsAreZeroAndNoObjectsMinusOne) {
  const Sample s = sample(5);
  const CocoResult none = detection::evaluate(s.data, {});
  for (const auto& stat : detection::coco_stats(none)) EXPECT_EQ(stat.value, 0) << stat.name;
  const CocoDataset empty;
  EXPECT_EQ(detection::evaluate(empty, {}).average_precision(), -1);
}

TEST(CocoEvalTest, RefusesBadInput) {
  CocoEvaluator e({1, 2});
  const auto refuse = [&](const Truth& t, const Detection& d) {
    EXPECT_THROW(e.add_image(1, {&t, 1}, {&d, 1}), ValueError);
  };
  Truth good;
  good.category = 1;
  good.box = {0, 0, 4, 4};
  const Detection found{1, 2, 0.5, {0, 0, 4, 4}, nullptr, {}};
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
  wrong.area = -1;
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

TEST(CocoEvalTest, MatchingByHand) {
  // Two objects; the second detection would be better on what the first has taken.
  const std::vector<double> iou = {0.7, 0.6, 0.9, 0.0, 0.5, 0.5};
  const NdView<const double, 2> m(iou.data(), {3, 2});
  const auto coco = detection::match_coco(m, 0.5);
  EXPECT_EQ(coco.truth, (std::vector<std::int32_t>{0, -1, 1}));
  const auto voc = detection::match_voc(m, 0.5);
  EXPECT_EQ(voc.truth, (std::vector<std::int32_t>{0, -1, -1}));
  const std::vector<std::uint8_t> first = {1, 0};
  const auto ignored = detection::match_coco(m, 0.5, {.ignored = first, .crowd = first});
  EXPECT_EQ(ignored.truth, (std::vector<std::int32_t>{1, 0, 0}));
  EXPECT_EQ(ignored.verdict[1], detection::Verdict::ignored);
  EXPECT_THROW((void)detection::match_coco(m, 0.5, {.crowd = std::span(first).first(1)}),
               ShapeError);
}

}  // namespace
}  // namespace quern::test::coco_eval
