// SPDX-License-Identifier: Apache-2.0

/// \file
/// Box overlaps against plain formulas, at every level and size, with the same bits at all levels.

#include "quern/kernels/kernels.hpp"

#include "quern/core/random.hpp"
#include "quern/detection/box.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::box_iou {
namespace {

template <class T>
class BoxIouTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(BoxIouTest, Scalars);

using kernels::BoxMeasure;
using kernels::BoxRow;

template <class T>
std::vector<BoxRow<T>> random_boxes(std::size_t n, std::uint64_t seed) {
  Philox rng(seed, "boxes");
  std::vector<BoxRow<T>> boxes(n);
  for (auto& b : boxes) {
    b.x1 = static_cast<T>(rng.integer(20)), b.y1 = static_cast<T>(rng.integer(20));
    const T w = static_cast<T>(rng.integer(12)), h = static_cast<T>(rng.integer(12)) / 3;
    b.x2 = b.x1 + w, b.y2 = b.y1 + h, b.area = w * h, b.angle = std::atan2(w, h);
  }
  return boxes;
}

template <class T>
double naive(BoxMeasure m, const BoxRow<T>& p, const BoxRow<T>& q, bool crowd) {
  using D = double;
  const D w = (std::min)(D(p.x2), D(q.x2)) - (std::max)(D(p.x1), D(q.x1));
  const D h = (std::min)(D(p.y2), D(q.y2)) - (std::max)(D(p.y1), D(q.y1));
  const D inter = w > 0 && h > 0 ? w * h : 0;
  const D both = crowd ? D(p.area) : D(p.area) + D(q.area) - inter;
  const D iou = inter > 0 ? inter / both : 0;
  if (m == BoxMeasure::iou) return iou;
  const D cw = (std::max)(D(p.x2), D(q.x2)) - (std::min)(D(p.x1), D(q.x1));
  const D ch = (std::max)(D(p.y2), D(q.y2)) - (std::min)(D(p.y1), D(q.y1));
  if (m == BoxMeasure::giou) return cw * ch > 0 ? iou - (cw * ch - both) / (cw * ch) : iou;
  const D dx = (D(p.x1) + D(p.x2) - D(q.x1) - D(q.x2)) / 2;
  const D dy = (D(p.y1) + D(p.y2) - D(q.y1) - D(q.y2)) / 2;
  const D diou = iou - (dx * dx + dy * dy) / (cw * cw + ch * ch + 1e-7);
  if (m == BoxMeasure::diou) return diou;
  const D turn = D(p.angle) - D(q.angle);
  const D v = 4 / (3.14159265358979323846 * 3.14159265358979323846) * turn * turn;
  return diou - v * v / (1 - iou + v + 1e-7);
}

template <class T>
std::vector<T> run(BoxMeasure m, const BoxRow<T>& a, const std::vector<BoxRow<T>>& b,
                   const std::vector<T>& crowd) {
  std::vector<T> x1, y1, x2, y2, area, angle, out(b.size() + 1, T(-9));
  for (const auto& q : b) {
    x1.push_back(q.x1), y1.push_back(q.y1), x2.push_back(q.x2), y2.push_back(q.y2);
    area.push_back(q.area), angle.push_back(q.angle);
  }
  const kernels::BoxPlanes<T> planes{x1.data(),
                                     y1.data(),
                                     x2.data(),
                                     y2.data(),
                                     area.data(),
                                     angle.data(),
                                     crowd.empty() ? nullptr : crowd.data()};
  QUERN_DISPATCH(
      box_overlap<T>(m, a, planes, T(0), static_cast<std::int64_t>(b.size()), out.data()));
  EXPECT_EQ(out.back(), T(-9));
  out.pop_back();
  return out;
}

TYPED_TEST(BoxIouTest, MatchesPlainFormulas) {
  using T = TypeParam;
  const double bound = sizeof(T) == 4 ? 4e-6 : 1e-13;
  for (const std::size_t n : {0u, 1u, 2u, 3u, 4u, 7u, 8u, 15u, 16u, 17u, 33u}) {
    const auto b = random_boxes<T>(n, n);
    const auto a = random_boxes<T>(1, 99 + n)[0];
    for (const auto m : {BoxMeasure::iou, BoxMeasure::giou, BoxMeasure::diou, BoxMeasure::ciou}) {
      std::vector<T> first;
      for (const simd::Level level : simd::attainable_levels()) {
        const simd::ScopedLevel force(level);
        SCOPED_TRACE(simd::name(level));
        const auto out = run(m, a, b, {});
        for (std::size_t i = 0; i < n; ++i) {
          EXPECT_NEAR(static_cast<double>(out[i]), naive(m, a, b[i], false), bound) << i;
        }
        if (first.empty()) first = out;
        EXPECT_EQ(out, first);
      }
    }
  }
}

TYPED_TEST(BoxIouTest, CrowdsAreOverTheSingleBox) {
  using T = TypeParam;
  const auto b = random_boxes<T>(19, 5);
  std::vector<T> crowd;
  for (std::size_t i = 0; i < b.size(); ++i) crowd.push_back(static_cast<T>(i % 2));
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    for (const auto& a : b) {
      const auto out = run(BoxMeasure::iou, a, b, crowd);
      for (std::size_t i = 0; i < b.size(); ++i) {
        EXPECT_NEAR(static_cast<double>(out[i]), naive(BoxMeasure::iou, a, b[i], i % 2 == 1), 1e-6);
      }
    }
  }
}

TEST(BoxIouTest, DoublesHaveTheBitsOfOneBoxAtATime) {
  Philox rng(3, "exact");
  for (int repeat = 0; repeat < 200; ++repeat) {
    detection::Box a{rng.uniform(0.0, 9.0), rng.uniform(0.0, 9.0), rng.uniform(0.0, 9.0), 7.1};
    detection::Box b{rng.uniform(0.0, 9.0), rng.uniform(0.0, 9.0), 6.3, rng.uniform(0.0, 9.0)};
    const auto row = [](const detection::Box& x) {
      return BoxRow<double>{x.x, x.y, x.x + x.w, x.y + x.h, x.w * x.h, 0};
    };
    for (const simd::Level level : simd::attainable_levels()) {
      const simd::ScopedLevel force(level);
      const auto out = run<double>(BoxMeasure::iou, row(a), {9, row(b)}, {});
      for (const double x : out) EXPECT_EQ(x, detection::coco_iou(a, b, false));
    }
  }
}

}  // namespace
}  // namespace quern::test::box_iou
