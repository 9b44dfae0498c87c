// SPDX-License-Identifier: Apache-2.0

#include "report.hpp"

#include "../common/page.hpp"

#include <algorithm>

namespace ensembles {
namespace {

using page::format;

constexpr const char* style = R"(
:root { --a: #8a93a0; --b: #0b66c3; }
@media (prefers-color-scheme: dark) { :root { --a: #6d7683; --b: #63adf5; } }
svg { max-width: 760px; }
table { width: 100%; }
th, td { white-space: nowrap; }
th:first-child, td:first-child { white-space: normal; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 18px; }
.a { fill: var(--a); } .b { fill: var(--b); } .thin { fill-opacity: .45; }
.rule { stroke: var(--line); } .mark { stroke: var(--b); stroke-width: 2.5; }
)";

std::string size_text(double bytes) {
  return bytes < 1e6 ? format("%.0f kB", bytes / 1e3) : format("%.1f MB", bytes / 1e6);
}

std::string table(const std::vector<Result>& results) {
  std::string out =
      "<div class=wide><table><tr><th>method</th><th>accuracy</th><th>fit, s</th><th>predict, µs a "
      "row</th>"
      "<th>size</th></tr>";
  for (const Result& r : results)
    out += "<tr><td>" + r.method + " <span class=\"soft small\">" + r.made_of + "</span></td>" +
           format("<td>%.4f</td><td>%.2f</td><td>%.1f</td><td>", r.accuracy, r.fit, r.predict) +
           size_text(r.size) + "</td></tr>";
  return out + "</table></div>";
}

/// Errors as bars: a short bar is a good method.
std::string error_bars(const std::vector<Result>& results) {
  double most = 0.01;
  for (const Result& r : results) most = (std::max)(most, 1 - r.accuracy);
  std::string out = format("<svg viewBox=\"0 0 760 %zu\" role=img aria-label=\"test errors\">",
                           results.size() * 26 + 8);
  double y = 4;
  for (const Result& r : results) {
    const double width = 480 * (1 - r.accuracy) / most;
    out += format("<text x=150 y=%.0f text-anchor=end>%s</text>", y + 15, r.method.c_str());
    out += format("<rect class=b x=160 y=%.0f width=%.1f height=18 rx=3></rect>", y, width);
    out +=
        format("<text x=%.1f y=%.0f>%.2f %%</text>", 168 + width, y + 15, 100 * (1 - r.accuracy));
    y += 26;
  }
  return out + "</svg>";
}

/// Bias below, variance above; a single tree beside the bag.
std::string split_bars(const Statistical& s) {
  double most = 0;
  for (const Split& v : s.single) most = (std::max)(most, v.bias + v.variance);
  std::string out = "<svg viewBox=\"0 0 760 250\" role=img aria-label=\"bias and variance\">";
  const auto bar = [&](double x, const Split& v, char kind) {
    const double bias = 190 * v.bias / most, variance = 190 * v.variance / most;
    out += format("<rect class=%c x=%.0f y=%.1f width=44 height=%.1f></rect>", kind, x, 214 - bias,
                  bias);
    out += format("<rect class=\"%c thin\" x=%.0f y=%.1f width=44 height=%.1f></rect>", kind, x,
                  214 - bias - variance, variance);
    out += format("<text x=%.0f y=%.1f text-anchor=middle>%.3f</text>", x + 22,
                  208 - bias - variance, v.bias + v.variance);
  };
  for (std::size_t i = 0; i < s.rows.size(); ++i) {
    const double x = 20 + 148 * static_cast<double>(i);
    bar(x, s.single[i], 'a');
    bar(x + 56, s.bagged[i], 'b');
    out += format("<text x=%.0f y=236 text-anchor=middle>%lld rows</text>", x + 50,
                  static_cast<long long>(s.rows[i]));
  }
  return out + "<line class=rule x1=0 x2=760 y1=214 y2=214></line></svg>";
}

/// A dot for every start, a line for all of them together.
std::string start_dots(const Computational& c) {
  const double low = (std::min)(0.5, c.starts.front());
  const auto column = [&](double v) {
    return static_cast<std::size_t>(79 * (v - low) / (1 - low));
  };
  std::vector<int> columns(80);
  int highest = 0;
  for (const double v : c.starts) highest = (std::max)(highest, ++columns[column(v)]);
  const double step = (std::min)(9.0, 84.0 / highest);
  columns.assign(80, 0);
  const auto at = [&](double v) { return 30 + 700 * (v - low) / (1 - low); };
  std::string out =
      "<svg viewBox=\"0 0 760 150\" role=img aria-label=\"accuracy by start\">"
      "<line class=rule x1=30 x2=730 y1=120 y2=120></line>";
  for (const double v : c.starts)
    out += format("<circle class=a cx=%.1f cy=%.1f r=4></circle>", at(v),
                  112 - step * columns[column(v)]++);
  for (double v = 0.5; v < 1.001; v += 0.1)
    out += format("<text x=%.1f y=140 text-anchor=middle>%.1f</text>", at(v), v);
  const double x = at(c.together);
  out += format("<line class=mark x1=%.1f x2=%.1f y1=20 y2=120></line>", x, x);
  return out + format("<text x=%.1f y=16 text-anchor=%s>together %.3f</text></svg>", x,
                      x > 680 ? "end" : "middle", c.together);
}

std::string surface(const Representational::Picture& picture, int side) {
  std::string out = format(
      "<figure><svg viewBox=\"0 0 %d %d\" role=img"
      " shape-rendering=crispEdges>",
      side, side);
  for (int y = 0; y < side; ++y) {
    for (int x = 0, end = 0; x < side; x = end) {  // runs of one colour are one rectangle
      const auto shade = [&](int i) {
        const float p = picture.above[static_cast<std::size_t>(y * side + i)];
        return static_cast<int>((std::clamp)((p - 0.5f) * 4 + 0.5f, 0.0f, 1.0f) * 15);
      };
      for (end = x; end < side && shade(end) == shade(x); ++end) continue;
      out += format("<rect x=%d y=%d width=%d height=1 fill=\"rgb(%d,%d,%d)\"></rect>", x, y,
                    end - x, 235 - 15 * shade(x), 150 - 3 * shade(x), 60 + 9 * shade(x));
    }
  }
  out +=
      format("<line x1=0 y1=%d x2=%d y2=0 stroke=white stroke-width=.6></line></svg>", side, side);
  return out + "<figcaption>" + picture.title + format(": accuracy %.3f", picture.accuracy) +
         "</figcaption></figure>";
}

std::string reasons(const Report& report) {
  std::string out =
      "<section><h2>Statistical: little data</h2><p>A tree grown to its end on noisy samples of a "
      "sine. Full colour is squared bias, pale is variance, over 100 samples. The mean of 50 trees "
      "(blue) keeps the bias of one (grey) and sheds most of its variance.</p>" +
      split_bars(report.statistical) + "</section>";
  out +=
      "<section><h2>Computational: restarts</h2><p>Networks of four hidden units on a spiral, by "
      "gradient descent from 40 starts: each dot is where one ended. The line is the mean of what "
      "they say.</p>" +
      start_dots(report.computational) + "</section>";
  out +=
      "<section><h2>Representational: a diagonal from stumps</h2><p>A stump can only cut "
      "parallel to an axis; no stump is the white diagonal. A weighted sum of stumps comes as "
      "close "
      "as it is given members.</p><div class=row>";
  for (const auto& picture : report.representational.pictures)
    out += surface(picture, report.representational.side);
  return out + "</div></section>";
}

}  // namespace

std::string html(const Report& report) {
  std::string out;
  for (const auto& [name, results] : report.tables) {
    out += "<section><h2>" + name + "</h2>" + table(results) +
           "</section><section><h2>Test error on " + name + "</h2>" + error_bars(results) +
           "</section>";
  }
  return page::document("Ensembles", out + reasons(report), style);
}

}  // namespace ensembles
