// SPDX-License-Identifier: Apache-2.0

#include "html.hpp"

#include "../common/picture.hpp"

#include "terminal.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace gbdt {
namespace {

/// \p channels: 1 grey, 3 colour.
std::string image(const std::vector<unsigned char>& pixels, int height, int width, int channels,
                  const std::string& alt) {
  return format("<img width=\"%d\" height=\"%d\" alt=\"", width, height) + escape(alt) +
         "\" src=\"" + page::png(pixels, height, width, channels) + "\">";
}

/// Dark violet to pale yellow; even steps look even.
std::array<unsigned char, 3> heat_colour(double x) {
  static constexpr std::array<std::array<double, 3>, 6> stops = {
      {{12, 8, 38}, {74, 16, 108}, {150, 38, 102}, {216, 76, 62}, {250, 150, 40}, {252, 246, 180}}};
  const double at = (std::clamp)(x, 0.0, 1.0) * 5;
  const auto i = (std::min)(static_cast<std::size_t>(at), std::size_t{4});
  const double t = at - static_cast<double>(i);
  std::array<unsigned char, 3> colour{};
  for (std::size_t c = 0; c < 3; ++c)
    colour[c] = static_cast<unsigned char>(stops[i][c] + t * (stops[i + 1][c] - stops[i][c]) + 0.5);
  return colour;
}

/// 1, 2 or 5 times a power of ten, so that about four steps make the range.
double nice_step(double range) {
  const double raw = range / 4;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= raw) return factor * power;
  return 10 * power;
}

/// Where values are on a chart of 480 x 270.
struct Frame {
  static constexpr double left = 56, right = 454, top = 12, bottom = 232;
  double rounds = 1, low = 0, high = 1;

  [[nodiscard]] double x(double round) const {
    return left + (right - left) * (rounds > 1 ? (round - 1) / (rounds - 1) : 0);
  }
  [[nodiscard]] double y(double value) const {
    return bottom - (bottom - top) * (value - low) / (high - low);
  }
};

Frame frame_of(const std::vector<const MetricCurve*>& curves) {
  Frame frame;
  frame.low = (std::numeric_limits<double>::max)();
  frame.high = -frame.low;
  for (const MetricCurve* c : curves) {
    frame.rounds = (std::max)(frame.rounds, static_cast<double>(c->values.size()));
    for (const double v : c->values) {
      if (!std::isfinite(v)) continue;
      frame.low = (std::min)(frame.low, v);
      frame.high = (std::max)(frame.high, v);
    }
  }
  if (frame.low > frame.high) frame.low = 0, frame.high = 1;
  // From zero, unless all values are far from it.
  if (frame.low > 0 && frame.low < 0.6 * frame.high) frame.low = 0;
  if (frame.low == frame.high) frame.high += frame.high != 0 ? std::fabs(frame.high) : 1;
  return frame;
}

std::string axes(const Frame& frame) {
  std::string svg;
  const double step = nice_step(frame.high - frame.low);
  for (double v = std::ceil(frame.low / step) * step; v <= frame.high + step * 1e-9; v += step) {
    const double y = frame.y(v);
    svg += format("<line class=\"grid\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>", Frame::left,
                  Frame::right, y, y);
    svg += format("<text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>", Frame::left - 8,
                  y + 5, std::fabs(v) < step * 1e-9 ? 0.0 : v);
  }
  const double round_step = (std::max)(1.0, nice_step(frame.rounds));
  for (double r = round_step; r <= frame.rounds; r += round_step)
    svg += format("<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%g</text>", frame.x(r),
                  Frame::bottom + 20, r);
  svg += format("<text x=\"%g\" y=\"%g\" text-anchor=\"end\">round</text>", Frame::right,
                Frame::bottom + 36);
  return svg;
}

}  // namespace

std::string line_chart(const std::string& metric, const std::vector<const MetricCurve*>& curves,
                       std::int64_t best) {
  const Frame frame = frame_of(curves);
  std::string html = "<figure><h3>" + escape(metric) +
                     "</h3><svg viewBox=\"0 0 480 272\" role=\"img\""
                     " aria-label=\"" +
                     escape(metric) + " by round\">";
  html += axes(frame);
  if (best >= 0) {
    const double x = frame.x(static_cast<double>(best + 1));
    html += format("<line class=\"best\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\"/>", x, x,
                   Frame::top, Frame::bottom);
  }
  std::string legend;
  for (const MetricCurve* c : curves) {
    const std::string kind = c->set == "train" ? "train" : "test";
    html += "<polyline class=\"curve " + kind + "\" points=\"";
    for (std::size_t i = 0; i < c->values.size(); ++i) {
      if (std::isfinite(c->values[i]))
        html += format("%.1f,%.1f ", frame.x(static_cast<double>(i + 1)), frame.y(c->values[i]));
    }
    html += "\"/>";
    if (!c->values.empty())
      legend += "<span class=\"" + kind + "\">" + escape(c->set) +
                format(" %.4g", c->values.back()) + "</span>";
  }
  return html + "</svg><figcaption class=\"legend\">" + legend + "</figcaption></figure>";
}

std::string grey_image(std::span<const float> values, int height, int width, float white,
                       const std::string& alt) {
  std::vector<unsigned char> pixels;
  for (const float v : values) {
    const float share = white > 0 && v > 0 ? (std::min)(v / white, 1.0f) : 0.0f;
    pixels.push_back(static_cast<unsigned char>(share * 255 + 0.5f));
  }
  return image(pixels, height, width, 1, alt);
}

std::string heat_image(std::span<const double> values, int height, int width,
                       const std::string& alt) {
  const double most = values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  std::vector<unsigned char> pixels;
  for (const double v : values) {
    // Few pixels carry most of the gain: the cube root lets the others be seen too.
    for (const unsigned char c : heat_colour(most > 0 ? std::cbrt((std::max)(v, 0.0) / most) : 0))
      pixels.push_back(c);
  }
  return image(pixels, height, width, 3, alt);
}

}  // namespace gbdt
