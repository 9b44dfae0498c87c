// SPDX-License-Identifier: Apache-2.0

/// \file
/// What coco_eval found out about one detector, and how it is written down.

#ifndef QUERN_EXAMPLES_COCO_EVAL_REPORT_HPP
#define QUERN_EXAMPLES_COCO_EVAL_REPORT_HPP

#include "quern/detection/bootstrap.hpp"
#include "quern/detection/coco_eval.hpp"
#include "quern/detection/confusion.hpp"
#include "quern/detection/f1.hpp"
#include "quern/detection/tide.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace coco_eval {

struct WorstImage {
  std::int64_t id = 0;
  std::string file_name;
  std::int64_t missed = 0;
  std::int64_t false_alarms = 0;
};

/// VOC's mean average precisions at IoU 0.5.
struct VocMeans {
  double all_points = 0;     ///< 2010 and later
  double eleven_points = 0;  ///< 2007
};

/// One detector.
struct Findings {
  std::string name;
  quern::detection::CocoResult result;
  std::vector<quern::detection::CocoStat> stats;
  quern::detection::MacroF1 f1;
  std::optional<quern::detection::TideResult> tide;      ///< not of key points
  std::optional<quern::detection::Confusion> confusion;  ///< the same
  std::optional<quern::detection::Interval> interval;    ///< of AP
  std::optional<VocMeans> voc;                           ///< of VOC's folders
  std::vector<WorstImage> worst;
};

struct Report {
  std::string title;
  std::vector<quern::detection::Category> categories;
  std::vector<Findings> detectors;  ///< one, or two that are compared
  std::optional<quern::detection::PairedComparison> comparison;
};

/// COCO's table, lines as its tools print them.
[[nodiscard]] std::string table(const Findings& findings);
/// "AP of B less A: ...", for the terminal.
[[nodiscard]] std::string comparison_text(const Report& report);
[[nodiscard]] std::string json(const Report& report);
[[nodiscard]] std::string html(const Report& report);

}  // namespace coco_eval

#endif  // QUERN_EXAMPLES_COCO_EVAL_REPORT_HPP
