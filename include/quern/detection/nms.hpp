// SPDX-License-Identifier: Apache-2.0

/// \file
/// Non-maximum suppression: hard, soft (Bodla et al., arXiv:1704.04503: linear and Gaussian), and
/// either of them class by class.

#ifndef QUERN_DETECTION_NMS_HPP
#define QUERN_DETECTION_NMS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/detection/boxes.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

enum class SoftNms : std::uint8_t {
  linear,   ///< score *= 1 - iou where iou > iou_threshold
  gaussian  ///< score *= exp(-iou^2 / sigma), always
};

struct NmsOptions {
  double iou_threshold = 0.5;  ///< boxes whose IoU with a kept one is greater go (or lose score)
  BoxOptions boxes{};
};

struct SoftNmsOptions {
  SoftNms method = SoftNms::gaussian;
  double sigma = 0.5;
  double iou_threshold = 0.3;
  double min_score = 0.001;  ///< boxes whose score falls below go
  BoxOptions boxes{};
};

/// What soft suppression keeps: indices in the order of being kept, and their lowered scores.
template <class T>
struct SoftNmsResult {
  std::vector<std::int64_t> kept;
  std::vector<T> scores;
};

namespace detail {

template <class T>
void check_nms(const char* function, const NdView<const T, 2>& boxes, std::span<const T> scores,
               std::span<const std::int64_t> labels) {
  expect_size(function, "scores", static_cast<Index>(scores.size()), boxes.rows(),
              "values, one a box");
  if (!labels.empty()) {
    expect_size(function, "labels", static_cast<Index>(labels.size()), boxes.rows(),
                "values, one a box");
  }
  for (const T s : scores) {
    if (is_nan_bits(s)) throw ValueError(error_text(function, "scores", "numbers", "NaN"));
  }
}

/// Indices by descending score, the lower index first among equals.
template <class T>
std::vector<std::int64_t> by_score(std::span<const T> scores) {
  std::vector<std::int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  return order;
}

}  // namespace detail

/// Hard suppression: walks boxes (n, 4) by descending score (the lower index first among equals),
/// keeps each that no kept box overlaps by more than the threshold; the indices in that order.
/// With `labels` (n), only boxes of equal label suppress each other. ShapeError, ValueError as
/// box_overlaps(), also for a NaN score.
template <std::floating_point T>
[[nodiscard]] std::vector<std::int64_t> nms(const NdView<const T, 2>& boxes,
                                            std::span<const T> scores,
                                            const NmsOptions& options = {},
                                            std::span<const std::int64_t> labels = {}) {
  static constexpr const char* function = "quern::detection::nms";
  detail::check_nms(function, boxes, scores, labels);
  expect_finite(function, "iou_threshold", options.iou_threshold);
  const detail::PlanesOf<T> planes(function, "boxes", boxes, options.boxes, false);
  std::vector<std::int64_t> order = detail::by_score(scores);
  // One class after the other; within each the order of scores stays.
  std::vector<std::int64_t> places(order.size());
  std::iota(places.begin(), places.end(), std::int64_t{0});
  const auto label_at = [&](std::int64_t place) {
    return labels.empty()
               ? std::int64_t{0}
               : labels[static_cast<std::size_t>(order[static_cast<std::size_t>(place)])];
  };
  std::stable_sort(places.begin(), places.end(),
                   [&](std::int64_t a, std::int64_t b) { return label_at(a) < label_at(b); });
  const std::size_t n = places.size();
  // The boxes in walking order, so that the kernel reads them in a row.
  std::vector<T> p(5 * n), overlap(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto row = planes.row(order[static_cast<std::size_t>(places[i])]);
    p[i] = row.x1, p[n + i] = row.y1, p[2 * n + i] = row.x2, p[3 * n + i] = row.y2;
    p[4 * n + i] = row.area;
  }
  std::vector<std::uint8_t> gone(n, 0);
  const T threshold = static_cast<T>(options.iou_threshold);
  const T pixel = options.boxes.pixel ? T(1) : T(0);
  std::size_t end = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (i >= end) {
      while (end < n && label_at(places[end]) == label_at(places[i])) ++end;
    }
    if (gone[i]) continue;
    const T* q = p.data() + i + 1;
    const kernels::BoxPlanes<T> rest{q, q + n, q + 2 * n, q + 3 * n, q + 4 * n, nullptr, nullptr};
    const kernels::BoxRow<T> row{p[i], p[n + i], p[2 * n + i], p[3 * n + i], p[4 * n + i], T(0)};
    const std::size_t count = end - i - 1;
    QUERN_DISPATCH(box_overlap<T>(BoxMeasure::iou, row, rest, pixel,
                                  static_cast<std::int64_t>(count), overlap.data()));
    for (std::size_t j = 0; j < count; ++j) {
      gone[i + 1 + j] = static_cast<std::uint8_t>(gone[i + 1 + j] | (overlap[j] > threshold));
    }
  }
  std::vector<std::int64_t> kept;
  for (std::size_t i = 0; i < n; ++i) {
    if (!gone[i]) kept.push_back(places[i]);
  }
  std::sort(kept.begin(), kept.end());
  for (std::int64_t& k : kept) k = order[static_cast<std::size_t>(k)];
  return kept;
}

/// Soft suppression: takes the box of the greatest score (the lowest index among equals), lowers
/// the scores of those left by their overlap with it, drops those below min_score, and so on. With
/// `labels` only boxes of equal label lower each other.
template <std::floating_point T>
[[nodiscard]] SoftNmsResult<T> soft_nms(const NdView<const T, 2>& boxes, std::span<const T> scores,
                                        const SoftNmsOptions& options = {},
                                        std::span<const std::int64_t> labels = {}) {
  static constexpr const char* function = "quern::detection::soft_nms";
  detail::check_nms(function, boxes, scores, labels);
  if (!(options.sigma > 0)) throw ValueError(error_text(function, "sigma", "> 0", options.sigma));
  expect_finite(function, "iou_threshold", options.iou_threshold);
  if (is_nan_bits(options.min_score)) {
    throw ValueError(error_text(function, "min_score", "a number", "NaN"));
  }
  const detail::PlanesOf<T> planes(function, "boxes", boxes, options.boxes, false);
  const T pixel = options.boxes.pixel ? T(1) : T(0);
  const T least = static_cast<T>(options.min_score);
  const T sigma = static_cast<T>(options.sigma), limit = static_cast<T>(options.iou_threshold);
  std::vector<T> left(scores.begin(), scores.end()), overlap(scores.size());
  std::vector<std::int64_t> open;
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (left[i] >= least) open.push_back(static_cast<std::int64_t>(i));
  }
  SoftNmsResult<T> result;
  while (!open.empty()) {
    const auto at = std::max_element(open.begin(), open.end(), [&](std::int64_t a, std::int64_t b) {
      return left[static_cast<std::size_t>(a)] < left[static_cast<std::size_t>(b)];
    });
    const std::int64_t best = *at;
    open.erase(at);
    result.kept.push_back(best);
    result.scores.push_back(left[static_cast<std::size_t>(best)]);
    QUERN_DISPATCH(box_overlap<T>(BoxMeasure::iou, planes.row(best), planes.planes(), pixel,
                                  planes.size(), overlap.data()));
    const auto lower = [&](std::int64_t i) {
      const std::size_t u = static_cast<std::size_t>(i);
      if (!labels.empty() && labels[u] != labels[static_cast<std::size_t>(best)]) return false;
      if (options.method == SoftNms::gaussian) {
        left[u] *= std::exp(-overlap[u] * overlap[u] / sigma);
      } else if (overlap[u] > limit) {
        left[u] *= T(1) - overlap[u];
      }
      return left[u] < least;
    };
    open.erase(std::remove_if(open.begin(), open.end(), lower), open.end());
  }
  return result;
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_NMS_HPP
