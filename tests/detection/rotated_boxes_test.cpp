// SPDX-License-Identifier: Apache-2.0

/// \file
/// IoU of rotated boxes against polygons cut by shapely (tests/reference/detection), and
/// properties.

#include "quern/detection/rotated_boxes.hpp"

#include "quern/core/random.hpp"
#include "quern/io/npy.hpp"

#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::rotated_boxes {
namespace {

using detection::Box;
using detection::rotated_iou;
using detection::RotatedBox;

template <class T>
NdArray<T, 2> reference(const std::string& name) {
  return io::read_npy<T, 2>(std::string(QUERN_TEST_REFERENCE_DIR) + "/detection/" + name + ".npy");
}

template <class T>
class RotatedBoxesTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(RotatedBoxesTest, Scalars);

TYPED_TEST(RotatedBoxesTest, AgreeWithPolygonClipping) {
  using T = TypeParam;
  const auto a = reference<T>("rotiou_a"), b = reference<T>("rotiou_b");
  const auto expected = reference<double>("rotiou_expected");
  const auto got = rotated_iou(view(a), view(b));
  ASSERT_EQ(got.extents(), expected.extents());
  for (Index i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(got.data()[i]), expected.data()[i],
                sizeof(T) == 4 ? 1e-5 : 1e-10);
  }
}

RotatedBox random_box(Philox& rng) {
  return {rng.uniform(0.0, 40.0), rng.uniform(0.0, 40.0), rng.uniform(1.0, 30.0),
          rng.uniform(1.0, 30.0), rng.uniform(-400.0, 400.0)};
}

TEST(RotatedBoxesTest, Properties) {
  Philox rng(1, "rotated");
  for (int i = 0; i < 300; ++i) {
    SCOPED_TRACE(i);
    const RotatedBox a = random_box(rng), b = random_box(rng);
    const double iou = rotated_iou(a, b);
    EXPECT_NEAR(rotated_iou(a, a), 1, 1e-12);
    EXPECT_NEAR(iou, rotated_iou(b, a), 1e-12);
    // Half a turn changes nothing; a quarter swaps the sides.
    EXPECT_NEAR(iou, rotated_iou({a.cx, a.cy, a.w, a.h, a.degrees + 180}, b), 1e-11);
    EXPECT_NEAR(iou, rotated_iou(a, {b.cx, b.cy, b.h, b.w, b.degrees - 90}), 1e-11);
    // Moved and made three times as large together.
    const auto moved = [](const RotatedBox& r) {
      return RotatedBox{3 * r.cx + 100, 3 * r.cy - 50, 3 * r.w, 3 * r.h, r.degrees};
    };
    EXPECT_NEAR(iou, rotated_iou(moved(a), moved(b)), 1e-11);
    EXPECT_GE(rotated_iou(a, b, true), iou);
  }
}

TEST(RotatedBoxesTest, UprightOnesAreBoxes) {
  Philox rng(2, "rotated");
  for (int i = 0; i < 100; ++i) {
    const Box a{rng.uniform(0.0, 9.0), rng.uniform(0.0, 9.0), rng.uniform(1.0, 9.0),
                rng.uniform(1.0, 9.0)};
    const Box b{rng.uniform(0.0, 9.0), rng.uniform(0.0, 9.0), rng.uniform(1.0, 9.0),
                rng.uniform(1.0, 9.0)};
    for (const bool crowd : {false, true}) {
      EXPECT_NEAR(rotated_iou(detection::rotated(a, 0), detection::rotated(b, 360), crowd),
                  detection::coco_iou(a, b, crowd), 1e-12);
    }
  }
}

TEST(RotatedBoxesTest, EdgesByHand) {
  const RotatedBox box{3, 4, 5, 2, 33};
  EXPECT_EQ(rotated_iou(box, RotatedBox{3, 4, 0, 2, 33}), 0);
  EXPECT_EQ(rotated_iou(box, RotatedBox{30, 4, 5, 2, 33}), 0);
  EXPECT_NEAR(rotated_iou({0, 0, 2, 2, 0}, {1, 0, 2, 2, 90}, true), 0.5, 1e-12);
  // A square in one turned by 45 degrees: an octagon of 2 (sqrt 2 - 1) of the square's area.
  const double both = 8 * (1.4142135623730951 - 1);
  EXPECT_NEAR(rotated_iou({0, 0, 2, 2, 0}, {0, 0, 2, 2, 45}), both / (8 - both), 1e-12);
  // Counter-clockwise on an image, whose y points down: the right end goes up.
  EXPECT_GT(rotated_iou({0, 0, 10, 1, 45}, {3, -3, 2, 2, 0}), 0.1);
  EXPECT_EQ(rotated_iou({0, 0, 10, 1, 45}, {3, 3, 2, 2, 0}), 0);
}

TEST(RotatedBoxesTest, Refuses) {
  const auto run = [](std::vector<double> rows, Index cols) {
    const NdView<const double, 2> v(rows.data(), {1, cols});
    (void)rotated_iou(v, v);
  };
  EXPECT_NO_THROW(run({0, 0, 1, 1, 5}, 5));
  EXPECT_THROW(run({0, 0, 1, 1}, 4), ShapeError);
  EXPECT_THROW(run({0, 0, -1, 1, 5}, 5), ValueError);
  EXPECT_THROW(run({0, 0, 1, 1, std::numeric_limits<double>::infinity()}, 5), ValueError);
}

}  // namespace
}  // namespace quern::test::rotated_boxes
