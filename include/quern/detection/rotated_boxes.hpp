// SPDX-License-Identifier: Apache-2.0

/// \file
/// IoU of rotated boxes: centre x, centre y, width, height, angle in degrees. On an image, whose y
/// axis points down, a positive angle turns counter-clockwise (the convention of detectron2).

#ifndef QUERN_DETECTION_ROTATED_BOXES_HPP
#define QUERN_DETECTION_ROTATED_BOXES_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/detection/box.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace detection {

struct RotatedBox {
  double cx = 0, cy = 0, w = 0, h = 0;
  double degrees = 0;
};

/// The upright box \p box, turned about its centre.
[[nodiscard]] inline RotatedBox rotated(const Box& box, double degrees) noexcept {
  return {box.x + box.w / 2, box.y + box.h / 2, box.w, box.h, degrees};
}

namespace detail {

struct Point {
  double x = 0, y = 0;
};

/// A convex polygon; a quadrilateral cut by four half-planes has at most eight corners.
struct SmallPolygon {
  std::array<Point, 16> corner;
  std::size_t size = 0;
  void add(Point p) {
    if (size < corner.size()) corner[size++] = p;
  }
};

/// Corners in one direction of turning, relative to (ox, oy).
inline SmallPolygon corners_of(const RotatedBox& box, double ox, double oy) {
  const double angle = box.degrees * (3.14159265358979323846 / 180);
  const double c = std::cos(angle) / 2, s = std::sin(angle) / 2;
  const double x = box.cx - ox, y = box.cy - oy;
  const double ux = s * box.h + c * box.w, uy = c * box.h - s * box.w;
  const double vx = -s * box.h + c * box.w, vy = -c * box.h - s * box.w;
  SmallPolygon p;
  p.add({x + ux, y + uy});
  p.add({x + vx, y + vy});
  p.add({x - ux, y - uy});
  p.add({x - vx, y - vy});
  return p;
}

inline double cross(Point o, Point a, Point b) {
  return (a.x - o.x) * (b.y - o.y) - (a.y - o.y) * (b.x - o.x);
}

inline double signed_area(const SmallPolygon& p) {
  double twice = 0;
  for (std::size_t i = 2; i < p.size; ++i)
    twice += cross(p.corner[0], p.corner[i - 1], p.corner[i]);
  return twice / 2;
}

/// The part of `p` on the inner side of the line a b (Sutherland and Hodgman 1974).
inline SmallPolygon cut(const SmallPolygon& p, Point a, Point b, double side) {
  SmallPolygon kept;
  for (std::size_t i = 0; i < p.size; ++i) {
    const Point from = p.corner[i], to = p.corner[i + 1 < p.size ? i + 1 : 0];
    const double d0 = side * cross(a, b, from), d1 = side * cross(a, b, to);
    if (d0 >= 0) kept.add(from);
    if ((d0 > 0 && d1 < 0) || (d0 < 0 && d1 > 0)) {
      const double t = d0 / (d0 - d1);
      kept.add({from.x + t * (to.x - from.x), from.y + t * (to.y - from.y)});
    }
  }
  return kept;
}

}  // namespace detail

/// Area of the intersection of two rotated boxes.
[[nodiscard]] inline double rotated_intersection(const RotatedBox& a, const RotatedBox& b) {
  // Far apart: the circles around them do not meet.
  const double dx = b.cx - a.cx, dy = b.cy - a.cy;
  const double reach = (std::hypot(a.w, a.h) + std::hypot(b.w, b.h)) / 2;
  if (dx * dx + dy * dy > reach * reach * (1 + 1e-12)) return 0;
  const detail::SmallPolygon second = detail::corners_of(b, a.cx, a.cy);
  detail::SmallPolygon part = detail::corners_of(a, a.cx, a.cy);
  const double side = detail::signed_area(second) < 0 ? -1 : 1;
  for (std::size_t i = 0; i < 4 && part.size > 2; ++i) {
    part = detail::cut(part, second.corner[i], second.corner[(i + 1) % 4], side);
  }
  return part.size > 2 ? std::fabs(detail::signed_area(part)) : 0;
}

/// Intersection over union in double; 0 where either box has no area. For a crowd as second box:
/// intersection over the area of the first.
[[nodiscard]] inline double rotated_iou(const RotatedBox& a, const RotatedBox& b,
                                        bool crowd = false) {
  const double area_a = a.w * a.h, area_b = b.w * b.h;
  if (!(area_a > 0) || !(area_b > 0)) return 0;
  const double inter = (std::min)(rotated_intersection(a, b), (std::min)(area_a, area_b));
  return inter / (crowd ? area_a : area_a + area_b - inter);
}

/// The matrix of IoU of rows (cx, cy, w, h, degrees): a is (n, 5), b (m, 5). ShapeError for other
/// shapes, ValueError for numbers that are not finite and negative sizes.
template <class A, class B>
requires std::same_as<std::remove_const_t<A>, std::remove_const_t<B>>
[[nodiscard]] NdArray<std::remove_const_t<A>, 2> rotated_iou(const NdView<A, 2>& a,
                                                             const NdView<B, 2>& b) {
  using T = std::remove_const_t<A>;
  static constexpr const char* function = "quern::detection::rotated_iou";
  const auto box_at = [](const char* argument, const auto& boxes, Index i) {
    if (boxes.cols() != 5)
      throw ShapeError(error_text(function, argument, "5 columns", boxes.cols()));
    std::array<double, 5> v{};
    bool good = true;
    for (Index c = 0; c < 5; ++c) {
      v[static_cast<std::size_t>(c)] = static_cast<double>(boxes(i, c));
      good = good && is_finite_bits(static_cast<double>(boxes(i, c)));
    }
    if (!good || v[2] < 0 || v[3] < 0) {
      throw ValueError(error_text(function, argument, "finite boxes of sizes that are not negative",
                                  "another in row " + std::to_string(i)));
    }
    return RotatedBox{v[0], v[1], v[2], v[3], v[4]};
  };
  NdArray<T, 2> out({a.rows(), b.rows()});
  for (Index i = 0; i < a.rows(); ++i) {
    const RotatedBox first = box_at("a", a, i);
    for (Index j = 0; j < b.rows(); ++j) {
      out(i, j) = static_cast<T>(rotated_iou(first, box_at("b", b, j)));
    }
  }
  return out;
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_ROTATED_BOXES_HPP
