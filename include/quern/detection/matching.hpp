// SPDX-License-Identifier: Apache-2.0

/// \file
/// Which detection finds which object, within one image and class: COCO's rule (the best object
/// that is still free) and Pascal VOC's (the best object; a false positive when it is taken).

#ifndef QUERN_DETECTION_MATCHING_HPP
#define QUERN_DETECTION_MATCHING_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/detection/average_precision.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

namespace detail {

/// COCO's rule on raw arrays. `iou` is (detections, truths) row-major, detections by descending
/// score; `order` lists the truths that may be matched, those that count before the ignored ones;
/// `taken` is scratch of one flag a truth, all 0. match[d] is the truth or -1.
inline void coco_match(const double* iou, std::size_t detections, std::size_t truths,
                       std::span<const std::uint32_t> order, const std::uint8_t* ignored,
                       const std::uint8_t* crowd, double threshold, std::uint8_t* taken,
                       std::int32_t* match) {
  const double least = (std::min)(threshold, 1 - 1e-10);
  for (std::size_t d = 0; d < detections; ++d) {
    const double* row = iou + d * truths;
    double best = least;
    std::int32_t found = -1;
    bool counts = false;
    for (const std::uint32_t g : order) {
      if (taken[g] != 0 && crowd[g] == 0) continue;
      if (counts && ignored[g] != 0) break;
      if (row[g] < best) continue;
      best = row[g];
      found = static_cast<std::int32_t>(g);
      counts = ignored[g] == 0;
    }
    match[d] = found;
    if (found >= 0) taken[found] = 1;
  }
}

}  // namespace detail

/// What is known of the objects that detections are matched with, one entry an object; empty spans
/// stand for all 0.
struct TruthFlags {
  std::span<const std::uint8_t> ignored{};  ///< VOC: difficult
  std::span<const std::uint8_t> crowd{};    ///< may be matched again and again; COCO's rule only
};

/// The object of each detection, or -1, and what the detection counts as.
struct Matches {
  std::vector<std::int32_t> truth;
  std::vector<Verdict> verdict;
};

namespace detail {

inline std::vector<std::uint8_t> flags_or_zero(const char* function, const char* argument,
                                               std::span<const std::uint8_t> flags, Index truths) {
  if (flags.empty()) return std::vector<std::uint8_t>(static_cast<std::size_t>(truths), 0);
  expect_size(function, argument, static_cast<Index>(flags.size()), truths, "flags, one an object");
  return {flags.begin(), flags.end()};
}

}  // namespace detail

/// COCO. `iou` is (detections, objects), the detections by descending score. Each detection takes,
/// among the objects that are free or crowds, the one of greatest IoU >= threshold (the last one
/// among equals); an ignored one only when no other reaches the threshold. Those that take an
/// ignored object are ignored.
[[nodiscard]] inline Matches match_coco(const NdView<const double, 2>& iou, double threshold,
                                        const TruthFlags& flags = {}) {
  static constexpr const char* function = "quern::detection::match_coco";
  expect_finite(function, "threshold", threshold);
  const auto ignored = detail::flags_or_zero(function, "ignored", flags.ignored, iou.cols());
  const auto crowd = detail::flags_or_zero(function, "crowd", flags.crowd, iou.cols());
  const std::size_t n = static_cast<std::size_t>(iou.rows()), m = ignored.size();
  std::vector<double> matrix(n * m);
  for (std::size_t d = 0; d < n; ++d) {
    for (std::size_t g = 0; g < m; ++g) {
      matrix[d * m + g] = iou(static_cast<Index>(d), static_cast<Index>(g));
    }
  }
  std::vector<std::uint32_t> order;
  for (const bool last : {false, true}) {
    for (std::size_t g = 0; g < m; ++g) {
      if ((ignored[g] != 0) == last) order.push_back(static_cast<std::uint32_t>(g));
    }
  }
  std::vector<std::uint8_t> taken(m, 0);
  Matches result{std::vector<std::int32_t>(n, -1), std::vector<Verdict>(n)};
  detail::coco_match(matrix.data(), n, m, order, ignored.data(), crowd.data(), threshold,
                     taken.data(), result.truth.data());
  for (std::size_t d = 0; d < n; ++d) {
    const std::int32_t g = result.truth[d];
    result.verdict[d] = g < 0                                       ? Verdict::false_positive
                        : ignored[static_cast<std::size_t>(g)] != 0 ? Verdict::ignored
                                                                    : Verdict::true_positive;
  }
  return result;
}

/// How VOC's IoU meets the threshold.
enum class VocCompare : std::uint8_t { at_least, above };

/// Pascal VOC. Each detection looks only at the object of greatest IoU (the first among equals): if
/// that reaches the threshold, it is a true positive when the object is free, a false one when it
/// is taken, and ignored when the object is difficult.
[[nodiscard]] inline Matches match_voc(const NdView<const double, 2>& iou, double threshold,
                                       VocCompare compare = VocCompare::at_least,
                                       const TruthFlags& flags = {}) {
  static constexpr const char* function = "quern::detection::match_voc";
  expect_finite(function, "threshold", threshold);
  const auto difficult = detail::flags_or_zero(function, "ignored", flags.ignored, iou.cols());
  const std::size_t n = static_cast<std::size_t>(iou.rows());
  std::vector<std::uint8_t> taken(difficult.size(), 0);
  Matches result{std::vector<std::int32_t>(n, -1),
                 std::vector<Verdict>(n, Verdict::false_positive)};
  for (std::size_t d = 0; d < n; ++d) {
    std::size_t best = 0;
    double most = -1;
    for (std::size_t g = 0; g < taken.size(); ++g) {
      const double x = iou(static_cast<Index>(d), static_cast<Index>(g));
      if (x > most) most = x, best = g;
    }
    if (most < 0 || (compare == VocCompare::above ? !(most > threshold) : most < threshold))
      continue;
    if (difficult[best] != 0) {
      result.verdict[d] = Verdict::ignored;
      result.truth[d] = static_cast<std::int32_t>(best);
    } else if (taken[best] == 0) {
      taken[best] = 1;
      result.verdict[d] = Verdict::true_positive;
      result.truth[d] = static_cast<std::int32_t>(best);
    }
  }
  return result;
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_MATCHING_HPP
