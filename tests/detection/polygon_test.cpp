// SPDX-License-Identifier: Apache-2.0

/// \file
/// Polygons and boxes to masks, against pycocotools.mask (tests/reference/detection), bit for bit.

#include "quern/detection/polygon.hpp"

#include "quern/core/random.hpp"

#include "sample.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::polygon {
namespace {

using detection::Box;
using detection::Rle;

TEST(PolygonTest, EqualsCocoTools) {
  const auto expected = detection_sample::load("mask_expected.json");
  const auto height = expected["size"][0].get<std::uint32_t>();
  const auto width = expected["size"][1].get<std::uint32_t>();
  for (const auto& p : expected["polygons"]) {
    const Rle m = detection::from_polygon(p["xy"].get<std::vector<double>>(), height, width);
    EXPECT_EQ(detection::compressed(m), p["compressed"].get<std::string>());
    EXPECT_EQ(detection::area(m), p["area"].get<std::uint64_t>());
    const Box box = detection::box_of(m);
    EXPECT_EQ((std::vector<double>{box.x, box.y, box.w, box.h}),
              p["bbox"].get<std::vector<double>>());
  }
  for (const auto& b : expected["boxes"]) {
    const auto v = b["xywh"].get<std::vector<double>>();
    const Rle m = detection::from_box({v[0], v[1], v[2], v[3]}, height, width);
    EXPECT_EQ(detection::compressed(m), b["compressed"].get<std::string>());
    EXPECT_EQ(detection::area(m), b["area"].get<std::uint64_t>());
  }
}

TEST(PolygonTest, UnionAndOrderOfCorners) {
  const std::vector<double> square = {1, 1, 5, 1, 5, 5, 1, 5}, back = {1, 5, 5, 5, 5, 1, 1, 1};
  const Rle m = detection::from_polygon(square, 8, 9);
  EXPECT_EQ(detection::area(m), 16u);
  EXPECT_EQ(detection::from_polygon(back, 8, 9), m);
  EXPECT_EQ(detection::from_box({1, 1, 4, 4}, 8, 9), m);
  const std::vector<std::vector<double>> two = {square, {3, 3, 7, 3, 7, 7, 3, 7}};
  EXPECT_EQ(detection::area(detection::from_polygons(two, 8, 9)), 28u);
  // Outside of the picture nothing is set.
  const std::vector<double> far = {50, 50, 60, 50, 60, 60};
  EXPECT_EQ(detection::area(detection::from_polygon(far, 8, 9)), 0u);
}

/// As COCO's tools do it: every point of the fine boundary, one after the other.
Rle step_by_step(const std::vector<double>& xy, std::uint32_t h, std::uint32_t w) {
  std::vector<int> us, vs;
  const std::size_t k = xy.size() / 2;
  const auto fine = [&](std::size_t i) { return static_cast<int>(5 * xy[i] + 0.5); };
  for (std::size_t j = 0; j < k; ++j) {
    const std::size_t n = (j + 1) % k;
    int xs = fine(2 * j), ys = fine(2 * j + 1), xe = fine(2 * n), ye = fine(2 * n + 1);
    const int dx = std::abs(xe - xs), dy = std::abs(ys - ye);
    const bool flip = (dx >= dy && xs > xe) || (dx < dy && ys > ye);
    if (flip) std::swap(xs, xe), std::swap(ys, ye);
    const double s =
        dx >= dy ? static_cast<double>(ye - ys) / dx : static_cast<double>(xe - xs) / dy;
    for (int d = 0; d <= (std::max)(dx, dy); ++d) {
      const int t = flip ? (std::max)(dx, dy) - d : d;
      const double across = dx + dy == 0 ? 0 : s * t;
      us.push_back(dx >= dy ? t + xs : static_cast<int>(xs + across + 0.5));
      vs.push_back(dx >= dy ? static_cast<int>(ys + across + 0.5) : t + ys);
    }
  }
  std::vector<std::uint32_t> ends;
  for (std::size_t j = 1; j < us.size(); ++j) {
    if (us[j] == us[j - 1]) continue;
    const double x = ((us[j] < us[j - 1] ? us[j] : us[j] - 1) + 0.5) / 5 - 0.5;
    if (std::floor(x) != x || x < 0 || x > w - 1.0) continue;
    const double y = ((std::min)(vs[j], vs[j - 1]) + 0.5) / 5 - 0.5;
    const double row = std::ceil((std::clamp)(y, 0.0, static_cast<double>(h)));
    ends.push_back(static_cast<std::uint32_t>(x) * h + static_cast<std::uint32_t>(row));
  }
  ends.push_back(h * w);
  return {h, w, detection::detail::runs_between(ends)};
}

TEST(PolygonTest, CrossingsAreThoseOfAWalkStepByStep) {
  Philox rng(11, "polygons");
  for (int i = 0; i < 3000; ++i) {
    SCOPED_TRACE(i);
    const double size = i % 3 == 0 ? 12 : i % 3 == 1 ? 60 : 600;
    const bool whole = i % 5 == 0;  // edges along the grid's lines and diagonals
    std::vector<double> xy;
    for (std::uint64_t n = 3 + rng.integer(6); n > 0; --n) {
      for (int c = 0; c < 2; ++c) {
        const double at = rng.uniform(-0.3 * size, 1.3 * size);
        xy.push_back(whole ? std::floor(at) / 5 : at);
      }
    }
    const auto h = static_cast<std::uint32_t>(size * 0.8), w = static_cast<std::uint32_t>(size);
    ASSERT_EQ(detection::from_polygon(xy, h, w), step_by_step(xy, h, w));
  }
}

TEST(PolygonTest, Refuses) {
  const std::vector<double> odd = {0, 0, 1, 0, 1}, far = {0, 0, 1e9, 0, 1, 1}, few = {0, 0, 1, 1};
  const std::vector<double> nan = {0, 0, std::numeric_limits<double>::quiet_NaN(), 0, 1, 1};
  const std::vector<double> good = {0, 0, 1, 0, 1, 1};
  EXPECT_THROW((void)detection::from_polygon(odd, 4, 4), ShapeError);
  EXPECT_THROW((void)detection::from_polygon(few, 4, 4), ShapeError);
  EXPECT_THROW((void)detection::from_polygon(far, 4, 4), ValueError);
  EXPECT_THROW((void)detection::from_polygon(nan, 4, 4), ValueError);
  EXPECT_THROW((void)detection::from_polygon(good, 1u << 20, 1u << 20), ShapeError);
  EXPECT_THROW((void)detection::from_polygons({}, 4, 4), ShapeError);
}

}  // namespace
}  // namespace quern::test::polygon
