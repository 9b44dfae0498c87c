// SPDX-License-Identifier: Apache-2.0

/// \file
/// Metrics of order: areas under curves, NDCG, average precision, precision.

#ifndef QUERN_BOOSTING_METRICS_RANKING_HPP
#define QUERN_BOOSTING_METRICS_RANKING_HPP

#include "quern/boosting/metrics/base.hpp"
#include "quern/boosting/objectives/ranking.hpp"
#include "quern/core/config.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

namespace detail {

/// Weight of the positive and of the negative rows with one score.
struct ScoreStep {
  double positive = 0, negative = 0;
};

/// Steps of rows [begin, end) by rising score. A label in (0, 1) is that much of a positive row;
/// with \p of_class >= 0 the rows of that class are positive.
inline std::vector<ScoreStep> score_steps(const std::vector<float>& scores, const Targets& t,
                                          std::size_t begin, std::size_t end, float of_class = -1) {
  std::vector<std::uint32_t> order(end - begin);
  std::iota(order.begin(), order.end(), static_cast<std::uint32_t>(begin));
  std::sort(order.begin(), order.end(),
            [&](std::uint32_t a, std::uint32_t b) { return scores[a] < scores[b]; });
  std::vector<ScoreStep> steps;
  for (std::size_t i = 0; i < order.size();) {
    ScoreStep step;
    const float score = scores[order[i]];
    for (; i < order.size() && scores[order[i]] == score; ++i) {
      const auto w = static_cast<double>(t.weight(order[i]));
      const float y = t.labels[order[i]];
      const double share = of_class < 0 ? static_cast<double>(y) : y == of_class ? 1.0 : 0.0;
      step.positive += w * share;
      step.negative += w * (1 - share);
    }
    steps.push_back(step);
  }
  return steps;
}

inline ScoreStep total_of(const std::vector<ScoreStep>& steps) {
  ScoreStep total;
  for (const ScoreStep& s : steps) {
    total.positive += s.positive;
    total.negative += s.negative;
  }
  return total;
}

inline double area_under_roc(const std::vector<ScoreStep>& steps) {
  double below = 0, positives = 0, area = 0;  // `below`: negative weight at smaller scores
  for (const ScoreStep& s : steps) {
    area += s.positive * (below + s.negative / 2);
    below += s.negative;
    positives += s.positive;
  }
  const double pairs = positives * below;
  return pairs > 0 ? area / pairs : std::numeric_limits<double>::quiet_NaN();
}

/// Area under precision over recall, interpolated between scores (J. Davis and M. Goadrich, 2006):
/// where the true positives grow from a to b, the false ones grow in proportion.
inline double area_under_precision_recall(const std::vector<ScoreStep>& steps) {
  const ScoreStep total = total_of(steps);
  if (!(total.positive > 0 && total.negative > 0)) return std::numeric_limits<double>::quiet_NaN();
  double tp = 0, fp = 0, area = 0;
  for (auto s = steps.rbegin(); s != steps.rend(); ++s) {
    const double tp_next = tp + s->positive, fp_next = fp + s->negative;
    if (s->positive > 0) {
      // precision = x / (c x + d) with x the recall.
      const double h = s->negative / s->positive, c = 1 + h, d = (fp - h * tp) / total.positive;
      const double from = tp / total.positive, to = tp_next / total.positive;
      area += (to - from) / c;
      if (d != 0) area -= d / (c * c) * (std::log(c * to + d) - std::log(c * from + d));
    }
    tp = tp_next;
    fp = fp_next;
  }
  return area;
}

/// Mean over distinct scores, from the highest, of precision times the growth of recall.
inline double mean_precision(const std::vector<ScoreStep>& steps) {
  const ScoreStep total = total_of(steps);
  double tp = 0, fp = 0, sum = 0;
  for (auto s = steps.rbegin(); s != steps.rend(); ++s) {
    tp += s->positive;
    fp += s->negative;
    if (tp > 0) sum += s->positive * (tp / (tp + fp));
  }
  return total.positive > 0 ? sum / total.positive : std::numeric_limits<double>::quiet_NaN();
}

using CurveArea = double (*)(const std::vector<ScoreStep>&);

/// Of one output: over all rows, or, with groups, the weighted mean over those groups that have
/// both kinds of rows. Of several: the mean over classes, each against the others, weighted by the
/// classes' rows where \p by_class_weight; NaN where a class is missing.
inline double curve_area(std::span<const float> p, std::int32_t outputs, const Targets& t,
                         CurveArea area, bool by_class_weight) {
  const auto rows = static_cast<std::size_t>(t.rows());
  double sum = 0, weight = 0;
  if (outputs > 1) {
    const auto k = static_cast<std::size_t>(outputs);
    std::vector<float> column(rows);
    for (std::size_t c = 0; c < k; ++c) {
      for (std::size_t i = 0; i < rows; ++i) column[i] = p[i * k + c];
      const auto steps = score_steps(column, t, 0, rows, static_cast<float>(c));
      const ScoreStep total = total_of(steps);
      if (!(total.positive > 0 && total.negative > 0))
        return std::numeric_limits<double>::quiet_NaN();
      const double w = by_class_weight ? total.positive : 1;
      sum += w * area(steps);
      weight += w;
    }
    return sum / weight;
  }
  const std::vector<float> scores(p.begin(), p.end());
  if (t.group_offsets.empty()) return area(score_steps(scores, t, 0, rows));
  for (std::int64_t g = 0; g < t.groups(); ++g) {
    const auto steps = score_steps(scores, t, static_cast<std::size_t>(t.group_begin(g)),
                                   static_cast<std::size_t>(t.group_end(g)));
    const ScoreStep total = total_of(steps);
    if (!(total.positive > 0 && total.negative > 0)) continue;
    const auto w = static_cast<double>(t.weight(t.group_begin(g)));
    sum += w * area(steps);
    weight += w;
  }
  return weight > 0 ? sum / weight : std::numeric_limits<double>::quiet_NaN();
}

/// Weighted mean over groups of score(labels by falling prediction); NaN without weight.
template <class Score>
double group_mean(std::span<const float> p, const Targets& t, const Score& score) {
  check_group_weights("make_metric", t);
  double sum = 0, weight = 0;
  for (std::int64_t g = 0; g < t.groups(); ++g) {
    const std::int64_t begin = t.group_begin(g), end = t.group_end(g);
    if (begin == end) continue;
    const auto size = static_cast<std::size_t>(end - begin);
    std::vector<double> labels;
    for (const std::size_t i : ranked(p.subspan(static_cast<std::size_t>(begin), size)))
      labels.push_back(static_cast<double>(t.label(begin + static_cast<std::int64_t>(i))));
    const auto w = static_cast<double>(t.weight(begin));
    sum += w * score(labels);
    weight += w;
  }
  return weight > 0 ? sum / weight : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace detail

/// Area under the ROC curve, ties counting half: the probability that a positive row scores above a
/// negative one. NaN where one of the classes has no weight. With groups the mean over those that
/// have both; with several outputs the mean over classes, weighted by their rows.
inline double auc(std::span<const float> p, std::int32_t outputs, const Targets& t) {
  return detail::curve_area(p, outputs, t, detail::area_under_roc, true);
}

/// Area under the curve of precision over recall, interpolated as XGBoost does; groups as in auc,
/// of classes the plain mean.
inline double aucpr(std::span<const float> p, std::int32_t outputs, const Targets& t) {
  return detail::curve_area(p, outputs, t, detail::area_under_precision_recall, false);
}

/// Average precision without interpolation, one step for each distinct score (scikit-learn's).
inline double average_precision(std::span<const float> p, std::int32_t outputs, const Targets& t) {
  return detail::curve_area(p, outputs, t, detail::mean_precision, false);
}

/// How ranking metrics cut and what they make of groups without a relevant row.
struct RankCut {
  std::size_t top = static_cast<std::size_t>(-1);  ///< only so many first ranks count
  double without_relevant = 1;                     ///< score of such a group (0: names with "-")
};

/// Normalised discounted cumulative gain, the mean over groups; ties keep the order of the rows.
/// A group without a relevant row weighs like any other (XGBoost counts it with weight 1).
inline double ndcg(std::span<const float> p, const Targets& t, const RankCut& cut = {},
                   bool exponential_gain = true) {
  return detail::group_mean(p, t, [&](std::vector<double>& labels) {
    const auto dcg = [&] {
      double sum = 0;
      for (std::size_t i = 0; i < (std::min)(cut.top, labels.size()); ++i)
        sum += detail::ndcg_gain(labels[i], exponential_gain) * detail::ndcg_discount(i);
      return sum;
    };
    const double present = dcg();
    std::sort(labels.begin(), labels.end(), std::greater<>());
    const double ideal = dcg();
    return ideal > 0 ? present / ideal : cut.without_relevant;
  });
}

/// Mean over groups of the average precision at the relevant ranks; labels > 0 are relevant.
inline double mean_average_precision(std::span<const float> p, const Targets& t,
                                     const RankCut& cut = {}) {
  return detail::group_mean(p, t, [&](const std::vector<double>& labels) {
    double hits = 0, relevant = 0, sum = 0;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if (!(labels[i] > 0)) continue;
      relevant += 1;
      if (i >= cut.top) continue;
      hits += 1;
      sum += hits / (static_cast<double>(i) + 1);
    }
    const double counted = (std::min)(relevant, static_cast<double>(cut.top));
    return counted > 0 ? sum / counted : cut.without_relevant;
  });
}

/// Mean over groups of the share of relevant rows among the first \p top.
inline double precision_at(std::span<const float> p, const Targets& t, std::size_t top) {
  return detail::group_mean(p, t, [&](const std::vector<double>& labels) {
    const std::size_t n = (std::min)(top, labels.size());
    double hits = 0;
    for (std::size_t i = 0; i < n; ++i) hits += labels[i] > 0 ? 1 : 0;
    return n > 0 ? hits / static_cast<double>(n) : 0;
  });
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_METRICS_RANKING_HPP
