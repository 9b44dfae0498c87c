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
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// Which entries a mean is taken over.
struct CocoSelect {
  std::optional<double> iou{};  ///< one threshold, to within 1e-9; none: all
  std::optional<std::vector<std::size_t>>
      classes{};                       ///< places in CocoResult::categories; none: all
  std::string_view area = {};          ///< a name in CocoOptions::areas; none: the first
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

  /// Whether the selection's threshold, classes, area and limit are there.
  [[nodiscard]] bool has(const CocoSelect& select) const {
    const auto known = [&](std::size_t k) { return k < categories.size(); };
    return (!select.iou || threshold_of(select) < options.iou_thresholds.size()) &&
           (!select.classes ||
            std::all_of(select.classes->begin(), select.classes->end(), known)) &&
           area_of(select) < options.areas.size() &&
           limit_of(select) < options.max_detections.size();
  }
  /// Mean precision over the selection's entries that are not -1; -1 when there is none. ValueError
  /// for a threshold, a class, an area or a limit that is none of those evaluated.
  [[nodiscard]] double average_precision(const CocoSelect& select = {}) const {
    return mean(select, true);
  }
  /// The same of recall.
  [[nodiscard]] double average_recall(const CocoSelect& select = {}) const {
    return mean(select, false);
  }
  /// Average precision of one class.
  [[nodiscard]] double class_precision(std::size_t k, std::optional<double> iou = {},
                                       std::string_view area = {}) const {
    return average_precision({.iou = iou, .classes = std::vector<std::size_t>{k}, .area = area});
  }

 private:
  [[nodiscard]] std::size_t threshold_of(const CocoSelect& select) const {
    return detail::place_of_threshold(options, *select.iou);
  }
  [[nodiscard]] std::size_t area_of(const CocoSelect& select) const {
    std::size_t area = 0;
    if (select.area.empty()) return area;
    while (area < options.areas.size() && options.areas[area].name != select.area) ++area;
    return area;
  }
  [[nodiscard]] std::size_t limit_of(const CocoSelect& select) const {
    return select.limit.value_or(options.max_detections.size() - 1);
  }
  /// Throws what has() says is not there.
  void check(const CocoSelect& select) const {
    static constexpr const char* function = "quern::detection::CocoResult";
    if (has(select)) return;
    if (select.iou && threshold_of(select) == options.iou_thresholds.size()) {
      throw ValueError(error_text(
          function, "iou", "one of " + detail::list_text(options.iou_thresholds), *select.iou));
    }
    if (area_of(select) == options.areas.size()) {
      std::vector<std::string> names;
      for (const AreaRange& a : options.areas) names.push_back(a.name);
      throw ValueError(error_text(function, "area", "one of " + detail::list_text(names),
                                  std::string(select.area)));
    }
    const std::size_t limits = options.max_detections.size();
    if (limit_of(select) >= limits) {
      throw ValueError(
          error_text(function, "limit", "a place below " + std::to_string(limits), *select.limit));
    }
    const auto worst = std::max_element(select.classes->begin(), select.classes->end());
    throw ValueError(error_text(function, "classes",
                                "places below " + std::to_string(categories.size()), *worst));
  }
  [[nodiscard]] std::vector<std::size_t> thresholds_of(const CocoSelect& select) const {
    if (select.iou) return {threshold_of(select)};
    std::vector<std::size_t> all(options.iou_thresholds.size());
    for (std::size_t t = 0; t < all.size(); ++t) all[t] = t;
    return all;
  }
  [[nodiscard]] std::vector<std::size_t> classes_of(const CocoSelect& select) const {
    if (select.classes) return *select.classes;
    std::vector<std::size_t> all(categories.size());
    for (std::size_t k = 0; k < all.size(); ++k) all[k] = k;
    return all;
  }

  [[nodiscard]] double mean(const CocoSelect& select, bool of_precision) const {
    check(select);
    const Index a = static_cast<Index>(area_of(select)), m = static_cast<Index>(limit_of(select));
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

/// A number of a table: -1 where its threshold, area or limit was not evaluated.
inline double stat_of(const CocoResult& result, CocoSelect select, bool precision) {
  if (select.area.empty() && result.has({.area = "all"})) select.area = "all";
  if (!result.has(select)) return -1;
  return precision ? result.average_precision(select) : result.average_recall(select);
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
    return detail::stat_of(result, std::move(s), true);
  };
  const auto ar = [&](CocoSelect s) {
    if (!s.limit) s.limit = at;
    return detail::stat_of(result, std::move(s), false);
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
    stats[0].value = detail::stat_of(result, {.limit = detail::place_of_limit(limits, 100)}, true);
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
  const auto ap = [&](const CocoSelect& s) { return detail::stat_of(result, s, true); };
  const auto ar = [&](const CocoSelect& s) { return detail::stat_of(result, s, false); };
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
