// SPDX-License-Identifier: Apache-2.0

/// \file
/// YOLO's text files, one an image: a line an object, "class cx cy w h" as shares of the image's
/// size, with the score as sixth number where the file is a detector's.

#ifndef QUERN_IO_YOLO_HPP
#define QUERN_IO_YOLO_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/detection/box.hpp"
#include "quern/io/input.hpp"
#include "quern/io/number.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

struct YoloObject {
  std::int64_t category = 0;
  detection::Box box{};  ///< in pixels
  double score = 1;      ///< 1 where the line has none
};

struct YoloOptions {
  double width = 1;  ///< of the image, in pixels; 1 leaves shares
  double height = 1;
  bool scores = false;  ///< every line must have a score; else none may
  Limits limits{};
};

namespace detail {

inline YoloObject yolo_line(const Input& input, std::size_t begin, std::size_t end,
                            const YoloOptions& options) {
  const std::string_view text = input.text();
  const std::size_t wanted = options.scores ? 6 : 5;
  std::array<double, 6> v{};
  std::size_t count = 0;
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  for (std::size_t at = begin; at < end;) {
    if (blank(text[at])) {
      ++at;
      continue;
    }
    std::size_t stop = at;
    while (stop < end && !blank(text[stop])) ++stop;
    const std::string_view word = text.substr(at, stop - at);
    if (count == wanted) {
      input.fail_at(at, "expected " + std::to_string(wanted) + " numbers a line, got more");
    }
    const Number<double> n = parse_whole_number<double>(word);
    if (n.status != NumberStatus::ok || !is_finite_bits(n.value)) {
      input.fail_at(at, "expected a number, got " + quote_text(word));
    }
    const bool whole = n.value == std::floor(n.value) && n.value >= 0 && n.value < 0x1p53;
    if (count == 0 && !whole) input.fail_at(at, "expected a class number, got " + quote_text(word));
    if (count > 0 && count < 5 && (n.value < -1e-3 || n.value > 1 + 1e-3)) {
      input.fail_at(at, "expected a share of the image, 0 … 1, got " + quote_text(word));
    }
    if ((count == 3 || count == 4) && n.value < 0) input.fail_at(at, "a negative size");
    v[count++] = n.value;
    at = stop;
  }
  if (count != wanted) {
    input.fail_at(end, "expected " + std::to_string(wanted) + " numbers a line, got " +
                           std::to_string(count));
  }
  const double w = v[3] * options.width, h = v[4] * options.height;
  return {static_cast<std::int64_t>(v[0]),
          {v[1] * options.width - w / 2, v[2] * options.height - h / 2, w, h},
          options.scores ? v[5] : 1};
}

inline std::vector<YoloObject> read_yolo_text(const Input& input, const YoloOptions& options) {
  if (!(options.width > 0) || !(options.height > 0)) {
    throw ValueError(
        error_text(input.function(), "options", "a width and height > 0",
                   std::to_string(options.width) + " x " + std::to_string(options.height)));
  }
  const std::string_view text = input.text();
  std::vector<YoloObject> objects;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) end = text.size();
    const std::string_view line = text.substr(begin, end - begin);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) {
      objects.push_back(yolo_line(input, begin, end, options));
    }
    begin = end + 1;
  }
  return objects;
}

}  // namespace detail

/// Reads one file; blank lines are skipped. ParseError with line and column for another number of
/// numbers, classes that are not whole, shares beyond 0 … 1 by more than 0.001 (such as pixels).
[[nodiscard]] inline std::vector<YoloObject> read_yolo(const std::string& path,
                                                       const YoloOptions& options = {}) {
  return detail::read_yolo_text(Input::file(path, options.limits, "quern::io::read_yolo"), options);
}
/// The same of memory; `name` stands for the file in messages.
[[nodiscard]] inline std::vector<YoloObject> parse_yolo(std::string_view text,
                                                        const YoloOptions& options = {},
                                                        std::string_view name = "memory") {
  return detail::read_yolo_text(Input::memory(text, name, options.limits, "quern::io::parse_yolo"),
                                options);
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_YOLO_HPP
