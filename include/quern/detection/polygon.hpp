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

/// COCO's tools draw the boundary on a grid five times as fine, point by point, and keep where it
/// crosses from fine column 5 c + 2 to 5 c + 3, the middle of the pixels' column c. Here only those
/// crossings are looked at.
class ColumnCrossings {
 public:
  ColumnCrossings(std::uint32_t height, std::uint32_t width) : height_(height), width_(width) {}

  /// One edge between points of the fine grid. It is taken from its end of lower coordinate,
  /// whatever its direction, so that neighbours along it step on the same points.
  void edge(std::int64_t xs, std::int64_t ys, std::int64_t xe, std::int64_t ye) {
    const std::int64_t dx = std::abs(xe - xs), dy = std::abs(ye - ys);
    const bool flat = dx >= dy;
    if (flat ? xs > xe : ys > ye) {
      std::swap(xs, xe);
      std::swap(ys, ye);
    }
    if (dx == 0) return;
    flat ? flat_edge(xs, ys, dx, ye - ys) : steep_edge(xs, ys, xe, dy);
  }

  [[nodiscard]] std::vector<std::uint32_t>& ends() noexcept { return ends_; }

 private:
  /// The other coordinate at step t.
  static std::int64_t at(std::int64_t from, double slope, std::int64_t t) {
    const double across = rounded(slope * static_cast<double>(t));
    return static_cast<std::int64_t>(static_cast<double>(from) + across + 0.5);
  }
  /// Columns whose middle lies between fine columns low and high.
  template <class F>
  void columns(std::int64_t low, std::int64_t high, F&& each) const {
    const std::int64_t first = low <= 2 ? 0 : (low + 2) / 5;
    const std::int64_t end =
        high < 3 ? 0 : (std::min)((high - 3) / 5 + 1, static_cast<std::int64_t>(width_));
    for (std::int64_t c = first; c < end; ++c) each(c);
  }

  /// A step a fine column.
  void flat_edge(std::int64_t xs, std::int64_t ys, std::int64_t dx, std::int64_t rise) {
    const double slope = static_cast<double>(rise) / static_cast<double>(dx);
    columns(xs, xs + dx, [&](std::int64_t c) {
      const std::int64_t t = 5 * c + 2 - xs;
      add(c, (std::min)(at(ys, slope, t), at(ys, slope, t + 1)));
    });
  }
  /// A step a fine row: the one that crosses is guessed from the slope and then looked for, since
  /// the slope's rounding decides.
  void steep_edge(std::int64_t xs, std::int64_t ys, std::int64_t xe, std::int64_t dy) {
    const double slope = static_cast<double>(xe - xs) / static_cast<double>(dy);
    columns((std::min)(xs, xe), (std::max)(xs, xe), [&](std::int64_t c) {
      const auto beyond = [&](std::int64_t t) {
        const std::int64_t u = at(xs, slope, t);
        return slope > 0 ? u >= 5 * c + 3 : u <= 5 * c + 2;
      };
      const double guess = (static_cast<double>(5 * c - xs) + 2.5) / slope;
      std::int64_t t = (std::clamp)(static_cast<std::int64_t>(guess), std::int64_t{1}, dy);
      while (t > 1 && beyond(t - 1)) --t;
      while (t < dy && !beyond(t)) ++t;
      add(c, t - 1 + ys);
    });
  }
  /// COCO's ceil((fine_y + 0.5) / 5 - 0.5) within the picture: the quotient is whole or at least a
  /// fifth away from it, so integers give the same.
  void add(std::int64_t column, std::int64_t fine_y) {
    const std::int64_t row = fine_y <= 2 ? 0 : (std::min)((fine_y + 2) / 5, std::int64_t{height_});
    ends_.push_back(static_cast<std::uint32_t>(column) * height_ + static_cast<std::uint32_t>(row));
  }

  std::uint32_t height_, width_;
  std::vector<std::uint32_t> ends_;
};

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
    crossings.edge(fine[i], fine[i + 1], fine[next], fine[next + 1]);
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
