// SPDX-License-Identifier: Apache-2.0

/// \file
/// The confusion matrix of a detector, with background.

#ifndef QUERN_DETECTION_CONFUSION_HPP
#define QUERN_DETECTION_CONFUSION_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/detail/coco_overlap.hpp"
#include "quern/detection/detail/error_images.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

struct ConfusionOptions {
  double iou_threshold = 0.5;
  double min_score = 0.5;                 ///< detections below are left out
  CocoTarget target = CocoTarget::boxes;  ///< boxes, masks or rotated boxes
};

/// counts(i, j): objects of class i that were found as class j; the last row and column are the
/// background: false alarms and misses. Classes by ascending id.
struct Confusion {
  std::vector<std::int64_t> categories;
  NdArray<std::int64_t, 2> counts;  ///< (K + 1, K + 1)
};

namespace detail {

class ConfusionCounter {
 public:
  ConfusionCounter(const IdIndex& classes, const ConfusionOptions& options, Confusion& to)
      : classes_(classes), o_(options), to_(to) {}

  void add(const ErrorImage& image) {
    taken_.assign(image.truths.size(), false);
    for (const Detection* d : image.detections) {
      if (d->score < o_.min_score) break;
      one(image, *d);
    }
    for (std::size_t g = 0; g < image.truths.size(); ++g) {
      const Truth& t = *image.truths[g];
      if (taken_[g] || t.crowd || t.ignore) continue;
      ++to_.counts(place(t.category), background());
    }
  }

 private:
  static constexpr const char* function = "quern::detection::confusion_matrix";

  [[nodiscard]] Index background() const { return static_cast<Index>(classes_.size()); }
  [[nodiscard]] Index place(std::int64_t category) const {
    return static_cast<Index>(class_place(function, classes_, category));
  }

  void one(const ErrorImage& image, const Detection& d) {
    std::size_t best = image.truths.size();
    double most = -1;
    bool forgiven = false;
    for (std::size_t g = 0; g < image.truths.size(); ++g) {
      const Truth& t = *image.truths[g];
      const double iou = coco_overlap(o_.target, d, t, t.crowd);
      if (iou < o_.iou_threshold) continue;
      if (t.crowd || t.ignore) {
        forgiven = true;
      } else if (!taken_[g] && (iou > most || (iou == most && t.category == d.category &&
                                               image.truths[best]->category != d.category))) {
        most = iou;
        best = g;
      }
    }
    const Index found = place(d.category);
    if (best < image.truths.size()) {
      taken_[best] = true;
      ++to_.counts(place(image.truths[best]->category), found);
    } else if (!forgiven) {
      ++to_.counts(background(), found);
    }
  }

  const IdIndex& classes_;
  const ConfusionOptions& o_;
  Confusion& to_;
  std::vector<bool> taken_;
};

}  // namespace detail

/// Each detection, by descending score, takes the free object of greatest IoU >= the threshold,
/// whatever its class (the same class first among equals). What is left over on a crowd or an
/// ignored object is not counted. ValueError for options out of range, key points as target, boxes
/// that are not finite, unknown images and classes.
[[nodiscard]] inline Confusion confusion_matrix(const CocoDataset& data,
                                                std::span<const Detection> detections,
                                                const ConfusionOptions& options = {}) {
  static constexpr const char* function = "quern::detection::confusion_matrix";
  expect_in_range(function, "iou_threshold", options.iou_threshold, 0.0, 1.0);
  if (is_nan_bits(options.min_score)) {
    throw ValueError(error_text(function, "min_score", "a number", "NaN"));
  }
  const IdIndex classes = detail::classes_of(data);
  const Index n = static_cast<Index>(classes.size()) + 1;
  Confusion c{classes.ids(), NdArray<std::int64_t, 2>({n, n})};
  detail::ConfusionCounter counter(classes, options, c);
  detail::for_each_image(function, data, detections, options.target,
                         [&](const detail::ErrorImage& image) { counter.add(image); });
  return c;
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_CONFUSION_HPP
