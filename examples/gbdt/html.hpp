// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pieces of HTML: escaped text, charts as SVG, pictures as PNG inside the page.

#ifndef QUERN_EXAMPLES_GBDT_HTML_HPP
#define QUERN_EXAMPLES_GBDT_HTML_HPP

#include "../common/page.hpp"
#include "learner.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gbdt {

using page::escape;

/// The curves of one metric, one line a set, by round. \p best: a round to mark, or -1.
[[nodiscard]] std::string line_chart(const std::string& metric,
                                     const std::vector<const MetricCurve*>& curves,
                                     std::int64_t best);

/// An <img> with the picture inside. \p values: (height, width).
/// grey_image: 0 is black, `white` is white; heat_image: 0 … largest, dark to bright.
[[nodiscard]] std::string grey_image(std::span<const float> values, int height, int width,
                                     float white, const std::string& alt);
[[nodiscard]] std::string heat_image(std::span<const double> values, int height, int width,
                                     const std::string& alt);

/// What the page adds to the style of all pages.
[[nodiscard]] std::string_view style_sheet();

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_HTML_HPP
