// SPDX-License-Identifier: Apache-2.0

/// \file
/// What COCO's evaluation may be told: what is compared, thresholds, ranges of areas, limits.

#ifndef QUERN_DETECTION_COCO_OPTIONS_HPP
#define QUERN_DETECTION_COCO_OPTIONS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/detection/average_precision.hpp"
#include "quern/detection/keypoints.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// What IoU is of.
enum class CocoTarget : std::uint8_t { boxes, masks, keypoints, rotated_boxes };

/// Objects whose area is within [low, high], bounds included.
struct AreaRange {
  std::string name;
  double low = 0;
  double high = 1e10;
};

[[nodiscard]] inline std::vector<AreaRange> coco_areas() {
  return {{"all", 0, 1e10}, {"small", 0, 1024}, {"medium", 1024, 9216}, {"large", 9216, 1e10}};
}

struct CocoOptions {
  CocoTarget target = CocoTarget::boxes;
  std::vector<double> iou_thresholds = coco_iou_thresholds();
  std::vector<double> recall_levels = coco_recall_levels();  ///< ascending
  /// Detections of an image and class that are looked at, ascending; the last is the largest.
  std::vector<std::int64_t> max_detections = {1, 10, 100};
  std::vector<AreaRange> areas = coco_areas();  ///< at most 32; the first is the main one
  std::vector<double> sigmas = coco_sigmas();   ///< one a key point
  bool use_categories = true;                   ///< false: all classes are one
  /// pycocotools' numbers where it is wrong: annotations of id 0 are never found, `ignore` is
  /// forgotten, AP is -1 unless max_detections holds 100 (key points: all numbers, unless it holds
  /// 20), the other numbers are at the third limit, a detection that has a box has the box's area,
  /// key points of classes that are one are never found, detections of unknown classes are dropped.
  /// With `lvis` its tools' numbers: also what has no area is dropped, `ignore` is heeded.
  bool compat = false;
  /// LVIS: max_detections bounds those of an image over all classes; classes that an image neither
  /// has nor is known not to have do not count there; no crowds.
  bool lvis = false;
  int threads = 1;  ///< 0: default_threads(); never changes a result

  /// Boxes or masks as COCO's challenge; key points with its 20 detections and three areas.
  [[nodiscard]] static CocoOptions of(CocoTarget target) {
    CocoOptions o;
    o.target = target;
    if (target == CocoTarget::keypoints) {
      o.max_detections = {20};
      o.areas.erase(o.areas.begin() + 1);
    }
    return o;
  }
  /// LVIS: 300 detections an image.
  [[nodiscard]] static CocoOptions lvis_of(CocoTarget target) {
    CocoOptions o = of(target);
    o.lvis = true;
    o.max_detections = {300};
    return o;
  }
};

namespace detail {

/// Place of a threshold, to within 1e-9 (NumPy's 0.9 is 0.8999999999999999); past the last when
/// there is none.
inline std::size_t place_of_threshold(const CocoOptions& o, double iou) {
  std::size_t t = 0;
  while (t < o.iou_thresholds.size() && !(std::fabs(o.iou_thresholds[t] - iou) <= 1e-9)) ++t;
  return t;
}
/// "0.5, 0.75": numbers as a message lists them.
template <class T>
std::string list_text(const std::vector<T>& values) {
  std::ostringstream text;
  for (std::size_t i = 0; i < values.size(); ++i) text << (i > 0 ? ", " : "") << values[i];
  return text.str();
}

}  // namespace detail

/// ValueError for options that mean nothing.
inline void check_options(const CocoOptions& o) {
  static constexpr const char* function = "quern::detection::CocoOptions";
  const auto numbers = [](const char* name, const std::vector<double>& values, double low,
                          double high) {
    if (values.empty()) throw ValueError(error_text(function, name, "at least one", 0));
    for (const double x : values) expect_in_range(function, name, x, low, high);
  };
  numbers("iou_thresholds", o.iou_thresholds, 0, 1);
  numbers("recall_levels", o.recall_levels, 0, 1);
  if (!std::is_sorted(o.recall_levels.begin(), o.recall_levels.end())) {
    throw ValueError(error_text(function, "recall_levels", "ascending ones",
                                detail::list_text(o.recall_levels)));
  }
  if (o.max_detections.empty() || o.max_detections.front() < 0 ||
      !std::is_sorted(o.max_detections.begin(), o.max_detections.end())) {
    throw ValueError(error_text(function, "max_detections", "ascending numbers >= 0",
                                detail::list_text(o.max_detections)));
  }
  if (o.areas.empty() || o.areas.size() > 32) {
    throw ValueError(error_text(function, "areas", "1..32 ranges", o.areas.size()));
  }
  for (const AreaRange& a : o.areas) {
    if (!(a.low <= a.high)) throw ValueError(error_text(function, "areas", "low <= high", a.name));
  }
  if (o.target == CocoTarget::keypoints) numbers("sigmas", o.sigmas, 1e-12, 1e12);
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_COCO_OPTIONS_HPP
