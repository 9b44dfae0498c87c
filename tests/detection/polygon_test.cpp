// SPDX-License-Identifier: Apache-2.0

/// \file
/// Polygons and boxes to masks, against pycocotools.mask (tests/reference/detection), bit for bit.

#include "quern/detection/polygon.hpp"

#include "sample.hpp"

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
