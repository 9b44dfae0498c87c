// SPDX-License-Identifier: Apache-2.0

/// \file
/// The score threshold at which the mean F1 of all classes is greatest: where to cut a detector's
/// output when it is put to work.

#ifndef QUERN_DETECTION_F1_HPP
#define QUERN_DETECTION_F1_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/detection/coco_eval.hpp"
#include "quern/detection/detail/coco_accumulate.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// At one score threshold; the means are over classes that have objects.
struct MacroF1 {
  double score = 0;  ///< detections of at least this score are kept
  double f1 = 0, precision = 0, recall = 0;
  std::vector<double> class_precision, class_recall;  ///< (K); 0 for classes without detections
};

namespace detail {

/// Place of a threshold, to within 1e-9; ValueError when it was not evaluated.
inline std::size_t threshold_place(const char* function, const CocoOptions& o, double iou) {
  const std::size_t t = place_of_threshold(o, iou);
  if (t < o.iou_thresholds.size()) return t;
  throw ValueError(error_text(function, "iou", "one of " + list_text(o.iou_thresholds), iou));
}

/// Matched and not ignored, in the first area.
inline bool is_true_positive(const CocoRecords& r, std::size_t detection, std::size_t t) {
  return (r.bits[detection * r.words + 2 * t / 64] >> (2 * t % 64) & 3) == 1;
}

}  // namespace detail

/// Among all scores, ascending, the first with the greatest mean over classes of F1 = 2PR / (P +
/// R); P = true positives / detections kept (ignored ones too), R = true positives / objects that
/// count. All 0 without objects or detections. ValueError for a threshold that was not evaluated.
[[nodiscard]] inline MacroF1 macro_f1(const CocoEvaluator& evaluator, double iou = 0.5) {
  const detail::CocoRecords& r = evaluator.records();
  const std::size_t t =
      detail::threshold_place("quern::detection::macro_f1", evaluator.options(), iou);
  const std::size_t areas = evaluator.options().areas.size();
  const std::size_t classes =
      evaluator.options().use_categories ? evaluator.categories().size() : 1;
  const auto positives = detail::positives_of(r, classes, areas);
  std::vector<std::uint32_t> order;
  for (std::uint32_t d = 0; d < r.scores.size(); ++d) {
    if (positives[r.categories[d] * areas] > 0) order.push_back(d);
  }
  std::sort(order.begin(), order.end(),
            [&](std::uint32_t a, std::uint32_t b) { return r.scores[a] > r.scores[b]; });
  std::size_t counted = 0;
  for (std::size_t k = 0; k < classes; ++k) counted += positives[k * areas] > 0 ? 1U : 0U;
  MacroF1 best;
  std::vector<double> found(classes, 0), kept(classes, 0), f1(classes, 0);
  best.class_precision.assign(classes, 0);
  best.class_recall.assign(classes, 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::size_t k = r.categories[order[i]];
    kept[k] += 1;
    if (detail::is_true_positive(r, order[i], t)) found[k] += 1;
    // P and R have one numerator, so F1 = 2 TP / (kept + objects).
    f1[k] = 2 * found[k] / (kept[k] + static_cast<double>(positives[k * areas]));
    if (i + 1 < order.size() && r.scores[order[i + 1]] == r.scores[order[i]]) continue;
    double sum = 0;
    for (const double x : f1) sum += x;
    const double mean = sum / static_cast<double>(counted);
    // Scores come in descending order, so among equals the last one seen is the first.
    if (mean <= 0 || mean < best.f1) continue;
    best.f1 = mean;
    best.score = r.scores[order[i]];
    for (std::size_t c = 0; c < classes; ++c) {
      best.class_precision[c] = kept[c] > 0 ? found[c] / kept[c] : 0;
      const double objects = static_cast<double>(positives[c * areas]);
      best.class_recall[c] = objects > 0 ? found[c] / objects : 0;
    }
  }
  for (std::size_t c = 0; c < classes && counted > 0; ++c) {
    best.precision += best.class_precision[c] / static_cast<double>(counted);
    best.recall += best.class_recall[c] / static_cast<double>(counted);
  }
  return best;
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_F1_HPP
