// SPDX-License-Identifier: Apache-2.0

/// \file
/// Curves and averages by hand, and properties of random verdicts. VOC's and COCO's numbers are
/// compared in voc_eval_test.cpp and tests/io/coco_test.cpp.

#include "quern/detection/average_precision.hpp"

#include "quern/core/random.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace quern::test::average_precision {
namespace {

using detection::PrecisionRecall;
using detection::Verdict;

struct Case {
  std::vector<double> scores;
  std::vector<Verdict> verdicts;
  std::int64_t positives = 0;

  [[nodiscard]] PrecisionRecall curve() const {
    return detection::precision_recall(scores, verdicts, positives);
  }
};

std::vector<double> averages(const PrecisionRecall& c) {
  return {detection::ap_all_points(c), detection::ap_11_points(c),
          detection::ap_at_levels(c, detection::coco_recall_levels())};
}

/// Scores that are all different.
Case random_case(std::uint64_t seed) {
  Philox rng(seed, "verdicts");
  Case c;
  const std::size_t n = static_cast<std::size_t>(rng.integer(40));
  for (std::size_t i = 0; i < n; ++i) {
    c.scores.push_back(static_cast<double>(i) / 64);
    const double u = rng.uniform<double>();
    c.verdicts.push_back(u < 0.4   ? Verdict::true_positive
                         : u < 0.9 ? Verdict::false_positive
                                   : Verdict::ignored);
  }
  rng.shuffle(std::span<double>(c.scores));
  c.positives = std::count(c.verdicts.begin(), c.verdicts.end(), Verdict::true_positive) +
                static_cast<std::int64_t>(rng.integer(5));
  return c;
}

TEST(AveragePrecisionTest, ByHand) {
  using enum Verdict;
  const Case c{{0.9, 0.7, 0.8, 0.6, 0.5},
               {true_positive, ignored, false_positive, true_positive, false_positive},
               4};
  const auto curve = c.curve();
  EXPECT_EQ(curve.scores, (std::vector<double>{0.9, 0.8, 0.6, 0.5}));
  EXPECT_EQ(curve.precision, (std::vector<double>{1, 1.0 / 2, 2.0 / 3, 2.0 / 4}));
  EXPECT_EQ(curve.recall, (std::vector<double>{0.25, 0.25, 0.5, 0.5}));
  EXPECT_EQ(curve.true_positives, 2);
  EXPECT_EQ(curve.false_positives, 2);
  EXPECT_NEAR(detection::ap_all_points(curve), 0.25 + 0.25 * 2 / 3, 1e-15);
  // Levels 0, 0.1, 0.2 at 1; 0.3, 0.4, 0.5 at 2/3; the others are not reached.
  EXPECT_NEAR(detection::ap_11_points(curve), 5.0 / 11, 1e-15);
  EXPECT_NEAR(detection::ap_at_levels(curve, std::vector<double>{0.25, 0.26, 0.6}), 5.0 / 9, 1e-15);
  EXPECT_EQ(detection::ap_at_levels(curve, {}), 0);
  const auto best = detection::best_f1(curve);
  EXPECT_EQ(best.score, 0.6);
  EXPECT_NEAR(best.f1, 4.0 / 7, 1e-15);
}

TEST(AveragePrecisionTest, NothingAndBadInput) {
  const Case none;
  for (const double ap : averages(none.curve())) EXPECT_EQ(ap, 0);
  EXPECT_EQ(detection::best_f1(none.curve()).f1, 0);
  const Case no_objects{{0.5}, {Verdict::false_positive}, 0};
  EXPECT_EQ(no_objects.curve().recall[0], 0);
  const std::vector<double> nan = {std::numeric_limits<double>::quiet_NaN()};
  EXPECT_THROW((void)detection::precision_recall(nan, no_objects.verdicts, 1), ValueError);
  EXPECT_THROW((void)detection::precision_recall({}, no_objects.verdicts, 1), ShapeError);
}

TEST(AveragePrecisionTest, OfEqualScoresTheEarlierComesFirst) {
  const Case right_first{{0.5, 0.5}, {Verdict::true_positive, Verdict::false_positive}, 1};
  const Case wrong_first{{0.5, 0.5}, {Verdict::false_positive, Verdict::true_positive}, 1};
  EXPECT_EQ(detection::ap_all_points(right_first.curve()), 1);
  EXPECT_EQ(detection::ap_all_points(wrong_first.curve()), 0.5);
  // A threshold cannot tell them apart.
  EXPECT_EQ(detection::best_f1(right_first.curve()).f1, detection::best_f1(wrong_first.curve()).f1);
}

TEST(AveragePrecisionTest, Properties) {
  EXPECT_TRUE(rc::check("order, scale and what is ignored do not matter", [] {
    const auto seed = *rc::gen::arbitrary<std::uint32_t>();
    const Case c = random_case(seed);
    const auto before = averages(c.curve());
    // Shuffled, with scores through an increasing function, without what is ignored.
    std::vector<std::size_t> order(c.scores.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    Philox rng(seed, "order");
    rng.shuffle(std::span<std::size_t>(order));
    Case other;
    other.positives = c.positives;
    for (const std::size_t i : order) {
      if (c.verdicts[i] == Verdict::ignored) continue;
      other.scores.push_back(std::exp(3 * c.scores[i]) - 7);
      other.verdicts.push_back(c.verdicts[i]);
    }
    RC_ASSERT(averages(other.curve()) == before);
    for (const double ap : before) RC_ASSERT(ap >= 0 && ap <= 1);
    // One more false positive at the end changes nothing; at the top it never helps.
    other.scores.push_back(-100);
    other.verdicts.push_back(Verdict::false_positive);
    RC_ASSERT(averages(other.curve()) == before);
    other.scores.back() = 1e9;
    const auto worse = averages(other.curve());
    for (std::size_t i = 0; i < before.size(); ++i) RC_ASSERT(worse[i] <= before[i]);
  }));
  EXPECT_TRUE(rc::check("all found, and first: 1", [] {
    const auto right = *rc::gen::inRange(1, 30), wrong = *rc::gen::inRange(0, 30);
    Case c;
    c.positives = right;
    for (int i = 0; i < right + wrong; ++i) {
      c.scores.push_back(-i);
      c.verdicts.push_back(i < right ? Verdict::true_positive : Verdict::false_positive);
    }
    for (const double ap : averages(c.curve())) RC_ASSERT(std::fabs(ap - 1) < 1e-14);
    RC_ASSERT(detection::best_f1(c.curve()).f1 == 1);
  }));
}

TEST(AveragePrecisionRefuses, MoreHitsThanObjects) {
  const std::vector<double> scores = {0.9, 0.8};
  const std::vector<Verdict> hits(2, Verdict::true_positive);
  EXPECT_THROW((void)detection::precision_recall(scores, hits, 1), ValueError);
  EXPECT_EQ(detection::ap_all_points(detection::precision_recall(scores, hits, 2)), 1);
}

}  // namespace
}  // namespace quern::test::average_precision
