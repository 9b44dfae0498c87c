// SPDX-License-Identifier: Apache-2.0

/// \file
/// A self-contained page of text, tables and line charts (SVG): no script, nothing fetched, colours
/// follow the reader's light or dark mode. For examples.

#ifndef QUERN_EXAMPLES_COMMON_PAGE_HPP
#define QUERN_EXAMPLES_COMMON_PAGE_HPP

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace page {

/// printf to a string.
__attribute__((format(printf, 1, 2))) inline std::string format(const char* pattern, ...) {
  va_list arguments, again;
  va_start(arguments, pattern);
  va_copy(again, arguments);
  std::string text(static_cast<std::size_t>(std::vsnprintf(nullptr, 0, pattern, arguments)), 0);
  std::vsnprintf(text.data(), text.size() + 1, pattern, again);
  va_end(again);
  va_end(arguments);
  return text;
}

/// Text for an element or a quoted attribute: names come from files and may hold anything.
inline std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
    }
  }
  return out;
}

inline std::string number(double x, const char* pattern = "%.4g") {
  char text[48];
  std::snprintf(text, sizeof text, pattern, x);
  return text;
}

/// A line of a chart. Points that are not finite, or not positive on a logarithmic axis, are gaps.
struct Series {
  std::string name;
  std::vector<double> x, y;
};

struct Chart {
  std::string title, x_name, y_name;
  bool log_x = false, log_y = false;
  std::vector<Series> series = {};
  std::vector<std::pair<std::string, double>> levels =
      {};  ///< dashed lines: what should be reached
};

struct Table {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
};

/// A picture with words below it: a file beside the page, or a data URI.
struct Picture {
  std::string words, uri;
};

struct Section {
  std::string title, text;
  Table table = {};
  std::vector<Chart> charts = {};
  std::vector<Picture> pictures = {};
};

namespace detail {

constexpr std::size_t colours = 8;

/// One axis of a chart: values to pixels, and where its labels are.
struct Axis {
  bool log = false;
  double low = 0, high = 1, from = 0, to = 1;

  [[nodiscard]] bool shows(double v) const { return std::isfinite(v) && (!log || v > 0); }
  [[nodiscard]] double at(double v) const {
    return from + (to - from) * ((log ? std::log10(v) : v) - low) / (high - low);
  }
  void fit(const std::vector<double>& values) {
    low = (std::numeric_limits<double>::max)();
    high = -low;
    for (const double v : values) {
      if (!shows(v)) continue;
      const double t = log ? std::log10(v) : v;
      low = (std::min)(low, t);
      high = (std::max)(high, t);
    }
    if (low > high) low = 0, high = 1;
    if (high - low < 1e-12) high += 1, low -= 1;
  }
  [[nodiscard]] std::vector<double> labels() const {
    std::vector<double> out;
    if (log && high - low >= 1 && high - low < 2.5) {  // 1, 2 and 5 of each decade
      for (double e = std::floor(low); e <= high; ++e) {
        for (const double f : {1.0, 2.0, 5.0}) {
          const double v = f * std::pow(10.0, e), t = std::log10(v);
          if (t >= low - 1e-9 && t <= high + 1e-9) out.push_back(v);
        }
      }
      return out;
    }
    if (log && high - low >= 1) {
      const double step = std::ceil((high - low) / 6);
      for (double e = std::ceil(low - 1e-9); e <= high + 1e-9; e += step)
        out.push_back(std::pow(10.0, e));
      return out;
    }
    const double raw = (high - low) / 4, power = std::pow(10.0, std::floor(std::log10(raw)));
    double step = 10 * power;
    for (const double f : {5.0, 2.0, 1.0}) step = f * power >= raw ? f * power : step;
    for (double v = std::ceil(low / step) * step; v <= high + step * 1e-9; v += step)
      out.push_back(log ? std::pow(10.0, v) : std::fabs(v) < step * 1e-9 ? 0.0 : v);
    return out;
  }
};

inline std::string line(const char* css, double x1, double y1, double x2, double y2) {
  char text[160];
  std::snprintf(text, sizeof text,
                "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", css, x1, y1,
                x2, y2);
  return text;
}
inline std::string label(const char* anchor, double x, double y, const std::string& text) {
  char head[96];
  std::snprintf(head, sizeof head, "<text text-anchor=\"%s\" x=\"%.1f\" y=\"%.1f\">", anchor, x, y);
  return head + escape(text) + "</text>";
}

inline std::string curve(const Series& s, const Axis& x, const Axis& y, std::size_t colour) {
  std::string path;
  bool pen = false;
  for (std::size_t i = 0; i < s.x.size() && i < s.y.size(); ++i) {
    if (!x.shows(s.x[i]) || !y.shows(s.y[i])) {
      pen = false;
      continue;
    }
    path += (pen ? "L" : "M") + number(x.at(s.x[i]), "%.1f") + " " + number(y.at(s.y[i]), "%.1f");
    pen = true;
  }
  return "<path class=\"curve c" + std::to_string(colour % colours) + "\" d=\"" + path + "\"/>";
}

}  // namespace detail

/// The style of every example's page.
inline const char* style() {
  return R"(
:root { color-scheme: light dark; --page: #f6f5f2; --card: #fff; --ink: #1f2328; --soft: #646b75;
  --line: #dcdad4; --c0: #0b66c3; --c1: #c8502a; --c2: #2c8a4b; --c3: #8a4fb8; --c4: #b58a00;
  --c5: #5b6673; --c6: #c43b86; --c7: #16899a; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2126; --ink: #e7e9ec;
  --soft: #9aa3ae; --line: #343a42; --c0: #63adf5; --c1: #f08a63; --c2: #62c585; --c3: #c092e8;
  --c4: #e0b93c; --c5: #9aa7b5; --c6: #ee83bb; --c7: #4fc3d3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 16px 48px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 16px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 6px; }
h3 { font-size: 1rem; margin: 0 0 6px; font-weight: 600; }
p { margin: 0 0 14px; max-width: 75ch; white-space: pre-line; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 20px; margin: 0 0 18px; }
.charts { display: grid; gap: 20px;
  grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr)); }
figure { margin: 0; max-width: 620px; }
.soft { color: var(--soft); } .small { font-size: .875rem; }
.sheet { display: block; width: 100%; image-rendering: pixelated; }
.picture { max-width: 100%; margin: 12px 0 0; }
.picture img { max-width: 100%; image-rendering: pixelated; border-radius: 6px; }
figcaption { color: var(--soft); font-size: .875rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 13px; font-family: inherit; }
.grid { stroke: var(--line); stroke-width: 1; }
.level { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.c6 { stroke: var(--c6); } .c7 { stroke: var(--c7); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: .875rem; color: var(--soft); }
.legend svg { display: inline-block; width: 22px; height: 8px; margin-right: 6px; }
.wide { overflow-x: auto; margin: 0 0 14px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 600; }
)";
}

/// A line in each curve's colour, with its name: the inside of a legend.
inline std::string keys(const std::vector<std::string>& names) {
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i)
    out += "<span><svg viewBox=\"0 0 22 8\"><path class=\"curve c" +
           std::to_string(i % detail::colours) + "\" d=\"M0 4L22 4\"/></svg>" + escape(names[i]) +
           "</span>";
  return out;
}

/// The chart as SVG with a legend below.
inline std::string svg(const Chart& chart) {
  detail::Axis x{.log = chart.log_x, .from = 62, .to = 508},
      y{.log = chart.log_y, .from = 252, .to = 12};
  std::vector<double> xs, ys;
  for (const Series& s : chart.series) {
    xs.insert(xs.end(), s.x.begin(), s.x.end());
    ys.insert(ys.end(), s.y.begin(), s.y.end());
  }
  for (const auto& [name, level] : chart.levels) ys.push_back(level);
  x.fit(xs);
  y.fit(ys);
  std::string out = "<figure><h3>" + escape(chart.title) +
                    "</h3><svg viewBox=\"0 0 520 300\" role=\"img\" aria-label=\"" +
                    escape(chart.title) + "\">";
  for (const double v : y.labels()) {
    out += detail::line("grid", x.from, y.at(v), x.to, y.at(v));
    out += detail::label("end", x.from - 7, y.at(v) + 4, number(v, "%.6g"));
  }
  for (const double v : x.labels()) {
    // What would reach beyond the picture ends at its edge.
    const bool last = x.at(v) > x.to - 12;
    out += detail::label(last ? "end" : "middle", last ? 518 : x.at(v), 270, number(v, "%.6g"));
  }
  out += detail::label("middle", 0.5 * (x.from + x.to), 292, chart.x_name + ", " + chart.y_name);
  for (const auto& [name, level] : chart.levels)
    if (y.shows(level)) out += detail::line("level", x.from, y.at(level), x.to, y.at(level));
  for (std::size_t i = 0; i < chart.series.size(); ++i)
    out += detail::curve(chart.series[i], x, y, i);
  std::vector<std::string> names;
  for (const Series& series : chart.series) names.push_back(series.name);
  out += "</svg><div class=\"legend\">" + keys(names);
  for (const auto& [name, level] : chart.levels)
    out += "<span><svg viewBox=\"0 0 22 8\">" + detail::line("level", 0, 4, 22, 4) + "</svg>" +
           escape(name) + "</span>";
  return out + "</div></figure>\n";
}

/// A whole page: \p body is HTML, \p more_style follows the common one.
inline std::string document(const std::string& title, const std::string& body,
                            std::string_view more_style = "") {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>" +
         escape(title) + "</title><style>" + style() + std::string(more_style) +
         "</style></head><body><main>\n<h1>" + escape(title) + "</h1>\n" + body +
         "</main></body></html>\n";
}

inline std::string body(const std::vector<Section>& sections) {
  std::string out;
  for (const Section& s : sections) {
    out += "<section><h2>" + escape(s.title) + "</h2><p>" + escape(s.text) + "</p>\n";
    if (!s.table.rows.empty()) {
      out += "<div class=\"wide\"><table><tr>";
      for (const std::string& cell : s.table.head) out += "<th>" + escape(cell) + "</th>";
      for (const auto& row : s.table.rows) {
        out += "</tr>\n<tr>";
        for (const std::string& cell : row) out += "<td>" + escape(cell) + "</td>";
      }
      out += "</tr></table></div>\n";
    }
    out += "<div class=\"charts\">";
    for (const Chart& chart : s.charts) out += svg(chart);
    out += "</div>";
    for (const Picture& picture : s.pictures) {
      out += "<figure class=\"picture\"><img src=\"" + escape(picture.uri) + "\" alt=\"" +
             escape(picture.words) + "\"><figcaption>" + escape(picture.words) +
             "</figcaption></figure>";
    }
    out += "</section>\n";
  }
  return out;
}

inline std::string html(const std::string& title, const std::vector<Section>& sections) {
  return document(title, body(sections));
}

inline void write(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

/// The section for a terminal: title, text and table.
inline void print(const Section& s) {
  std::printf("\n%s\n%s\n", s.title.c_str(), s.text.c_str());
  std::vector<std::size_t> width(s.table.head.size());
  const auto widen = [&](const std::vector<std::string>& row) {
    for (std::size_t i = 0; i < row.size() && i < width.size(); ++i)
      width[i] = (std::max)(width[i], row[i].size());
  };
  widen(s.table.head);
  for (const auto& row : s.table.rows) widen(row);
  const auto put = [&](const std::vector<std::string>& row) {
    for (std::size_t i = 0; i < row.size() && i < width.size(); ++i) {
      const int w = static_cast<int>(width[i]);
      std::printf(i == 0 ? "  %-*s" : "  %*s", w, row[i].c_str());
    }
    std::printf("\n");
  };
  if (s.table.rows.empty()) return;
  put(s.table.head);
  for (const auto& row : s.table.rows) put(row);
}

}  // namespace page

#endif  // QUERN_EXAMPLES_COMMON_PAGE_HPP
