// SPDX-License-Identifier: Apache-2.0

/// \file
/// How sure an average precision is: bootstrap over images (B. Efron 1979), and the paired
/// comparison of two detectors on the same images, which is far sharper than two intervals.

#ifndef QUERN_DETECTION_BOOTSTRAP_HPP
#define QUERN_DETECTION_BOOTSTRAP_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/detection/coco_eval.hpp"
#include "quern/detection/f1.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

struct BootstrapOptions {
  int replicates = 1000;
  double confidence = 0.95;
  std::uint64_t seed = 0;
  std::optional<double> iou{};  ///< AP at one threshold; none: the mean over all
  int threads = 1;              ///< 0: default_threads(); never changes a result
};

/// Percentile interval; `value` is that of all images as they are.
struct Interval {
  double value = -1, low = -1, high = -1;
  double standard_error = 0;
};

struct PairedComparison {
  Interval first, second;
  Interval difference;       ///< second less first, on the same resampled images
  double second_better = 0;  ///< share of replicates in which the second is better; ties count half
};

namespace detail {

/// AP in the first area and at the last limit where every image counts a number of times.
class WeightedAp {
 public:
  WeightedAp(const CocoEvaluator& evaluator, const std::optional<double>& iou)
      : r_(evaluator.records()), levels_(evaluator.options().recall_levels) {
    const CocoOptions& o = evaluator.options();
    const std::size_t classes = o.use_categories ? evaluator.categories().size() : 1;
    for (std::size_t t = 0; t < o.iou_thresholds.size(); ++t) {
      if (!iou) thresholds_.push_back(t);
    }
    if (iou) thresholds_ = {threshold_place("quern::detection::bootstrap_ap", o, *iou)};
    const std::vector<std::uint32_t> images = images_by_id(r_);
    rank_.resize(images.size());
    for (std::uint32_t i = 0; i < images.size(); ++i) rank_[images[i]] = i;
    lists_ = lists_of(r_, classes, true);
    order(classes);
    truths_.resize(classes);
    std::uint64_t from = 0;
    for (std::size_t i = 0; i < r_.images.size(); ++i) {
      for (; from < r_.images[i].truths_end; ++from) {
        const CocoTruth& t = r_.truths[from];
        if ((t.areas & 1U) != 0) truths_[t.category].push_back(rank_[i]);
      }
    }
  }

  /// `weights`: times that each image counts, by ascending id.
  [[nodiscard]] double operator()(const std::vector<std::uint32_t>& weights) const {
    double sum = 0;
    std::int64_t count = 0;
    std::vector<double> precision, reached;
    for (std::size_t k = 0; k < truths_.size(); ++k) {
      std::uint64_t positives = 0;
      for (const std::uint32_t image : truths_[k]) positives += weights[image];
      if (positives == 0) continue;
      for (const std::size_t t : thresholds_) {
        sum += one(k, t, weights, static_cast<double>(positives), precision, reached);
        ++count;
      }
    }
    return count == 0 ? -1 : sum / static_cast<double>(count);
  }

  [[nodiscard]] std::vector<std::int64_t> images() const {
    std::vector<std::int64_t> ids;
    for (const std::uint32_t i : images_by_id(r_)) ids.push_back(r_.images[i].id);
    return ids;
  }

 private:
  void order(std::size_t classes) {
    for (std::size_t k = 0; k < classes; ++k) {
      const std::size_t begin = static_cast<std::size_t>(lists_.begin[k]);
      const std::size_t n = static_cast<std::size_t>(lists_.begin[k + 1]) - begin;
      std::vector<std::uint32_t> by(n);
      for (std::uint32_t i = 0; i < n; ++i) by[i] = i;
      std::sort(by.begin(), by.end(), [&](std::uint32_t a, std::uint32_t b) {
        const double x = r_.scores[lists_.place[begin + a]];
        const double y = r_.scores[lists_.place[begin + b]];
        return x != y ? x > y : a < b;
      });
      for (const std::uint32_t i : by) {
        place_.push_back(lists_.place[begin + i]);
        image_.push_back(rank_[lists_.image[begin + i]]);
      }
    }
  }

  double one(std::size_t k, std::size_t t, const std::vector<std::uint32_t>& weights,
             double positives, std::vector<double>& precision, std::vector<double>& reached) const {
    precision.clear();
    reached.clear();
    double found = 0, seen = 0;
    for (std::uint64_t i = lists_.begin[k]; i < lists_.begin[k + 1]; ++i) {
      const std::uint64_t verdict = r_.bits[place_[i] * r_.words + 2 * t / 64] >> (2 * t % 64) & 3;
      const double w = static_cast<double>(weights[image_[i]]);
      if (verdict >= 2 || w <= 0) continue;
      seen += w;
      if (verdict == 0) continue;
      found += w;
      precision.push_back(found / seen);
      reached.push_back(found / positives);
    }
    for (std::size_t i = precision.size(); i-- > 1;) {
      precision[i - 1] = (std::max)(precision[i - 1], precision[i]);
    }
    double sum = 0;
    std::size_t at = 0;
    for (const double level : levels_) {
      while (at < reached.size() && reached[at] < level) ++at;
      if (at < reached.size()) sum += precision[at];
    }
    return sum / static_cast<double>(levels_.size());
  }

  const CocoRecords& r_;
  const std::vector<double>& levels_;
  std::vector<std::size_t> thresholds_;
  std::vector<std::uint32_t> rank_;  ///< of images by id
  ClassLists lists_;
  std::vector<std::uint64_t> place_;
  std::vector<std::uint32_t> image_;
  std::vector<std::vector<std::uint32_t>> truths_;
};

inline void check_bootstrap(const BootstrapOptions& o) {
  expect_in_range("quern::detection::bootstrap_ap", "replicates", o.replicates, 1, 10000000);
  expect_in_range("quern::detection::bootstrap_ap", "confidence", o.confidence, 0.0, 1.0);
}

/// How often each of n images is drawn in replicate i.
inline std::vector<std::uint32_t> drawn(std::size_t n, std::uint64_t seed, std::int64_t i) {
  Philox rng(seed, "detection bootstrap", static_cast<std::uint64_t>(i));
  std::vector<std::uint32_t> weights(n, 0);
  for (std::size_t k = 0; k < n; ++k) ++weights[static_cast<std::size_t>(rng.integer(n))];
  return weights;
}

inline Interval interval_of(double value, std::vector<double> samples, double confidence) {
  Interval result;
  result.value = value;
  double mean = 0, squares = 0;
  for (const double x : samples) mean += x / static_cast<double>(samples.size());
  for (const double x : samples) squares += (x - mean) * (x - mean);
  if (samples.size() > 1) {
    result.standard_error = std::sqrt(squares / static_cast<double>(samples.size() - 1));
  }
  std::sort(samples.begin(), samples.end());
  const auto quantile = [&](double q) {
    const double at = q * static_cast<double>(samples.size() - 1);
    const std::size_t low = static_cast<std::size_t>(at);
    const std::size_t high = (std::min)(low + 1, samples.size() - 1);
    return samples[low] + (at - static_cast<double>(low)) * (samples[high] - samples[low]);
  };
  result.low = quantile((1 - confidence) / 2);
  result.high = quantile((1 + confidence) / 2);
  return result;
}

}  // namespace detail

/// The interval of AP (first area, last limit) over resampled images. All -1 without objects.
/// ValueError for options out of range.
[[nodiscard]] inline Interval bootstrap_ap(const CocoEvaluator& evaluator,
                                           const BootstrapOptions& options = {}) {
  detail::check_bootstrap(options);
  const detail::WeightedAp ap(evaluator, options.iou);
  const std::size_t n = static_cast<std::size_t>(evaluator.images());
  const double value = ap(std::vector<std::uint32_t>(n, 1));
  if (value < 0) return {};
  std::vector<double> samples(static_cast<std::size_t>(options.replicates));
  parallel_for(
      options.replicates,
      [&](std::int64_t i) {
        samples[static_cast<std::size_t>(i)] = ap(detail::drawn(n, options.seed, i));
      },
      options.threads);
  // A draw without any object has no AP.
  std::erase_if(samples, [](double x) { return x < 0; });
  if (samples.empty()) samples = {value};
  return detail::interval_of(value, std::move(samples), options.confidence);
}

/// Two detectors on the same images. ValueError when the images, or the options that AP is made by,
/// differ.
[[nodiscard]] inline PairedComparison compare_ap(const CocoEvaluator& first,
                                                 const CocoEvaluator& second,
                                                 const BootstrapOptions& options = {}) {
  detail::check_bootstrap(options);
  const CocoOptions &x = first.options(), &y = second.options();
  if (!options.iou && x.iou_thresholds != y.iou_thresholds) {
    throw ValueError(error_text("quern::detection::compare_ap", "second",
                                "the thresholds " + detail::list_text(x.iou_thresholds),
                                detail::list_text(y.iou_thresholds)));
  }
  if (x.recall_levels != y.recall_levels || x.areas[0].low != y.areas[0].low ||
      x.areas[0].high != y.areas[0].high || x.max_detections.back() != y.max_detections.back()) {
    throw ValueError(error_text("quern::detection::compare_ap", "second",
                                "the first one's recall levels, first area and last limit",
                                "some that differ"));
  }
  const detail::WeightedAp a(first, options.iou), b(second, options.iou);
  if (a.images() != b.images()) {
    throw ValueError(error_text("quern::detection::compare_ap", "second",
                                "the same images as the first",
                                std::to_string(b.images().size()) + " of which some differ"));
  }
  const std::size_t n = static_cast<std::size_t>(first.images());
  const std::vector<std::uint32_t> once(n, 1);
  const double value_a = a(once), value_b = b(once);
  if (value_a < 0 || value_b < 0) return {};
  std::vector<double> of_a(static_cast<std::size_t>(options.replicates)), of_b = of_a;
  parallel_for(
      options.replicates,
      [&](std::int64_t i) {
        const auto weights = detail::drawn(n, options.seed, i);
        of_a[static_cast<std::size_t>(i)] = a(weights);
        of_b[static_cast<std::size_t>(i)] = b(weights);
      },
      options.threads);
  std::vector<double> kept_a, kept_b, difference;
  PairedComparison result;
  double better = 0;
  for (std::size_t i = 0; i < of_a.size(); ++i) {
    if (of_a[i] < 0 || of_b[i] < 0) continue;
    kept_a.push_back(of_a[i]);
    kept_b.push_back(of_b[i]);
    difference.push_back(of_b[i] - of_a[i]);
    better += difference.back() > 0 ? 1 : difference.back() < 0 ? 0 : 0.5;
  }
  if (difference.empty()) return {};
  result.second_better = better / static_cast<double>(difference.size());
  result.first = detail::interval_of(value_a, std::move(kept_a), options.confidence);
  result.second = detail::interval_of(value_b, std::move(kept_b), options.confidence);
  result.difference =
      detail::interval_of(value_b - value_a, std::move(difference), options.confidence);
  return result;
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_BOOTSTRAP_HPP
