// SPDX-License-Identifier: Apache-2.0

/// \file
/// Precision-recall curves of detections, and average precision as Pascal VOC 2007 (11 points),
/// VOC 2010 (all points) and COCO (101 points) define it.

#ifndef QUERN_DETECTION_AVERAGE_PRECISION_HPP
#define QUERN_DETECTION_AVERAGE_PRECISION_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// What matching says of one detection.
enum class Verdict : std::uint8_t {
  false_positive,
  true_positive,
  ignored  ///< counts neither way: on a crowd, a difficult object, or out of the range of areas
};

/// One point for each detection that counts, by descending score.
struct PrecisionRecall {
  std::vector<double> scores;
  std::vector<double> precision;  ///< true positives / detections so far
  std::vector<double> recall;     ///< true positives so far / objects
  std::int64_t positives = 0;     ///< objects to be found
  std::int64_t true_positives = 0;
  std::int64_t false_positives = 0;
};

/// The curve of detections in any order; among equal scores the earlier one comes first. Recall is
/// 0 where there is no object. ShapeError for lengths that differ, ValueError for a NaN score
/// and for more true positives than objects.
[[nodiscard]] inline PrecisionRecall precision_recall(std::span<const double> scores,
                                                      std::span<const Verdict> verdicts,
                                                      std::int64_t positives) {
  static constexpr const char* function = "quern::detection::precision_recall";
  expect_size(function, "verdicts", static_cast<Index>(verdicts.size()),
              static_cast<Index>(scores.size()), "verdicts, one a score");
  for (const double s : scores) {
    if (is_nan_bits(s)) throw ValueError(error_text(function, "scores", "numbers", "NaN"));
  }
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  const auto hits = std::count(verdicts.begin(), verdicts.end(), Verdict::true_positive);
  if (positives < hits) {
    throw ValueError(error_text(function, "positives",
                                "at least the " + std::to_string(hits) + " true positives",
                                positives));
  }
  PrecisionRecall curve;
  curve.positives = positives;
  for (const std::size_t i : order) {
    if (verdicts[i] == Verdict::ignored) continue;
    ++(verdicts[i] == Verdict::true_positive ? curve.true_positives : curve.false_positives);
    const double found = static_cast<double>(curve.true_positives);
    const double seen = found + static_cast<double>(curve.false_positives);
    curve.scores.push_back(scores[i]);
    curve.precision.push_back(found / seen);
    curve.recall.push_back(positives > 0 ? found / static_cast<double>(positives) : 0);
  }
  return curve;
}

/// VOC 2010: the area under the precision that is made non-increasing, over the recalls reached.
[[nodiscard]] inline double ap_all_points(const PrecisionRecall& curve) {
  double best = 0, sum = 0, recall = curve.recall.empty() ? 0 : curve.recall.back();
  for (std::size_t i = curve.recall.size(); i-- > 0;) {
    // Points of one recall share the best precision from here on.
    const double before = i > 0 ? curve.recall[i - 1] : 0;
    best = (std::max)(best, curve.precision[i]);
    if (before != recall) sum += (recall - before) * best;
    recall = before;
  }
  return sum;
}

/// The mean over `levels` of the best precision at a recall of at least the level (0 where the
/// level is not reached): COCO's 101 points with coco_recall_levels().
[[nodiscard]] inline double ap_at_levels(const PrecisionRecall& curve,
                                         std::span<const double> levels) {
  std::vector<double> best = curve.precision;
  for (std::size_t i = best.size(); i-- > 1;) best[i - 1] = (std::max)(best[i - 1], best[i]);
  double sum = 0;
  for (const double level : levels) {
    const auto at = std::lower_bound(curve.recall.begin(), curve.recall.end(), level);
    if (at != curve.recall.end()) sum += best[static_cast<std::size_t>(at - curve.recall.begin())];
  }
  return levels.empty() ? 0 : sum / static_cast<double>(levels.size());
}

/// VOC 2007: recalls 0, 0.1, …, 1.
[[nodiscard]] inline double ap_11_points(const PrecisionRecall& curve) {
  std::vector<double> levels(11);
  for (std::size_t i = 0; i < 11; ++i) levels[i] = static_cast<double>(i) / 10;
  return ap_at_levels(curve, levels);
}

/// linspace(0, 1, 101) as NumPy rounds it.
[[nodiscard]] inline std::vector<double> coco_recall_levels() {
  std::vector<double> levels(101);
  for (std::size_t i = 0; i < 101; ++i) levels[i] = static_cast<double>(i) * 0.01;
  levels[100] = 1;
  return levels;
}

/// linspace(0.5, 0.95, 10) as NumPy rounds it.
[[nodiscard]] inline std::vector<double> coco_iou_thresholds() {
  return {0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95};
}

/// The score from which on the F1 of precision and recall is greatest, and the three there; the
/// highest such score among equals. All 0 for an empty curve.
struct BestF1 {
  double score = 0, f1 = 0, precision = 0, recall = 0;
};
[[nodiscard]] inline BestF1 best_f1(const PrecisionRecall& curve) {
  BestF1 best;
  for (std::size_t i = 0; i < curve.scores.size(); ++i) {
    // Equal scores cannot be told apart by a threshold.
    if (i + 1 < curve.scores.size() && curve.scores[i + 1] == curve.scores[i]) continue;
    const double p = curve.precision[i], r = curve.recall[i];
    const double f1 = p + r > 0 ? 2 * p * r / (p + r) : 0;
    if (f1 > best.f1) best = {curve.scores[i], f1, p, r};
  }
  return best;
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_AVERAGE_PRECISION_HPP
