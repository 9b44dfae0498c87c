// SPDX-License-Identifier: Apache-2.0

/// \file
/// COCO's numbers as the lines that COCO's own tools print.

#ifndef QUERN_DETECTION_COCO_SUMMARY_HPP
#define QUERN_DETECTION_COCO_SUMMARY_HPP

#include "quern/core/config.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/coco_result.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

namespace detail {

/// "0.50:0.95", or "0.50" where there is one threshold.
inline std::string iou_text(const CocoOptions& o, std::string_view stat) {
  std::array<char, 64> text{};
  if (stat.substr(2, 2) == "50" || stat.substr(2, 2) == "75") {
    return stat.substr(2, 2) == "50" ? "0.50" : "0.75";
  }
  const double first = o.iou_thresholds.front(), last = o.iou_thresholds.back();
  std::snprintf(text.data(), text.size(), first == last ? "%.2f" : "%.2f:%.2f", first, last);
  return text.data();
}

/// The area (or, for LVIS, the frequency) that the letter after AP or AR stands for.
inline std::string_view area_text(std::string_view stat) {
  const char c = stat.size() > 2 ? stat[2] : '@';
  return c == 's'   ? "small"
         : c == 'm' ? "medium"
         : c == 'l' ? "large"
         : c == 'r' ? "rare"
         : c == 'c' ? "common"
         : c == 'f' ? "freq."
                    : "all";
}

}  // namespace detail

/// A line a number, of coco_stats() or lvis_stats():
///
///      Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.505
[[nodiscard]] inline std::string coco_summary(const CocoResult& result,
                                              std::span<const CocoStat> stats) {
  std::string lines;
  const std::vector<std::int64_t>& limits = result.options.max_detections;
  const std::size_t place = detail::limit_of_stats(result.options);
  const std::string main = place < limits.size() ? std::to_string(limits[place]) : "20";
  for (const CocoStat& s : stats) {
    const std::string_view name = s.name;
    const std::size_t at = name.find('@');
    const std::string limit =
        at == std::string_view::npos ? main : std::string(name.substr(at + 1));
    const bool recall = name.substr(0, 2) == "AR";
    std::array<char, 160> line{};
    std::snprintf(line.data(), line.size(),
                  " Average %-9s  (%s) @[ IoU=%-9s | area=%6s | maxDets=%3s ] = %.3f\n",
                  recall ? "Recall" : "Precision", recall ? "AR" : "AP",
                  detail::iou_text(result.options, name).c_str(),
                  std::string(detail::area_text(name)).c_str(), limit.c_str(), s.value);
    lines += line.data();
  }
  return lines;
}
/// Of COCO's 12 numbers (10 for key points).
[[nodiscard]] inline std::string coco_summary(const CocoResult& result) {
  return coco_summary(result, coco_stats(result));
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_COCO_SUMMARY_HPP
