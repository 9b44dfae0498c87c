// SPDX-License-Identifier: Apache-2.0

#include "race.hpp"

#include "../common/page.hpp"

#include <algorithm>
#include <cmath>

namespace optimizers {
namespace {

using page::format;

std::string legend(const std::vector<Curve>& curves) {
  std::vector<std::string> names;
  for (const Curve& c : curves) names.push_back(c.name);
  return "<div class=\"legend\">" + page::keys(names) + "</div>";
}

std::string surface(const Surface& s) {
  constexpr double width = 360, height = 300;
  std::string svg = format("<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"", width, height) +
                    page::escape(s.name) + "\">" + "<image width=\"360\" height=\"300\" href=\"" +
                    s.picture + "\"/>";
  for (std::size_t k = 0; k < s.paths.size(); ++k) {
    svg += format("<polyline class=\"curve c%zu\" points=\"", k);
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

std::string table(const std::vector<Training>& all) {
  std::string out =
      "<div class=\"wide\"><table><tr><th>optimiser</th><th>training loss</th><th>test "
      "accuracy</th><th>|w|</th>"
      "<th>seconds in steps</th></tr>";
  for (const Training& t : all) {
    out += "<tr><td>" + page::escape(t.name) +
           format("</td><td>%.4f</td><td>%.2f %%</td><td>%.1f</td><td>%.2f</td></tr>",
                  t.loss.y.empty() ? 0 : t.loss.y.back(), t.test.empty() ? 0 : 100 * t.test.back(),
                  t.weight_norm, t.seconds);
  }
  return out + "</table></div>";
}

page::Chart chart(const char* title, const std::vector<Curve>& curves, const char* x_name) {
  return {.title = title, .x_name = x_name, .y_name = "loss", .series = curves};
}

std::string trainings(const std::vector<Training>& all) {
  std::vector<Curve> curves;
  for (const Training& t : all) curves.push_back(t.loss);
  return table(all) + page::svg(chart("Training loss", curves, "epoch"));
}

std::string section(const char* title, const char* text, const std::string& body) {
  return std::string("<section><h2>") + title + "</h2><p>" + text + "</p>" + body + "</section>\n";
}

}  // namespace

std::string html(const Findings& f) {
  std::string out;
  if (!f.surfaces.empty()) {
    std::string surfaces = "<div class=\"charts\">";
    for (const Surface& s : f.surfaces) surfaces += surface(s);
    out += section("Ways down", "The same number of steps for each; darker is lower.",
                   surfaces + "</div>" + legend(f.surfaces[0].paths));
  }
  if (!f.logistic.empty())
    out += section("Logistic regression: shirts and T-shirts",
                   "Batches of 64; L-BFGS sees all pictures at each evaluation.",
                   page::svg(chart("Loss", f.logistic, "passes over the data")));
  if (!f.race.empty())
    out += section("A network of two layers on Fashion-MNIST", "", trainings(f.race));
  if (!f.decay.empty())
    out += section(
        "Weight decay is not L2",
        "In Adam, L2 goes through the moments and is divided by each weight's own scale, so that "
        "weights with large gradients hardly decay. AdamW shrinks all alike. For SGD both are the "
        "same.",
        trainings(f.decay));
  if (!f.apart.empty())
    out += section("Adam taken apart", "Momentum alone, the adaptive rate alone, and both.",
                   trainings(f.apart));
  return page::document("Optimisers", out);
}

}  // namespace optimizers
