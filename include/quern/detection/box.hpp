// SPDX-License-Identifier: Apache-2.0

/// \file
/// One box, and COCO's overlap of two: plain double arithmetic that has the bits of COCO's tools.

#ifndef QUERN_DETECTION_BOX_HPP
#define QUERN_DETECTION_BOX_HPP

#include "quern/core/config.hpp"

#include <algorithm>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// Upper left corner, width and height: COCO's xywh. No pixel is added anywhere.
struct Box {
  double x = 0;
  double y = 0;
  double w = 0;
  double h = 0;

  [[nodiscard]] double area() const noexcept { return w * h; }
};

namespace detail {

/// The value of a product as it is rounded to double: g++ would fuse it with the sum around it
/// where the machine can, and then the bits differ from those of COCO's tools.
inline double rounded(double x) noexcept {
#if defined(__GNUC__) && defined(__x86_64__)
  asm("" : "+x"(x));
#elif defined(__GNUC__) && defined(__aarch64__)
  asm("" : "+w"(x));
#endif
  return x;
}

}  // namespace detail

/// Intersection over union, 0 for boxes that only touch; for a crowd as second box intersection
/// over the first box's area.
[[nodiscard]] inline double coco_iou(const Box& detection, const Box& truth, bool crowd) noexcept {
  const double w =
      (std::min)(detection.x + detection.w, truth.x + truth.w) - (std::max)(detection.x, truth.x);
  if (w <= 0) return 0;
  const double h =
      (std::min)(detection.y + detection.h, truth.y + truth.h) - (std::max)(detection.y, truth.y);
  if (h <= 0) return 0;
  const double inter = detail::rounded(w * h);
  const double area = detail::rounded(detection.w * detection.h);
  if (inter <= 0) return 0;
  if (crowd) return inter / area;
  return inter / (area + detail::rounded(truth.w * truth.h) - inter);
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_BOX_HPP
