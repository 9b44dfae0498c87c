// SPDX-License-Identifier: Apache-2.0

/// \file
/// Suppression against its definition, worked through one box at a time.

#include "quern/detection/nms.hpp"

#include "quern/core/random.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::nms {
namespace {

using detection::SoftNms;

template <class T>
class NmsTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(NmsTest, Scalars);

template <class T>
struct Case {
  std::vector<T> boxes, scores;
  std::vector<std::int64_t> labels;
  [[nodiscard]] NdView<const T, 2> view() const {
    return {boxes.data(), {static_cast<Index>(scores.size()), 4}};
  }
};

template <class T>
Case<T> random_case(std::size_t n, std::uint64_t seed) {
  Philox rng(seed, "nms");
  Case<T> c;
  for (std::size_t i = 0; i < n; ++i) {
    const T x = rng.uniform(T(0), T(30)), y = rng.uniform(T(0), T(30));
    c.boxes.insert(c.boxes.end(),
                   {x, y, x + rng.uniform(T(1), T(20)), y + rng.uniform(T(1), T(20))});
    c.scores.push_back(static_cast<T>(rng.integer(10)) / 10);  // many ties
    c.labels.push_back(static_cast<std::int64_t>(rng.integer(3)));
  }
  return c;
}

template <class T>
std::vector<std::int64_t> naive(const Case<T>& c, double threshold, bool classes) {
  const auto overlap = detection::iou(c.view(), c.view());
  std::vector<std::int64_t> kept;
  std::vector<bool> done(c.scores.size(), false);
  for (std::size_t turn = 0; turn < c.scores.size(); ++turn) {
    std::size_t best = c.scores.size();
    for (std::size_t i = 0; i < c.scores.size(); ++i) {
      if (!done[i] && (best == c.scores.size() || c.scores[i] > c.scores[best])) best = i;
    }
    done[best] = true;
    bool free = true;
    for (const std::int64_t k : kept) {
      const bool same = !classes || c.labels[static_cast<std::size_t>(k)] == c.labels[best];
      if (same && overlap(k, static_cast<Index>(best)) > static_cast<T>(threshold)) free = false;
    }
    if (free) kept.push_back(static_cast<std::int64_t>(best));
  }
  return kept;
}

TYPED_TEST(NmsTest, HardEqualsItsDefinition) {
  using T = TypeParam;
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const auto c = random_case<T>(seed * 7, seed);
    const std::span<const T> scores(c.scores);
    for (const double t : {0.0, 0.3, 0.7}) {
      EXPECT_EQ(detection::nms<T>(c.view(), scores, {.iou_threshold = t}), naive(c, t, false));
      EXPECT_EQ(detection::nms<T>(c.view(), scores, {.iou_threshold = t}, c.labels),
                naive(c, t, !c.labels.empty()));
    }
  }
}

TYPED_TEST(NmsTest, SoftLowersScores) {
  using T = TypeParam;
  // IoU of the first two is 1/3, the third is apart.
  const Case<T> c{{0, 0, 10, 10, 5, 0, 15, 10, 50, 50, 60, 60}, {T(0.9), T(0.8), T(0.7)}, {}};
  const std::span<const T> scores(c.scores);
  const auto soft = detection::soft_nms<T>(c.view(), scores, {.method = SoftNms::gaussian});
  EXPECT_EQ(soft.kept, (std::vector<std::int64_t>{0, 2, 1}));
  EXPECT_NEAR(static_cast<double>(soft.scores[2]), 0.8 * std::exp(-2.0 / 9), 1e-6);
  const auto line = detection::soft_nms<T>(c.view(), scores, {.method = SoftNms::linear});
  EXPECT_NEAR(static_cast<double>(line.scores[2]), 0.8 * 2 / 3, 1e-6);
  const auto few =
      detection::soft_nms<T>(c.view(), scores, {.method = SoftNms::linear, .min_score = 0.6});
  EXPECT_EQ(few.kept, (std::vector<std::int64_t>{0, 2}));
  const std::vector<std::int64_t> labels = {1, 2, 1};
  const auto apart = detection::soft_nms<T>(c.view(), scores, {}, labels);
  EXPECT_EQ(apart.scores, c.scores);
}

TYPED_TEST(NmsTest, Refuses) {
  using T = TypeParam;
  Case<T> c = random_case<T>(3, 1);
  EXPECT_THROW((void)detection::nms<T>(c.view(), std::span<const T>(c.scores).first(2)),
               ShapeError);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::span<const T> scores(c.scores);
  EXPECT_THROW((void)detection::soft_nms<T>(c.view(), scores, {.iou_threshold = nan}), ValueError);
  EXPECT_THROW((void)detection::soft_nms<T>(c.view(), scores, {.min_score = nan}), ValueError);
  c.scores[1] = std::numeric_limits<T>::quiet_NaN();
  EXPECT_THROW((void)detection::nms<T>(c.view(), std::span<const T>(c.scores)), ValueError);
}

}  // namespace
}  // namespace quern::test::nms
