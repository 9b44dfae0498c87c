// SPDX-License-Identifier: Apache-2.0

/// \file
/// What COCO's evaluation compares of a detection and a truth, and what it refuses of their boxes.

#ifndef QUERN_DETECTION_DETAIL_COCO_OVERLAP_HPP
#define QUERN_DETECTION_DETAIL_COCO_OVERLAP_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/detection/box.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/keypoints.hpp"
#include "quern/detection/rle.hpp"
#include "quern/detection/rotated_boxes.hpp"

#include <span>
#include <string>

QUERN_NAMESPACE_BEGIN
namespace detection {
namespace detail {

/// Whether detections are boxes and nothing else.
inline bool is_box_target(CocoTarget target) noexcept {
  return target == CocoTarget::boxes || target == CocoTarget::rotated_boxes;
}

/// What area ranges look at, and OKS is measured by.
inline double truth_area(const Truth& t) noexcept {
  if (t.area >= 0) return t.area;
  return t.mask != nullptr ? static_cast<double>(area(*t.mask)) : t.box.area();
}

/// IoU of the target, OKS for key points.
inline double coco_overlap(CocoTarget target, const Detection& d, const Truth& t, bool crowd,
                           std::span<const double> sigmas = {}) {
  switch (target) {
    case CocoTarget::boxes:
      return coco_iou(d.box, t.box, crowd);
    case CocoTarget::masks:
      return mask_iou(*d.mask, *t.mask, crowd);
    case CocoTarget::rotated_boxes:
      return rotated_iou(rotated(d.box, d.degrees), rotated(t.box, t.degrees), crowd);
    case CocoTarget::keypoints:
      break;
  }
  return oks(d.keypoints, t.keypoints, sigmas, truth_area(t), t.box);
}

/// ValueError for a box that is not one.
inline void check_box(const char* function, const char* argument, const Box& b,
                      double degrees = 0) {
  const bool finite = is_finite_bits(b.x) && is_finite_bits(b.y) && is_finite_bits(b.w) &&
                      is_finite_bits(b.h) && is_finite_bits(degrees);
  if (finite && b.w >= 0 && b.h >= 0) return;
  throw ValueError(error_text(function, argument, "finite boxes of sizes that are not negative",
                              "x " + std::to_string(b.x) + " y " + std::to_string(b.y) + " w " +
                                  std::to_string(b.w) + " h " + std::to_string(b.h)));
}

}  // namespace detail
}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_DETAIL_COCO_OVERLAP_HPP
