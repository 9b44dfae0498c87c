// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pascal VOC's evaluation of detections: curves and both average precisions of every class.

#ifndef QUERN_DETECTION_VOC_EVAL_HPP
#define QUERN_DETECTION_VOC_EVAL_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/detection/average_precision.hpp"
#include "quern/detection/box.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/matching.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// First and last corner, as VOC writes boxes.
struct CornerBox {
  double x1 = 0, y1 = 0, x2 = 0, y2 = 0;
};

struct VocTruth {
  std::int64_t image = 0;
  std::int64_t category = 0;
  CornerBox box{};
  bool difficult = false;
};

struct VocDetection {
  std::int64_t image = 0;
  std::int64_t category = 0;
  double score = 0;
  CornerBox box{};
};

struct VocOptions {
  double iou_threshold = 0.5;
  VocCompare compare = VocCompare::at_least;  ///< the development kit's own code says `above`
  bool pixel = true;  ///< corners are pixels: sizes are one more than differences
};

/// One class.
struct VocClass {
  std::int64_t category = 0;
  PrecisionRecall curve;
  double ap_all_points = 0;  ///< VOC 2010 and later
  double ap_11_points = 0;   ///< VOC 2007
};

/// IoU of two corner boxes; `pixel` adds 1 to every difference.
[[nodiscard]] inline double voc_iou(const CornerBox& a, const CornerBox& b, bool pixel = true) {
  const double one = pixel ? 1 : 0;
  const double w = (std::min)(a.x2, b.x2) - (std::max)(a.x1, b.x1) + one;
  const double h = (std::min)(a.y2, b.y2) - (std::max)(a.y1, b.y1) + one;
  if (!(w > 0) || !(h > 0)) return 0;
  const double inter = detail::rounded(w * h);
  const double area_a = detail::rounded((a.x2 - a.x1 + one) * (a.y2 - a.y1 + one));
  const double area_b = detail::rounded((b.x2 - b.x1 + one) * (b.y2 - b.y1 + one));
  return inter > 0 ? inter / (area_a + area_b - inter) : 0;
}

namespace detail {

inline void check_voc_box(const char* argument, const CornerBox& b, bool pixel) {
  const double one = pixel ? 1 : 0;
  const bool finite =
      is_finite_bits(b.x1) && is_finite_bits(b.y1) && is_finite_bits(b.x2) && is_finite_bits(b.y2);
  if (finite && b.x2 - b.x1 + one >= 0 && b.y2 - b.y1 + one >= 0) return;
  throw ValueError(error_text("quern::detection::evaluate_voc", argument,
                              "finite boxes of sizes that are not negative",
                              "x1 " + std::to_string(b.x1) + " y1 " + std::to_string(b.y1) +
                                  " x2 " + std::to_string(b.x2) + " y2 " + std::to_string(b.y2)));
}

/// What one class of one image holds, as places in the inputs.
struct VocGroup {
  std::vector<std::size_t> truths;
  std::vector<std::size_t> detections;
};

}  // namespace detail

/// The classes that have an object or a detection, by ascending category. Detections are walked by
/// descending score, the earlier one first among equals. ValueError for a NaN score and for boxes
/// that are not finite or of negative size.
[[nodiscard]] inline std::vector<VocClass> evaluate_voc(std::span<const VocTruth> truths,
                                                        std::span<const VocDetection> detections,
                                                        const VocOptions& options = {}) {
  expect_finite("quern::detection::evaluate_voc", "iou_threshold", options.iou_threshold);
  std::map<std::int64_t, std::map<std::int64_t, detail::VocGroup>> groups;
  for (std::size_t i = 0; i < truths.size(); ++i) {
    detail::check_voc_box("truths", truths[i].box, options.pixel);
    groups[truths[i].category][truths[i].image].truths.push_back(i);
  }
  for (std::size_t i = 0; i < detections.size(); ++i) {
    detail::check_voc_box("detections", detections[i].box, options.pixel);
    if (is_nan_bits(detections[i].score)) {
      throw ValueError(error_text("quern::detection::evaluate_voc", "detections", "scores", "NaN"));
    }
    groups[detections[i].category][detections[i].image].detections.push_back(i);
  }
  std::vector<VocClass> classes;
  for (auto& [category, images] : groups) {
    std::vector<std::pair<std::size_t, Verdict>> verdicts;  // by place in the input
    std::int64_t positives = 0;
    for (auto& [image, group] : images) {
      std::stable_sort(
          group.detections.begin(), group.detections.end(),
          [&](std::size_t a, std::size_t b) { return detections[a].score > detections[b].score; });
      const std::size_t m = group.truths.size();
      std::vector<double> iou(group.detections.size() * m);
      std::vector<std::uint8_t> difficult(m);
      for (std::size_t g = 0; g < m; ++g) {
        difficult[g] = truths[group.truths[g]].difficult ? 1 : 0;
        positives += truths[group.truths[g]].difficult ? 0 : 1;
        for (std::size_t d = 0; d < group.detections.size(); ++d) {
          iou[d * m + g] = voc_iou(detections[group.detections[d]].box, truths[group.truths[g]].box,
                                   options.pixel);
        }
      }
      const NdView<const double, 2> matrix(
          iou.data(), {static_cast<Index>(group.detections.size()), static_cast<Index>(m)});
      const Matches matches =
          match_voc(matrix, options.iou_threshold, options.compare, {.ignored = difficult});
      for (std::size_t d = 0; d < group.detections.size(); ++d) {
        verdicts.emplace_back(group.detections[d], matches.verdict[d]);
      }
    }
    std::sort(verdicts.begin(), verdicts.end());
    std::vector<double> scores;
    std::vector<Verdict> flags;
    for (const auto& [place, verdict] : verdicts) {
      scores.push_back(detections[place].score);
      flags.push_back(verdict);
    }
    VocClass c{category, precision_recall(scores, flags, positives), 0, 0};
    c.ap_all_points = ap_all_points(c.curve);
    c.ap_11_points = ap_11_points(c.curve);
    classes.push_back(std::move(c));
  }
  return classes;
}

/// The same of a data set; objects of `ignore` or `crowd` are the difficult ones. Classes without
/// objects and detections are left out. (A template, so that {} means the lists above.) ValueError
/// also for images and classes that the data set does not have.
template <std::same_as<CocoDataset> Data>
[[nodiscard]] std::vector<VocClass> evaluate_voc(const Data& data,
                                                 std::span<const Detection> detections,
                                                 const VocOptions& options = {}) {
  const auto corners = [](const Box& b) { return CornerBox{b.x, b.y, b.x + b.w, b.y + b.h}; };
  const auto ids = [](const auto& list) {
    std::vector<std::int64_t> found;
    for (const auto& each : list) found.push_back(each.id);
    return IdIndex(std::move(found));
  };
  const IdIndex images = ids(data.images), classes = ids(data.categories);
  const auto check = [&](const char* argument, std::int64_t image, std::int64_t category) {
    const bool known = images.find(image) >= 0;
    if (known && classes.find(category) >= 0) return;
    throw ValueError(error_text("quern::detection::evaluate_voc", argument,
                                known ? "classes of the data set" : "images of the data set",
                                known ? category : image));
  };
  std::vector<VocTruth> truths;
  for (const Truth& t : data.truths) {
    check("truths", t.image, t.category);
    truths.push_back({t.image, t.category, corners(t.box), t.ignore || t.crowd});
  }
  std::vector<VocDetection> found;
  for (const Detection& d : detections) {
    check("detections", d.image, d.category);
    found.push_back({d.image, d.category, d.score, corners(d.box)});
  }
  return evaluate_voc(truths, found, options);
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_VOC_EVAL_HPP
