// SPDX-License-Identifier: Apache-2.0

#include "race.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace optimizers {
namespace {

template <class... T>
std::string format(const char* pattern, T... values) {
  char text[512];
  std::snprintf(text, sizeof(text), pattern, values...);
  return text;
}

std::string legend(const std::vector<std::string>& names) {
  std::string out = "<p class=\"legend\">";
  for (std::size_t k = 0; k < names.size(); ++k) {
    out += format("<span class=\"c%d\">&#9632; ", static_cast<int>(k)) + names[k] + "</span> ";
  }
  return out + "</p>";
}

std::string surface(const Surface& s) {
  constexpr double width = 360, height = 300;
  std::string svg = format("<svg viewBox=\"0 0 %g %g\" role=\"img\">", width, height) +
                    "<image width=\"360\" height=\"300\" href=\"" + s.picture + "\"/>";
  for (std::size_t k = 0; k < s.paths.size(); ++k) {
    svg += format("<polyline class=\"c%d\" points=\"", static_cast<int>(k));
    for (std::size_t i = 0; i < s.paths[k].x.size(); ++i) {
      const double x = (s.paths[k].x[i] - s.left) / (s.right - s.left) * width;
      const double y = (s.top - s.paths[k].y[i]) / (s.top - s.bottom) * height;
      if (!std::isfinite(x) || !std::isfinite(y)) break;
      svg += format("%.1f,%.1f ", (std::clamp)(x, -50.0, 410.0), (std::clamp)(y, -50.0, 350.0));
    }
    svg += "\"/>";
  }
  return "<figure>" + svg + "</svg><figcaption>" + s.name + "</figcaption></figure>";
}

/// Multiples of 1, 2 or 5 times a power of ten within [low, high].
std::vector<double> ticks(double low, double high) {
  const double rough = (high - low) / 5, power = std::pow(10.0, std::floor(std::log10(rough)));
  const double lead = rough / power;
  const double step = power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
  std::vector<double> out;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) {
    out.push_back(k * step);
  }
  return out;
}

std::string chart(const std::vector<Curve>& curves, const char* x_label, const char* y_label) {
  double left = 1e300, right = -1e300, low = 1e300, high = -1e300;
  for (const Curve& c : curves) {
    for (std::size_t i = 0; i < c.x.size(); ++i) {
      left = (std::min)(left, c.x[i]);
      right = (std::max)(right, c.x[i]);
      low = (std::min)(low, c.y[i]);
      high = (std::max)(high, c.y[i]);
    }
  }
  if (!(right > left)) right = left + 1;
  if (!(high > low)) high = low + 1;
  std::string svg = "<svg class=\"wide\" viewBox=\"0 0 560 330\" role=\"img\">";
  for (const double tick : ticks(low, high)) {
    const double y = 280 - 260 * (tick - low) / (high - low);
    svg += format("<line class=\"grid\" x1=\"60\" x2=\"540\" y1=\"%.1f\" y2=\"%.1f\"/>", y, y);
    svg += format("<text x=\"54\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>", y + 5, tick);
  }
  for (const double tick : ticks(left, right)) {
    svg += format("<text x=\"%.1f\" y=\"300\" text-anchor=\"middle\">%.4g</text>",
                  60 + 480 * (tick - left) / (right - left), tick);
  }
  svg += format("<text x=\"300\" y=\"322\" text-anchor=\"middle\">%s</text>", x_label);
  svg += format("<text x=\"60\" y=\"14\">%s</text>", y_label);
  std::vector<std::string> names;
  for (std::size_t k = 0; k < curves.size(); ++k) {
    names.push_back(curves[k].name);
    svg += format("<polyline class=\"c%d\" points=\"", static_cast<int>(k));
    for (std::size_t i = 0; i < curves[k].x.size(); ++i) {
      svg += format("%.1f,%.1f ", 60 + 480 * (curves[k].x[i] - left) / (right - left),
                    280 - 260 * (curves[k].y[i] - low) / (high - low));
    }
    svg += "\"/>";
  }
  return svg + "</svg>" + legend(names);
}

std::string table(const std::vector<Training>& all) {
  std::string out =
      "<table><tr><th>optimiser</th><th>training loss</th><th>test accuracy</th><th>|w|</th>"
      "<th>seconds in steps</th></tr>";
  for (const Training& t : all) {
    out += "<tr><th>" + t.name +
           format("</th><td>%.4f</td><td>%.2f %%</td><td>%.1f</td><td>%.2f</td></tr>",
                  t.loss.y.empty() ? 0 : t.loss.y.back(), t.test.empty() ? 0 : 100 * t.test.back(),
                  t.weight_norm, t.seconds);
  }
  return out + "</table>";
}

std::string trainings(const std::vector<Training>& all) {
  std::vector<Curve> curves;
  for (const Training& t : all) curves.push_back(t.loss);
  return chart(curves, "epoch", "training loss") + table(all);
}

constexpr const char* style = R"(<style>
:root{color-scheme:light dark;--ink:#1f2328;--page:#fff;--line:#d5d9de}
@media(prefers-color-scheme:dark){:root{--ink:#e7e9ec;--page:#16191d;--line:#3a4049}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1100px;margin:0 auto;padding:24px 16px}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin:36px 0 8px}figure{display:inline-block;margin:0 12px 12px 0;max-width:340px;width:100%}
svg{width:100%;height:auto;overflow:hidden}svg.wide{max-width:720px}svg text{fill:var(--ink);font-size:13px}.grid{stroke:var(--line)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:3px 14px 3px 0;border-bottom:1px solid var(--line);text-align:right}
th:first-child{text-align:left}th{font-weight:500}polyline{fill:none;stroke-width:2}
.c0{stroke:#e0533d;color:#e0533d}.c1{stroke:#2f80ed;color:#2f80ed}.c2{stroke:#27a567;color:#27a567}
.c3{stroke:#c88a00;color:#c88a00}.c4{stroke:#a35de0;color:#a35de0}.c5{stroke:#17b3c4;color:#17b3c4}
.c6{stroke:#d94f9a;color:#d94f9a}.c7{stroke:#8a8f98;color:#8a8f98}.legend span{margin-right:14px;stroke:none;display:inline-block}
</style>)";

}  // namespace

std::string page(const Findings& f) {
  std::string out =
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>Optimisers</title>";
  out += style;
  out += "</head><body><h1>Optimisers</h1>";
  if (!f.surfaces.empty()) {
    out += "<h2>Ways down</h2><p>The same number of steps for each; darker is lower.</p>";
    for (const Surface& s : f.surfaces) out += surface(s);
    std::vector<std::string> names;
    for (const Curve& c : f.surfaces[0].paths) names.push_back(c.name);
    out += legend(names);
  }
  if (!f.logistic.empty()) {
    out +=
        "<h2>Logistic regression: shirts and T-shirts</h2><p>Batches of 64; L-BFGS sees all "
        "pictures at each evaluation.</p>" +
        chart(f.logistic, "passes over the data", "loss");
  }
  if (!f.race.empty()) {
    out += "<h2>A network of two layers on Fashion-MNIST</h2>" + trainings(f.race);
  }
  if (!f.decay.empty()) {
    out +=
        "<h2>Weight decay is not L2</h2><p>In Adam, L2 goes through the moments and is divided by "
        "each weight's own scale, so that weights with large gradients hardly decay. AdamW "
        "shrinks all alike. For SGD both are the same.</p>" +
        trainings(f.decay);
  }
  if (!f.apart.empty()) {
    out += "<h2>Adam taken apart</h2><p>Momentum alone, the adaptive rate alone, and both.</p>" +
           trainings(f.apart);
  }
  return out + "</body></html>\n";
}

}  // namespace optimizers
