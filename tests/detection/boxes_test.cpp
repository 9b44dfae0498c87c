// SPDX-License-Identifier: Apache-2.0

/// \file
/// Box overlaps against torchvision and COCO's tools (tests/reference/detection), and what is
/// refused.

#include "quern/detection/boxes.hpp"

#include "quern/detection/box.hpp"
#include "quern/io/npy.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::boxes {
namespace {

using detection::BoxFormat;
using detection::BoxMeasure;

template <int Rank, class T = double>
NdArray<T, Rank> reference(const std::string& name) {
  return io::read_npy<T, Rank>(std::string(QUERN_TEST_REFERENCE_DIR) + "/detection/" + name +
                               ".npy");
}

template <class T>
void expect_near(const NdArray<T, 2>& got, const NdArray<double, 2>& expected, double bound) {
  ASSERT_EQ(got.extents(), expected.extents());
  for (Index i = 0; i < got.extent(0); ++i) {
    for (Index j = 0; j < got.extent(1); ++j) {
      EXPECT_NEAR(static_cast<double>(got(i, j)), expected(i, j), bound) << i << ' ' << j;
    }
  }
}

template <class T>
class BoxesTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(BoxesTest, Scalars);

// torchvision computes the same formulas in double: a few roundings apart.
TYPED_TEST(BoxesTest, AgreesWithTorchvision) {
  using T = TypeParam;
  const auto a = reference<2, T>("boxiou_xyxy_a"), b = reference<2, T>("boxiou_xyxy_b");
  const double bound = sizeof(T) == 4 ? 3e-5 : 1e-12;
  expect_near(detection::iou(view(a), view(b)), reference<2>("boxiou_xyxy_iou"), bound);
  expect_near(detection::giou(view(a), view(b)), reference<2>("boxiou_xyxy_giou"), bound);
  expect_near(detection::diou(view(a), view(b)), reference<2>("boxiou_xyxy_diou"), bound);
  expect_near(detection::ciou(view(a), view(b)), reference<2>("boxiou_xyxy_ciou"), bound);
  const auto one = detection::iou(view(a), view(b));
  const auto three = detection::iou(view(a), view(b), {.threads = 3});
  EXPECT_TRUE(std::equal(one.begin(), one.end(), three.begin()));
}

// The same double arithmetic: equal bits.
TEST(BoxesTest, EqualsCocoTools) {
  const auto dt = reference<2>("boxiou_dt_xywh"), gt = reference<2>("boxiou_gt_xywh");
  const auto crowd = reference<1, std::uint8_t>("boxiou_gt_iscrowd");
  const auto expected = reference<2>("boxiou_expected");
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    NdArray<double, 2> out({dt.extent(0), gt.extent(0)});
    detection::box_overlaps<double>(BoxMeasure::iou, dt.view(), gt.view(), out.view(),
                                    {.format = BoxFormat::xywh},
                                    {crowd.data(), static_cast<std::size_t>(crowd.size())});
    for (Index i = 0; i < out.extent(0); ++i) {
      for (Index j = 0; j < out.extent(1); ++j) {
        EXPECT_EQ(out(i, j), expected(i, j));
        const detection::Box d{dt(i, 0), dt(i, 1), dt(i, 2), dt(i, 3)};
        const detection::Box g{gt(j, 0), gt(j, 1), gt(j, 2), gt(j, 3)};
        EXPECT_EQ(detection::coco_iou(d, g, crowd(j) != 0), expected(i, j));
      }
    }
  }
}

TYPED_TEST(BoxesTest, PixelsAndFormats) {
  using T = TypeParam;
  const std::vector<T> corners = {0, 0, 9, 9}, sizes = {0, 0, 10, 10}, other = {5, 0, 14, 9};
  const NdView<const T, 2> c(corners.data(), {1, 4}), s(sizes.data(), {1, 4}),
      o(other.data(), {1, 4});
  EXPECT_NEAR(detection::iou(c, o, {.pixel = true})(0, 0), 50.0 / 150, 1e-6);
  EXPECT_NEAR(detection::iou(c, o)(0, 0), 36.0 / 126, 1e-6);
  EXPECT_NEAR(detection::iou(s, s, {.format = BoxFormat::xywh, .pixel = true})(0, 0), 1, 1e-6);
}

TYPED_TEST(BoxesTest, RefusesWhatIsNoBox) {
  using T = TypeParam;
  const auto throws = [](std::vector<T> bad, Index cols) {
    const NdView<const T, 2> v(bad.data(), {static_cast<Index>(bad.size()) / cols, cols});
    (void)detection::iou(v, v);
  };
  EXPECT_THROW(throws({1, 1, 0, 2}, 4), ValueError);
  EXPECT_THROW(throws({1, 1, std::numeric_limits<T>::quiet_NaN(), 2}, 4), ValueError);
  const T far = std::sqrt((std::numeric_limits<T>::max)()) * 2;
  EXPECT_THROW(throws({0, 0, far, far}, 4), ValueError);
  EXPECT_THROW(throws({1, 1, 2, 2, 3}, 5), ShapeError);
  EXPECT_NO_THROW(throws({}, 4));
}

}  // namespace
}  // namespace quern::test::boxes
