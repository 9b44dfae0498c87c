// SPDX-License-Identifier: Apache-2.0

#include "report.hpp"

#include "quern/detection/coco_summary.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>

namespace coco_eval {
namespace {

using quern::detection::CocoResult;

template <class... T>
std::string format(const char* pattern, T... values) {
  char text[512];
  std::snprintf(text, sizeof(text), pattern, values...);
  return text;
}

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
    }
  }
  return out;
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
  std::string svg = "<svg viewBox=\"0 0 520 330\" role=\"img\" aria-label=\"precision by recall\">";
  for (int i = 0; i <= 5; ++i) {
    const double v = i / 5.0, x = 50 + 440 * v, y = 280 - 260 * v;
    svg += format("<line class=\"grid\" x1=\"50\" x2=\"490\" y1=\"%g\" y2=\"%g\"/>", y, y);
    svg += format("<text x=\"42\" y=\"%g\" text-anchor=\"end\">%.1f</text>", y + 5, v);
    svg += format("<text x=\"%g\" y=\"300\" text-anchor=\"middle\">%.1f</text>", x, v);
  }
  svg += "<text x=\"270\" y=\"322\" text-anchor=\"middle\">recall</text>";
  std::string legend;
  for (std::size_t d = 0; d < report.detectors.size(); ++d) {
    const CocoResult& r = report.detectors[d].result;
    for (std::size_t t = 0; t < r.options.iou_thresholds.size(); t += 5) {
      const auto curve = mean_curve(r, static_cast<quern::Index>(t));
      svg +=
          format("<polyline class=\"c%d%s\" points=\"", static_cast<int>(d), t > 0 ? " thin" : "");
      for (std::size_t i = 0; i < curve.size(); ++i) {
        svg += format("%.1f,%.1f ", 50 + 440 * r.options.recall_levels[i], 280 - 260 * curve[i]);
      }
      svg += "\"/>";
      legend += format(
                    "<span class=\"key\"><svg viewBox=\"0 0 28 8\"><polyline class=\"c%d%s\" "
                    "points=\"0,4 28,4\"/></svg>",
                    static_cast<int>(d), t > 0 ? " thin" : "") +
                escape(report.detectors[d].name) +
                format(", IoU %.2f</span> ", r.options.iou_thresholds[t]);
    }
  }
  return "<h2>Precision by recall</h2><p>Mean over the classes that have objects.</p>" + svg +
         "</svg><p>" + legend + "</p>";
}

std::string numbers_table(const Report& report) {
  std::string page = "<h2>Numbers</h2><table><tr><th></th>";
  for (const Findings& f : report.detectors) page += "<th>" + escape(f.name) + "</th>";
  page += "</tr>";
  for (std::size_t i = 0; i < report.detectors[0].stats.size(); ++i) {
    page += "<tr><th>" + report.detectors[0].stats[i].name + "</th>";
    for (const Findings& f : report.detectors) page += format("<td>%.4f</td>", f.stats[i].value);
    page += "</tr>";
  }
  if (report.detectors[0].voc) {
    page += "<tr><th>VOC's mean AP, all points / 11</th>";
    for (const Findings& f : report.detectors) {
      page += format("<td>%.4f / %.4f</td>", f.voc->all_points, f.voc->eleven_points);
    }
    page += "</tr>";
  }
  if (report.detectors[0].interval) {
    page += "<tr><th>AP, 95 % interval</th>";
    for (const Findings& f : report.detectors) {
      page += format("<td>%.4f … %.4f</td>", f.interval->low, f.interval->high);
    }
    page += "</tr>";
  }
  page += "<tr><th>best macro F1 (IoU 0.5)</th>";
  for (const Findings& f : report.detectors) {
    page += format("<td>%.4f at score %.4g</td>", f.f1.f1, f.f1.score);
  }
  return page + "</tr></table>";
}

std::string errors_table(const Report& report) {
  if (!report.detectors[0].tide) return "";
  std::string page =
      "<h2>What costs AP</h2><p>What AP at IoU 0.5 would gain were one kind of error mended "
      "(TIDE), and how many there are.</p><table><tr><th></th>";
  for (const Findings& f : report.detectors) {
    page += "<th class=\"left\" colspan=\"3\">" + escape(f.name) + "</th>";
  }
  page += "</tr>";
  for (std::size_t e = 0; e < quern::detection::tide_errors; ++e) {
    page += std::string("<tr><th>") + quern::detection::tide_names[e] + "</th>";
    for (std::size_t d = 0; d < report.detectors.size(); ++d) {
      const auto& split = *report.detectors[d].tide;
      page += format(
          "<td>%lld</td><td>%+.4f</td><td class=\"left\"><span class=\"bar c%d\" "
          "style=\"width:%.0fpx\"></span></td>",
          static_cast<long long>(split.count[e]), split.gain[e], static_cast<int>(d),
          1 + 300 * (std::max)(0.0, split.gain[e]));
    }
    page += "</tr>";
  }
  return page + "</table>";
}

std::string classes_table(const Report& report) {
  const CocoResult& first = report.detectors[0].result;
  std::string page = "<h2>Classes</h2><table><tr><th>class</th><th>objects</th>";
  for (const Findings& f : report.detectors) {
    page += "<th>AP " + escape(f.name) + "</th><th>AP50</th><th>precision</th><th>recall</th>";
  }
  page += "</tr>";
  for (std::size_t k = 0; k < first.categories.size(); ++k) {
    if (first.truths[k] == 0) continue;
    page += "<tr><th>" + escape(name_of(report, first.categories[k])) +
            format("</th><td>%lld</td>", static_cast<long long>(first.truths[k]));
    for (const Findings& f : report.detectors) {
      page += format("<td>%.4f</td><td>%.4f</td><td>%.3f</td><td>%.3f</td>",
                     f.result.class_precision(k), f.result.class_precision(k, 0.5),
                     f.f1.class_precision[k], f.f1.class_recall[k]);
    }
    page += "</tr>";
  }
  return page + "</table>";
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
  std::string page =
      "<div><h3>Confused</h3><table><tr><th class=\"left\">is</th><th "
      "class=\"left\">was called</th><th>times</th></tr>";
  for (const Cell& cell : cells) {
    page += "<tr><th>" + (cell.row == background ? std::string("nothing") : name(cell.row)) +
            "</th><th>" + (cell.col == background ? std::string("(missed)") : name(cell.col)) +
            format("</th><td>%lld</td></tr>", static_cast<long long>(cell.count));
  }
  return page + "</table></div>";
}

std::string worst_table(const Findings& f) {
  const bool files = std::any_of(f.worst.begin(), f.worst.end(),
                                 [](const WorstImage& w) { return !w.file_name.empty(); });
  std::string page = "<div><h3>Worst images</h3><table><tr><th>image</th>";
  page += std::string(files ? "<th class=\"left\">file</th>" : "") +
          "<th>missed</th><th>false alarms</th></tr>";
  for (const WorstImage& w : f.worst) {
    page += format("<tr><td>%lld</td>", static_cast<long long>(w.id));
    if (files) page += "<th>" + escape(w.file_name) + "</th>";
    page += format("<td>%lld</td><td>%lld</td></tr>", static_cast<long long>(w.missed),
                   static_cast<long long>(w.false_alarms));
  }
  return page + "</table></div>";
}

constexpr const char* kStyle = R"(<style>
:root{color-scheme:light dark;--ink:#1f2328;--page:#fff;--line:#d5d9de;--c0:#0b66c3;--c1:#c2570c}
@media(prefers-color-scheme:dark){:root{--ink:#e7e9ec;--page:#16191d;--line:#3a4049;--c0:#63adf5;--c1:#f0954d}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:960px;margin:0 auto;padding:24px 16px}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin:32px 0 8px}table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{padding:3px 16px 3px 0;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}tr:first-child>th:not(:first-child){white-space:normal;overflow-wrap:anywhere;vertical-align:bottom}@media(max-width:600px){th,td{white-space:normal;padding-right:10px}}
th{font-weight:500}tr>th:first-child,tr>th:not(tr:first-child>*),.left{text-align:left}
h3{font-size:1rem;margin:16px 0 4px}.side{display:flex;flex-wrap:wrap;gap:0 64px}.side>div{max-width:100%}
svg{max-width:640px;width:100%;height:auto}svg text{fill:var(--ink);font-size:13px}.grid{stroke:var(--line)}
polyline{fill:none;stroke-width:2.5}polyline.thin{stroke-width:1.2}polyline.c0{stroke:var(--c0)}polyline.c1{stroke:var(--c1)}
.key{display:inline-block;margin-right:24px}.key svg{width:28px;height:8px;margin-right:8px}
.bar{display:inline-block;height:.7em}.bar.c0{background:var(--c0)}.bar.c1{background:var(--c1)}
</style>)";

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
  std::string page =
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\"><title>" +
      escape(report.title) + "</title>" + kStyle + "</head><body><h1>" + escape(report.title) +
      "</h1>";
  if (report.comparison) page += "<p>" + escape(comparison_text(report)) + "</p>";
  page += numbers_table(report) + curves(report) + errors_table(report);
  for (const Findings& f : report.detectors) {
    page +=
        "<h2>Mistakes of " + escape(f.name) +
        "</h2><p>The commonest, among detections of at least the score of the best F1; the JSON "
        "file has the whole matrix.</p><div class=\"side\">" +
        confusion_table(report, f) + worst_table(f) + "</div>";
  }
  return page + classes_table(report) + "</body></html>\n";
}

}  // namespace coco_eval
