// SPDX-License-Identifier: Apache-2.0

/// \file
/// What COCO's evaluation gives: precision, recall and scores at every threshold, class, area and
/// limit, and the numbers made of them (12 for boxes and masks, 10 for key points, 12 for LVIS).

#ifndef QUERN_DETECTION_COCO_RESULT_HPP
#define QUERN_DETECTION_COCO_RESULT_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/data.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// Which entries a mean is taken over.
struct CocoSelect {
  std::optional<double> iou{};  ///< one threshold, exactly; none: all
  std::optional<std::vector<std::size_t>>
      classes{};  ///< places in CocoResult::categories; none: all
  std::string_view area = "all";
  std::optional<std::size_t> limit{};  ///< place in max_detections; none: the last
};

struct CocoStat {
  std::string name;  ///< AP, AP50, APs, AR@100, …
  double value = -1;
};

/// T thresholds, R recall levels, K classes, A areas, M limits. -1 where there is no object.
struct CocoResult {
  CocoOptions options;
  std::vector<std::int64_t> categories;  ///< ascending ids; {-1} when classes are one
  NdArray<double, 5> precision;          ///< (T, R, K, A, M)
  NdArray<double, 5> scores;             ///< (T, R, K, A, M): the score at that precision
  NdArray<double, 4> recall;             ///< (T, K, A, M)
  std::vector<std::int64_t> truths;      ///< (K): objects that count, in the first area
  std::int64_t images = 0;
  std::int64_t detections = 0;  ///< that were looked at

  /// Mean precision over the selection's entries that are not -1; -1 when there is none.
  [[nodiscard]] double average_precision(const CocoSelect& select = {}) const {
    return mean(select, true);
  }
  /// The same of recall.
  [[nodiscard]] double average_recall(const CocoSelect& select = {}) const {
    return mean(select, false);
  }
  /// Average precision of one class.
  [[nodiscard]] double class_precision(std::size_t k, std::optional<double> iou = {},
                                       std::string_view area = "all") const {
    return average_precision({.iou = iou, .classes = std::vector<std::size_t>{k}, .area = area});
  }

 private:
  [[nodiscard]] std::vector<std::size_t> thresholds_of(const CocoSelect& select) const {
    std::vector<std::size_t> found;
    for (std::size_t t = 0; t < options.iou_thresholds.size(); ++t) {
      if (!select.iou || options.iou_thresholds[t] == *select.iou) found.push_back(t);
    }
    return found;
  }
  [[nodiscard]] std::vector<std::size_t> classes_of(const CocoSelect& select) const {
    if (select.classes) return *select.classes;
    std::vector<std::size_t> all(categories.size());
    for (std::size_t k = 0; k < all.size(); ++k) all[k] = k;
    return all;
  }

  [[nodiscard]] double mean(const CocoSelect& select, bool of_precision) const {
    std::size_t area = 0;
    while (area < options.areas.size() && options.areas[area].name != select.area) ++area;
    const std::size_t limit = select.limit.value_or(options.max_detections.size() - 1);
    if (area == options.areas.size() || limit >= options.max_detections.size()) return -1;
    const Index a = static_cast<Index>(area), m = static_cast<Index>(limit);
    const std::vector<std::size_t> chosen = classes_of(select);
    double sum = 0;
    std::int64_t count = 0;
    const auto take = [&](double x) {
      if (x <= -1) return;
      sum += x;
      ++count;
    };
    for (const std::size_t threshold : thresholds_of(select)) {
      const Index t = static_cast<Index>(threshold);
      for (const std::size_t place : chosen) {
        if (place >= categories.size()) continue;
        const Index k = static_cast<Index>(place);
        if (!of_precision) {
          take(recall(t, k, a, m));
          continue;
        }
        for (Index r = 0; r < precision.extent(1); ++r) take(precision(t, r, k, a, m));
      }
    }
    return count == 0 ? -1 : sum / static_cast<double>(count);
  }
};

namespace detail {

inline std::string at_text(const char* name, std::int64_t limit) {
  return std::string(name) + "@" + std::to_string(limit);
}

/// Place of a limit; past the last when it is none of them.
inline std::size_t place_of_limit(const std::vector<std::int64_t>& limits, std::int64_t limit) {
  return static_cast<std::size_t>(std::find(limits.begin(), limits.end(), limit) - limits.begin());
}

/// Place of the limit of COCO's numbers: the last, as pycocotools has it for three. `compat`: the
/// third, and for key points the one of 20 detections.
inline std::size_t limit_of_stats(const CocoOptions& o) {
  if (o.compat && o.target == CocoTarget::keypoints) return place_of_limit(o.max_detections, 20);
  if (o.compat && o.max_detections.size() > 3) return 2;
  return o.max_detections.size() - 1;
}

}  // namespace detail

/// The numbers of COCO's table in its order: boxes and masks AP, AP50, AP75, APs, APm, APl, AR at
/// the first two limits and the last, ARs, ARm, ARl; key points AP, AP50, AP75, APm, APl, AR, AR50,
/// AR75, ARm, ARl. All but the first two AR are at the last limit.
[[nodiscard]] inline std::vector<CocoStat> coco_stats(const CocoResult& result) {
  const bool keypoints = result.options.target == CocoTarget::keypoints;
  const std::size_t at = detail::limit_of_stats(result.options);
  const auto ap = [&](CocoSelect s) {
    s.limit = at;
    return result.average_precision(s);
  };
  const auto ar = [&](CocoSelect s) {
    if (!s.limit) s.limit = at;
    return result.average_recall(s);
  };
  const std::vector<std::int64_t>& limits = result.options.max_detections;
  std::vector<CocoStat> stats = {
      {"AP", ap({})}, {"AP50", ap({.iou = 0.5})}, {"AP75", ap({.iou = 0.75})}};
  if (keypoints) {
    stats.push_back({"APm", ap({.area = "medium"})});
    stats.push_back({"APl", ap({.area = "large"})});
    stats.push_back({"AR", ar({})});
    stats.push_back({"AR50", ar({.iou = 0.5})});
    stats.push_back({"AR75", ar({.iou = 0.75})});
    stats.push_back({"ARm", ar({.area = "medium"})});
    stats.push_back({"ARl", ar({.area = "large"})});
    return stats;
  }
  if (result.options.compat) {
    // There the first number alone is looked for at 100 detections.
    stats[0].value = result.average_precision({.limit = detail::place_of_limit(limits, 100)});
  }
  stats.push_back({"APs", ap({.area = "small"})});
  stats.push_back({"APm", ap({.area = "medium"})});
  stats.push_back({"APl", ap({.area = "large"})});
  const std::size_t second = limits.size() > 1 ? 1 : 0;
  const std::size_t last = (std::min)(at, limits.size() - 1);
  stats.push_back({detail::at_text("AR", limits.front()), ar({.limit = std::size_t{0}})});
  stats.push_back({detail::at_text("AR", limits[second]), ar({.limit = second})});
  stats.push_back({detail::at_text("AR", limits[last]), ar({})});
  stats.push_back({"ARs", ar({.area = "small"})});
  stats.push_back({"ARm", ar({.area = "medium"})});
  stats.push_back({"ARl", ar({.area = "large"})});
  return stats;
}

/// LVIS's numbers: AP, AP50, AP75, APs, APm, APl, APr, APc, APf (classes by frequency), AR, ARs,
/// ARm, ARl.
[[nodiscard]] inline std::vector<CocoStat> lvis_stats(const CocoResult& result,
                                                      std::span<const Category> categories) {
  const auto ap = [&](const CocoSelect& s) { return result.average_precision(s); };
  const auto ar = [&](const CocoSelect& s) { return result.average_recall(s); };
  std::vector<CocoStat> stats = {{"AP", ap({})},
                                 {"AP50", ap({.iou = 0.5})},
                                 {"AP75", ap({.iou = 0.75})},
                                 {"APs", ap({.area = "small"})},
                                 {"APm", ap({.area = "medium"})},
                                 {"APl", ap({.area = "large"})}};
  const IdIndex places(result.categories);
  for (const char frequency : {'r', 'c', 'f'}) {
    std::vector<std::size_t> of;
    for (const Category& c : categories) {
      const std::int32_t k = places.find(c.id);
      if (c.frequency == frequency && k >= 0) of.push_back(static_cast<std::size_t>(k));
    }
    stats.push_back({std::string("AP") + frequency, ap({.classes = of})});
  }
  const std::int64_t limit = result.options.max_detections.back();
  stats.push_back({detail::at_text("AR", limit), ar({})});
  stats.push_back({detail::at_text("ARs", limit), ar({.area = "small"})});
  stats.push_back({detail::at_text("ARm", limit), ar({.area = "medium"})});
  stats.push_back({detail::at_text("ARl", limit), ar({.area = "large"})});
  return stats;
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_COCO_RESULT_HPP
