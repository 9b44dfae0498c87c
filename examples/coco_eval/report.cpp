// SPDX-License-Identifier: Apache-2.0

#include "report.hpp"

#include "../common/page.hpp"

#include "quern/detection/coco_summary.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace coco_eval {
namespace {

using page::escape;
using page::format;
using quern::detection::CocoResult;

std::string section(const std::string& title, const std::string& text, const std::string& body) {
  return "<section><h2>" + title + "</h2>" + (text.empty() ? "" : "<p>" + text + "</p>") + body +
         "</section>\n";
}

std::string name_of(const Report& report, std::int64_t id) {
  for (const auto& c : report.categories) {
    if (c.id == id) return c.name.empty() ? std::to_string(id) : c.name;
  }
  return id == -1 ? "all" : std::to_string(id);
}

/// Precision at one threshold, averaged over the classes that have objects, by recall level.
std::vector<double> mean_curve(const CocoResult& r, quern::Index t) {
  std::vector<double> curve;
  const quern::Index last = r.precision.extent(4) - 1;
  for (quern::Index level = 0; level < r.precision.extent(1); ++level) {
    double sum = 0, count = 0;
    for (quern::Index k = 0; k < r.precision.extent(2); ++k) {
      const double p = r.precision(t, level, k, 0, last);
      if (p > -1) sum += p, ++count;
    }
    curve.push_back(count > 0 ? sum / count : 0);
  }
  return curve;
}

std::string curves(const Report& report) {
  page::Chart chart{.title = "Precision by recall", .x_name = "recall", .y_name = "precision"};
  for (const Findings& f : report.detectors) {
    const auto& thresholds = f.result.options.iou_thresholds;
    for (std::size_t t = 0; t < thresholds.size(); t += 5)
      chart.series.push_back({.name = f.name + format(", IoU %.2f", thresholds[t]),
                              .x = f.result.options.recall_levels,
                              .y = mean_curve(f.result, static_cast<quern::Index>(t))});
  }
  return section("Precision", "Mean over the classes that have objects.", page::svg(chart));
}

std::string numbers_table(const Report& report) {
  std::string out = "<div class=\"wide\"><table><tr><th></th>";
  for (const Findings& f : report.detectors) out += "<th>" + escape(f.name) + "</th>";
  out += "</tr>";
  for (std::size_t i = 0; i < report.detectors[0].stats.size(); ++i) {
    out += "<tr><th>" + report.detectors[0].stats[i].name + "</th>";
    for (const Findings& f : report.detectors) out += format("<td>%.4f</td>", f.stats[i].value);
    out += "</tr>";
  }
  if (report.detectors[0].voc) {
    out += "<tr><th>VOC's mean AP, all points / 11</th>";
    for (const Findings& f : report.detectors) {
      out += format("<td>%.4f / %.4f</td>", f.voc->all_points, f.voc->eleven_points);
    }
    out += "</tr>";
  }
  if (report.detectors[0].interval) {
    out += "<tr><th>AP, 95 % interval</th>";
    for (const Findings& f : report.detectors) {
      out += format("<td>%.4f … %.4f</td>", f.interval->low, f.interval->high);
    }
    out += "</tr>";
  }
  out += "<tr><th>best macro F1 (IoU 0.5)</th>";
  for (const Findings& f : report.detectors) {
    out += format("<td>%.4f at score %.4g</td>", f.f1.f1, f.f1.score);
  }
  return section("Numbers", "", out + "</tr></table></div>");
}

std::string errors_table(const Report& report) {
  if (!report.detectors[0].tide) return "";
  std::string out = "<div class=\"wide\"><table><tr><th></th>";
  for (const Findings& f : report.detectors) {
    out += "<th class=\"left\" colspan=\"3\">" + escape(f.name) + "</th>";
  }
  out += "</tr>";
  for (std::size_t e = 0; e < quern::detection::tide_errors; ++e) {
    out += std::string("<tr><th>") + quern::detection::tide_names[e] + "</th>";
    for (std::size_t d = 0; d < report.detectors.size(); ++d) {
      const auto& split = *report.detectors[d].tide;
      out += format(
          "<td>%lld</td><td>%+.4f</td><td class=\"left\"><span class=\"bar c%d\" "
          "style=\"width:%.0fpx\"></span></td>",
          static_cast<long long>(split.count[e]), split.gain[e], static_cast<int>(d),
          1 + 300 * (std::max)(0.0, split.gain[e]));
    }
    out += "</tr>";
  }
  return section("What costs AP",
                 "What AP at IoU 0.5 would gain were one kind of error mended (TIDE), and how many "
                 "there are.",
                 out + "</table></div>");
}

std::string classes_table(const Report& report) {
  const CocoResult& first = report.detectors[0].result;
  std::string out = "<div class=\"wide\"><table><tr><th>class</th><th>objects</th>";
  for (const Findings& f : report.detectors) {
    out += "<th>AP " + escape(f.name) + "</th><th>AP50</th><th>precision</th><th>recall</th>";
  }
  out += "</tr>";
  for (std::size_t k = 0; k < first.categories.size(); ++k) {
    if (first.truths[k] == 0) continue;
    out += "<tr><th>" + escape(name_of(report, first.categories[k])) +
           format("</th><td>%lld</td>", static_cast<long long>(first.truths[k]));
    for (const Findings& f : report.detectors) {
      out += format("<td>%.4f</td><td>%.4f</td><td>%.3f</td><td>%.3f</td>",
                    f.result.class_precision(k), f.result.class_precision(k, 0.5),
                    f.f1.class_precision[k], f.f1.class_recall[k]);
    }
    out += "</tr>";
  }
  return section("Classes", "", out + "</table></div>");
}

/// The commonest confusions: a matrix of eighty classes is for machines.
std::string confusion_table(const Report& report, const Findings& f) {
  if (!f.confusion) return "";
  const auto& c = *f.confusion;
  const quern::Index background = static_cast<quern::Index>(c.categories.size());
  const auto name = [&](quern::Index i) {
    return i == background ? std::string("background")
                           : escape(name_of(report, c.categories[static_cast<std::size_t>(i)]));
  };
  struct Cell {
    std::int64_t count;
    quern::Index row, col;
  };
  std::vector<Cell> cells;
  for (quern::Index i = 0; i <= background; ++i) {
    for (quern::Index j = 0; j <= background; ++j) {
      if (i != j && c.counts(i, j) > 0) cells.push_back({c.counts(i, j), i, j});
    }
  }
  std::stable_sort(cells.begin(), cells.end(),
                   [](const Cell& a, const Cell& b) { return a.count > b.count; });
  if (cells.size() > 20) cells.resize(20);
  std::string out =
      "<div><h3>Confused</h3><div class=\"wide\"><table><tr><th class=\"left\">is</th><th "
      "class=\"left\">was called</th><th>times</th></tr>";
  for (const Cell& cell : cells) {
    out += "<tr><th>" + (cell.row == background ? std::string("nothing") : name(cell.row)) +
           "</th><th>" + (cell.col == background ? std::string("(missed)") : name(cell.col)) +
           format("</th><td>%lld</td></tr>", static_cast<long long>(cell.count));
  }
  return out + "</table></div></div>";
}

std::string worst_table(const Findings& f) {
  const bool files = std::any_of(f.worst.begin(), f.worst.end(),
                                 [](const WorstImage& w) { return !w.file_name.empty(); });
  std::string out = "<div><h3>Worst images</h3><div class=\"wide\"><table><tr><th>image</th>";
  out += std::string(files ? "<th class=\"left\">file</th>" : "") +
         "<th>missed</th><th>false alarms</th></tr>";
  for (const WorstImage& w : f.worst) {
    out += format("<tr><td>%lld</td>", static_cast<long long>(w.id));
    if (files) out += "<th>" + escape(w.file_name) + "</th>";
    out += format("<td>%lld</td><td>%lld</td></tr>", static_cast<long long>(w.missed),
                  static_cast<long long>(w.false_alarms));
  }
  return out + "</table></div></div>";
}

constexpr const char* style = R"(
td { white-space: nowrap; }
th { font-weight: 500; color: inherit; vertical-align: bottom; }
tr > th:first-child, tr > th:not(tr:first-child > *), .left { text-align: left; }
tr:first-child > th:not(:first-child) { max-width: 16ch; overflow-wrap: break-word; }
.side { display: flex; flex-wrap: wrap; gap: 0 64px; } .side > div { max-width: 100%; }
.bar { display: inline-block; height: .7em; }
.bar.c0 { background: var(--c0); } .bar.c1 { background: var(--c1); }
)";

}  // namespace

std::string table(const Findings& findings) {
  std::string text = quern::detection::coco_summary(findings.result, findings.stats);
  if (findings.voc) {
    text += format(" VOC's mean AP at IoU 0.5: %.4f (all points), %.4f (11 points)\n",
                   findings.voc->all_points, findings.voc->eleven_points);
  }
  if (findings.interval) {
    text += format(" 95 %% interval of AP over images: %.4f ... %.4f\n", findings.interval->low,
                   findings.interval->high);
  }
  return text +
         format(" Best macro F1 at IoU 0.5: %.3f at score %.4g (precision %.3f, recall %.3f)\n",
                findings.f1.f1, findings.f1.score, findings.f1.precision, findings.f1.recall);
}

std::string comparison_text(const Report& report) {
  if (!report.comparison) return "";
  const auto& c = *report.comparison;
  const std::string &a = report.detectors[0].name, &b = report.detectors[1].name;
  return "AP of " + b + " less that of " + a +
         format(": %+.4f, 95 %% interval %+.4f ... %+.4f; ", c.difference.value, c.difference.low,
                c.difference.high) +
         b + format(" is better in %.1f %% of resampled sets of images\n", 100 * c.second_better);
}

std::string json(const Report& report) {
  nlohmann::ordered_json out;
  for (const Findings& f : report.detectors) {
    nlohmann::ordered_json d;
    d["name"] = f.name;
    d["images"] = f.result.images;
    d["detections"] = f.result.detections;
    for (const auto& s : f.stats) d["stats"][s.name] = s.value;
    d["f1"] = {{"score", f.f1.score},
               {"f1", f.f1.f1},
               {"precision", f.f1.precision},
               {"recall", f.f1.recall}};
    if (f.voc) d["voc"] = {{"all_points", f.voc->all_points}, {"11_points", f.voc->eleven_points}};
    if (f.interval) d["ap_interval"] = {f.interval->low, f.interval->high};
    for (std::size_t k = 0; k < f.result.categories.size(); ++k) {
      d["classes"].push_back({{"id", f.result.categories[k]},
                              {"name", name_of(report, f.result.categories[k])},
                              {"objects", f.result.truths[k]},
                              {"AP", f.result.class_precision(k)},
                              {"AP50", f.result.class_precision(k, 0.5)}});
    }
    if (f.tide) {
      for (std::size_t e = 0; e < quern::detection::tide_errors; ++e) {
        d["errors"][quern::detection::tide_names[e]] = {{"count", f.tide->count[e]},
                                                        {"gain", f.tide->gain[e]}};
      }
    }
    if (f.confusion) {
      const quern::Index n = f.confusion->counts.extent(0);
      for (quern::Index i = 0; i < n; ++i) {
        const std::int64_t* row = f.confusion->counts.data() + i * n;
        d["confusion"].push_back(std::vector<std::int64_t>(row, row + n));
      }
    }
    for (const WorstImage& w : f.worst) {
      d["worst_images"].push_back({{"id", w.id},
                                   {"file_name", w.file_name},
                                   {"missed", w.missed},
                                   {"false_alarms", w.false_alarms}});
    }
    out["detectors"].push_back(d);
  }
  if (report.comparison) {
    const auto& c = *report.comparison;
    out["comparison"] = {{"difference", c.difference.value},
                         {"low", c.difference.low},
                         {"high", c.difference.high},
                         {"second_better", c.second_better}};
  }
  return out.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string html(const Report& report) {
  std::string body;
  if (report.comparison) body += "<p>" + escape(comparison_text(report)) + "</p>";
  body += numbers_table(report) + curves(report) + errors_table(report);
  for (const Findings& f : report.detectors) {
    body += section(
        "Mistakes of " + escape(f.name),
        "The commonest, among detections of at least the score of the best F1; the JSON file has "
        "the whole matrix.",
        "<div class=\"side\">" + confusion_table(report, f) + worst_table(f) + "</div>");
  }
  return page::document(report.title, body + classes_table(report), style);
}

}  // namespace coco_eval
