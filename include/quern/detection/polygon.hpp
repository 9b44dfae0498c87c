// SPDX-License-Identifier: Apache-2.0

/// \file
/// Polygons and boxes to masks, pixel for pixel as COCO's tools make them: the boundary is walked
/// on a grid five times as fine, and each step from column to column is where a run may begin.

#ifndef QUERN_DETECTION_POLYGON_HPP
#define QUERN_DETECTION_POLYGON_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/detection/box.hpp"
#include "quern/detection/rle.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// Coordinates of polygons are at most this, either way: what is beyond is no picture.
inline constexpr double max_polygon_coordinate = 1e5;

namespace detail {

/// Where a boundary crosses from one column of pixels to the next.
class ColumnCrossings {
 public:
  ColumnCrossings(std::uint32_t height, std::uint32_t width) : height_(height), width_(width) {}

  /// The next point of the fine boundary.
  void step(std::int64_t u, std::int64_t v) {
    if (any_ && u != u_) cross(u, v);
    u_ = u, v_ = v, any_ = true;
  }

  [[nodiscard]] std::vector<std::uint32_t>& ends() noexcept { return ends_; }

 private:
  void cross(std::int64_t u, std::int64_t v) {
    const double fine_x = static_cast<double>(u < u_ ? u : u - 1);
    const double x = (fine_x + 0.5) / 5 - 0.5;
    if (std::floor(x) != x || x < 0 || x > static_cast<double>(width_) - 1) return;
    double y = (static_cast<double>((std::min)(v, v_)) + 0.5) / 5 - 0.5;
    y = std::ceil((std::clamp)(y, 0.0, static_cast<double>(height_)));
    ends_.push_back(static_cast<std::uint32_t>(x) * height_ + static_cast<std::uint32_t>(y));
  }

  std::uint32_t height_, width_;
  std::int64_t u_ = 0, v_ = 0;
  bool any_ = false;
  std::vector<std::uint32_t> ends_;
};

/// Walks one edge, always from its end of lower coordinate, so that both directions step on the
/// same points; they are still reported from (xs, ys) to (xe, ye).
inline void walk_edge(std::int64_t xs, std::int64_t ys, std::int64_t xe, std::int64_t ye,
                      ColumnCrossings& to) {
  const std::int64_t dx = std::abs(xe - xs), dy = std::abs(ye - ys);
  const bool flat = dx >= dy;
  const bool flip = flat ? xs > xe : ys > ye;
  if (flip) {
    std::swap(xs, xe);
    std::swap(ys, ye);
  }
  const std::int64_t steps = flat ? dx : dy;
  const double rise = static_cast<double>(flat ? ye - ys : xe - xs);
  const double slope = steps > 0 ? rise / static_cast<double>(steps) : 0;
  for (std::int64_t d = 0; d <= steps; ++d) {
    const std::int64_t t = flip ? steps - d : d;
    const double across = rounded(slope * static_cast<double>(t));
    const double from = static_cast<double>(flat ? ys : xs);
    const std::int64_t other = static_cast<std::int64_t>(from + across + 0.5);
    flat ? to.step(t + xs, other) : to.step(other, t + ys);
  }
}

/// Runs between sorted ends; a pair of equal ends cancels.
inline std::vector<std::uint32_t> runs_between(std::vector<std::uint32_t>& ends) {
  std::sort(ends.begin(), ends.end());
  std::uint32_t before = 0;
  for (std::uint32_t& e : ends) {
    const std::uint32_t end = e;
    e -= before;
    before = end;
  }
  std::vector<std::uint32_t> runs;
  std::size_t i = 0;
  runs.push_back(ends[i++]);
  while (i < ends.size()) {
    if (ends[i] > 0) {
      runs.push_back(ends[i++]);
    } else if (++i < ends.size()) {
      runs.back() += ends[i++];
    }
  }
  return runs;
}

}  // namespace detail

/// The mask of one polygon x0 y0 x1 y1 …, cut at the image. ShapeError for an odd number of
/// coordinates or fewer than 6, ValueError for coordinates that are not finite or beyond 10^5.
[[nodiscard]] inline Rle from_polygon(std::span<const double> xy, std::uint32_t height,
                                      std::uint32_t width) {
  static constexpr const char* function = "quern::detection::from_polygon";
  if (xy.size() < 6 || xy.size() % 2 != 0) {
    throw ShapeError(error_text(function, "xy", "pairs of coordinates, 3 or more", xy.size()));
  }
  if (std::uint64_t{height} * width > 0x7fffffffU) {
    throw ShapeError(error_text(function, "height, width", "at most 2^31 - 1 pixels",
                                std::to_string(height) + " x " + std::to_string(width)));
  }
  std::vector<std::int64_t> fine(xy.size());
  for (std::size_t i = 0; i < xy.size(); ++i) {
    if (!is_finite_bits(xy[i]) || std::fabs(xy[i]) > max_polygon_coordinate) {
      throw ValueError(error_text(function, "xy", "coordinates within 10^5", xy[i]));
    }
    fine[i] = static_cast<std::int64_t>(detail::rounded(5 * xy[i]) + 0.5);
  }
  detail::ColumnCrossings crossings(height, width);
  for (std::size_t i = 0; i < fine.size(); i += 2) {
    const std::size_t next = i + 2 < fine.size() ? i + 2 : 0;
    detail::walk_edge(fine[i], fine[i + 1], fine[next], fine[next + 1], crossings);
  }
  std::vector<std::uint32_t>& ends = crossings.ends();
  ends.push_back(height * width);
  return {height, width, detail::runs_between(ends)};
}

/// The union of polygons.
[[nodiscard]] inline Rle from_polygons(std::span<const std::vector<double>> polygons,
                                       std::uint32_t height, std::uint32_t width) {
  std::vector<Rle> parts;
  for (const std::vector<double>& xy : polygons) parts.push_back(from_polygon(xy, height, width));
  return merge(parts, MaskMerge::any);
}

/// The mask of a box.
[[nodiscard]] inline Rle from_box(const Box& box, std::uint32_t height, std::uint32_t width) {
  const double right = box.x + box.w, low = box.y + box.h;
  const std::array<double, 8> xy = {box.x, box.y, box.x, low, right, low, right, box.y};
  return from_polygon(xy, height, width);
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_POLYGON_HPP
