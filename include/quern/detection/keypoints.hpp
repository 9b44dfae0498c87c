// SPDX-License-Identifier: Apache-2.0

/// \file
/// Object key point similarity: how near a pose is to another, on a scale that each key point's
/// sigma and the object's size set (https://cocodataset.org/#keypoints-eval).

#ifndef QUERN_DETECTION_KEYPOINTS_HPP
#define QUERN_DETECTION_KEYPOINTS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/detection/box.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// COCO's sigmas of a person's 17 key points, nose to ankles.
[[nodiscard]] inline std::vector<double> coco_sigmas() {
  return {.026, .025, .025, .035, .035, .079, .079, .072, .072,
          .062, .062, .107, .107, .087, .087, .089, .089};
}

namespace detail {

/// The sum in the order of NumPy's pairwise sum, so that ties with COCO's tools stay ties.
inline double pairwise_sum(std::span<const double> x) {
  double sum = 0;
  std::size_t i = 0;
  if (x.size() >= 8 && x.size() <= 128) {
    double r[8];
    for (; i < 8; ++i) r[i] = x[i];
    for (; i + 8 <= x.size(); i += 8) {
      for (std::size_t j = 0; j < 8; ++j) r[j] += x[i + j];
    }
    sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
  }
  for (; i < x.size(); ++i) sum += x[i];
  return sum;
}

}  // namespace detail

/// Mean over the truth's visible key points (v > 0) of exp(-d^2 / (2 (2 sigma)^2 (area + eps))).
/// Both poses are x y v triples, one for each sigma; `area` and `box` are the truth's. Where no key
/// point is visible: over all of them, with d the distance outside of the box grown by its size.
/// ShapeError when there is another number of key points.
[[nodiscard]] inline double oks(std::span<const double> detection, std::span<const double> truth,
                                std::span<const double> sigmas, double area, const Box& box) {
  const std::size_t n = sigmas.size();
  if (detection.size() != 3 * n || truth.size() != 3 * n) {
    throw ShapeError(error_text(
        "quern::detection::oks", "detection, truth", std::to_string(3 * n) + " numbers each",
        std::to_string(detection.size()) + " and " + std::to_string(truth.size())));
  }
  std::size_t visible = 0;
  for (std::size_t i = 0; i < n; ++i) visible += truth[3 * i + 2] > 0 ? 1U : 0U;
  const double x0 = box.x - box.w, x1 = box.x + 2 * box.w;
  const double y0 = box.y - box.h, y1 = box.y + 2 * box.h;
  // COCO's 17 fit the stack; more go to the heap.
  double near_by[64];
  std::vector<double> far(n > 64 ? n : 0);
  double* const terms = n > 64 ? far.data() : near_by;
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (visible > 0 && !(truth[3 * i + 2] > 0)) continue;
    const double x = detection[3 * i], y = detection[3 * i + 1];
    const double dx =
        visible > 0 ? x - truth[3 * i] : (std::max)(0.0, x0 - x) + (std::max)(0.0, x - x1);
    const double dy =
        visible > 0 ? y - truth[3 * i + 1] : (std::max)(0.0, y0 - y) + (std::max)(0.0, y - y1);
    const double spread = (2 * sigmas[i]) * (2 * sigmas[i]);
    const double e =
        (detail::rounded(dx * dx) + detail::rounded(dy * dy)) / spread / (area + 0x1p-52) / 2;
    terms[count++] = std::exp(-e);
  }
  if (count == 0) return 0;
  return detail::pairwise_sum({terms, count}) / static_cast<double>(count);
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_KEYPOINTS_HPP
