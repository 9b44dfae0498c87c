// SPDX-License-Identifier: Apache-2.0

/// \file
/// Overlap of every box of one set with every box of another: IoU, GIoU, DIoU, CIoU, COCO's crowd
/// IoU. Rows of boxes are x1 y1 x2 y2 or x y w h.

#ifndef QUERN_DETECTION_BOXES_HPP
#define QUERN_DETECTION_BOXES_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

using kernels::BoxMeasure;

enum class BoxFormat : std::uint8_t { xyxy, xywh };

struct BoxOptions {
  BoxFormat format = BoxFormat::xyxy;
  /// Corners are the first and last pixel inside, as in Pascal VOC: every width and height is one
  /// more than the difference of coordinates. In xywh the sizes already count pixels: x2 = x + w
  /// - 1.
  bool pixel = false;
  int threads = 1;  ///< 0: default_threads()
};

namespace detail {

/// Boxes as planes of corners, areas and, where asked for, angles.
template <class T>
class PlanesOf {
 public:
  PlanesOf(std::string_view function, std::string_view argument, const NdView<const T, 2>& boxes,
           const BoxOptions& options, bool angles)
      : n_(static_cast<std::size_t>(boxes.rows())), values_(6 * n_) {
    if (boxes.cols() != 4 && boxes.rows() > 0) {
      throw ShapeError(error_text(function, argument, "4 columns", boxes.cols()));
    }
    for (std::size_t i = 0; i < n_; ++i) set(function, argument, boxes, options, angles, i);
  }

  [[nodiscard]] std::int64_t size() const noexcept { return static_cast<std::int64_t>(n_); }
  [[nodiscard]] kernels::BoxPlanes<T> planes(std::int64_t from = 0) const noexcept {
    const T* p = values_.data() + from;
    return {p, p + n_, p + 2 * n_, p + 3 * n_, p + 4 * n_, p + 5 * n_, nullptr};
  }
  [[nodiscard]] kernels::BoxRow<T> row(std::int64_t i) const noexcept {
    const T* p = values_.data() + i;
    return {p[0], p[n_], p[2 * n_], p[3 * n_], p[4 * n_], p[5 * n_]};
  }

 private:
  void set(std::string_view function, std::string_view argument, const NdView<const T, 2>& boxes,
           const BoxOptions& options, bool angles, std::size_t i) {
    const Index r = static_cast<Index>(i);
    const T x = boxes(r, 0), y = boxes(r, 1), u = boxes(r, 2), v = boxes(r, 3);
    const T pixel = options.pixel ? T(1) : T(0);
    const bool corners = options.format == BoxFormat::xyxy;
    const T w = corners ? u - x + pixel : u, h = corners ? v - y + pixel : v;
    const bool finite =
        is_finite_bits(x) && is_finite_bits(y) && is_finite_bits(u) && is_finite_bits(v);
    if (!finite || w < 0 || h < 0 || !is_finite_bits(w * h)) {
      throw ValueError(
          error_text(function, argument, "boxes of finite numbers and areas, and no size below 0",
                     std::to_string(x) + " " + std::to_string(y) + " " + std::to_string(u) + " " +
                         std::to_string(v) + " in row " + std::to_string(i)));
    }
    values_[i] = x;
    values_[n_ + i] = y;
    values_[2 * n_ + i] = corners ? u : x + u - pixel;
    values_[3 * n_ + i] = corners ? v : y + v - pixel;
    values_[4 * n_ + i] = w * h;
    values_[5 * n_ + i] = angles ? std::atan2(w, h) : T(0);
  }

  std::size_t n_;
  std::vector<T> values_;
};

}  // namespace detail

/// out(i, j) = measure(a(i, :), b(j, :)); a is (n, 4), b (m, 4), out (n, m) with unit stride along
/// its rows. Boxes that only touch or have no area have IoU 0. `crowd` (m entries or none, for iou
/// only): where it is not 0, IoU is the intersection over the area of a's box. ShapeError for other
/// shapes, ValueError for numbers that are not finite, areas that overflow T, and negative sizes.
template <std::floating_point T>
void box_overlaps(BoxMeasure measure, const NdView<const T, 2>& a, const NdView<const T, 2>& b,
                  const NdView<T, 2>& out, const BoxOptions& options = {},
                  std::span<const std::uint8_t> crowd = {}) {
  static constexpr const char* function = "quern::detection::box_overlaps";
  const bool angles = measure == BoxMeasure::ciou;
  const detail::PlanesOf<T> rows(function, "a", a, options, angles);
  const detail::PlanesOf<T> cols(function, "b", b, options, angles);
  expect_shape(function, "out", out, {rows.size(), cols.size()});
  if (!out.last_stride_is_one()) {
    throw ShapeError(error_text(function, "out", "unit stride along rows", out.col_stride()));
  }
  std::vector<T> flags(crowd.begin(), crowd.end());
  if (!crowd.empty()) {
    expect_size(function, "crowd", static_cast<Index>(crowd.size()), cols.size(),
                "flags, one a box of b");
    if (measure != BoxMeasure::iou) {
      throw ValueError(error_text(function, "crowd", "none but for iou", crowd.size()));
    }
  }
  kernels::BoxPlanes<T> planes = cols.planes();
  if (!flags.empty()) planes.crowd = flags.data();
  const T pixel = options.pixel ? T(1) : T(0);
  constexpr std::int64_t rows_a_block = 64;
  parallel_for(
      block_count(rows.size(), rows_a_block),
      [&](std::int64_t block) {
        const BlockRange range = block_range(rows.size(), rows_a_block, block);
        for (std::int64_t i = range.begin; i < range.end; ++i) {
          QUERN_DISPATCH(
              box_overlap<T>(measure, rows.row(i), planes, pixel, cols.size(), out.row_data(i)));
        }
      },
      options.threads);
}

/// The matrix of measures, (n, m); see box_overlaps().
template <class A, class B>
requires std::same_as<std::remove_const_t<A>, std::remove_const_t<B>>
[[nodiscard]] NdArray<std::remove_const_t<A>, 2> overlaps_of(BoxMeasure measure,
                                                             const NdView<A, 2>& a,
                                                             const NdView<B, 2>& b,
                                                             const BoxOptions& options = {}) {
  using T = std::remove_const_t<A>;
  NdArray<T, 2> out({a.rows(), b.rows()});
  box_overlaps<T>(measure, a, b, out.view(), options);
  return out;
}

template <class A, class B>
[[nodiscard]] auto iou(const NdView<A, 2>& a, const NdView<B, 2>& b, const BoxOptions& o = {}) {
  return overlaps_of(BoxMeasure::iou, a, b, o);
}
template <class A, class B>
[[nodiscard]] auto giou(const NdView<A, 2>& a, const NdView<B, 2>& b, const BoxOptions& o = {}) {
  return overlaps_of(BoxMeasure::giou, a, b, o);
}
template <class A, class B>
[[nodiscard]] auto diou(const NdView<A, 2>& a, const NdView<B, 2>& b, const BoxOptions& o = {}) {
  return overlaps_of(BoxMeasure::diou, a, b, o);
}
template <class A, class B>
[[nodiscard]] auto ciou(const NdView<A, 2>& a, const NdView<B, 2>& b, const BoxOptions& o = {}) {
  return overlaps_of(BoxMeasure::ciou, a, b, o);
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_BOXES_HPP
