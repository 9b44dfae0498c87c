// SPDX-License-Identifier: Apache-2.0

/// \file
/// Walks over the images of a data set, each with its truths and its detections by score: what the
/// analyses of errors have in common.

#ifndef QUERN_DETECTION_DETAIL_ERROR_IMAGES_HPP
#define QUERN_DETECTION_DETAIL_ERROR_IMAGES_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/detection/coco_eval.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/detail/coco_overlap.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {
namespace detail {

/// One image's truths, and its detections by descending score, the earlier one first among equals.
struct ErrorImage {
  std::vector<const Truth*> truths;
  std::vector<const Detection*> detections;
};

/// ValueError for what cannot be compared.
inline void check_error_item(const char* function, CocoTarget target, const Detection& d) {
  if (!is_finite_bits(d.score)) {
    throw ValueError(error_text(function, "detections", "finite scores",
                                is_nan_bits(d.score) ? "NaN" : "infinity"));
  }
  if (is_box_target(target)) check_box(function, "detections", d.box, d.degrees);
  if (target == CocoTarget::masks && d.mask == nullptr) {
    throw ValueError(error_text(function, "detections", "a mask each", "none"));
  }
}
inline void check_error_item(const char* function, CocoTarget target, const Truth& t) {
  if (is_box_target(target)) check_box(function, "truths", t.box, t.degrees);
  if (target == CocoTarget::masks && t.mask == nullptr) {
    throw ValueError(error_text(function, "truths", "a mask each", "none"));
  }
}

/// f(image) for every image, by ascending id.
template <class F>
void for_each_image(const char* function, const CocoDataset& data,
                    std::span<const Detection> detections, CocoTarget target, F&& f) {
  if (target == CocoTarget::keypoints) {
    throw ValueError(error_text(function, "target", "boxes, masks or rotated boxes", "key points"));
  }
  std::vector<std::int64_t> ids;
  for (const ImageInfo& i : data.images) ids.push_back(i.id);
  const IdIndex images(std::move(ids));
  const ByImage<Truth> truths(data.truths, images, "truths");
  const ByImage<Detection> found(detections, images, "detections");
  for (const Truth& t : data.truths) check_error_item(function, target, t);
  for (const Detection& d : detections) check_error_item(function, target, d);
  ErrorImage image;
  for (std::size_t i = 0; i < images.size(); ++i) {
    image.truths.assign(truths.of(i).begin(), truths.of(i).end());
    image.detections.assign(found.of(i).begin(), found.of(i).end());
    std::stable_sort(image.detections.begin(), image.detections.end(),
                     [](const Detection* a, const Detection* b) { return a->score > b->score; });
    f(image);
  }
}

inline std::size_t class_place(const char* function, const IdIndex& classes, std::int64_t id) {
  const std::int32_t k = classes.find(id);
  if (k < 0) throw ValueError(error_text(function, "category", "categories of the data set", id));
  return static_cast<std::size_t>(k);
}

inline IdIndex classes_of(const CocoDataset& data) {
  std::vector<std::int64_t> ids;
  for (const Category& c : data.categories) ids.push_back(c.id);
  return IdIndex(std::move(ids));
}

}  // namespace detail
}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_DETAIL_ERROR_IMAGES_HPP
