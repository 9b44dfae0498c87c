// SPDX-License-Identifier: Apache-2.0

/// \file
/// Files of group sizes for ranking (LightGBM's .query, XGBoost's .group): whole numbers, parted by
/// blanks or lines.

#ifndef QUERN_IO_GROUPS_HPP
#define QUERN_IO_GROUPS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/input.hpp"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

namespace detail {

inline std::vector<std::int64_t> group_offsets(const Input& input) {
  const std::string_view text = input.text();
  std::vector<std::int64_t> offsets = {0};
  for (std::size_t at = 0; at < text.size();) {
    if (std::string_view(" \t\r\n").find(text[at]) != std::string_view::npos) {
      ++at;
      continue;
    }
    std::int64_t size = 0;
    const char* const end = text.data() + text.size();
    const std::from_chars_result read = std::from_chars(text.data() + at, end, size);
    const bool ends =
        read.ptr == end || std::string_view(" \t\r\n").find(*read.ptr) != std::string_view::npos;
    if (read.ec != std::errc() || !ends || size < 0)
      input.fail_at(at, "expected the size of a group, got " + quote_text(text.substr(at, 20)));
    if (size > (std::numeric_limits<std::int64_t>::max)() - offsets.back())
      input.fail_at(at, "expected fewer than 2^63 rows in all groups, got more");
    offsets.push_back(offsets.back() + size);
    at = static_cast<std::size_t>(read.ptr - text.data());
  }
  if (offsets.size() == 1) input.fail_at(0, "expected at least one group, got none");
  return offsets;
}

}  // namespace detail

/// (groups + 1) row offsets from a text of sizes in memory (gzip too). ParseError with
/// "name:line:column". That they add up to the rows is checked where they meet them.
[[nodiscard]] inline std::vector<std::int64_t> parse_groups(std::string_view text,
                                                            std::string_view name = "memory") {
  return detail::group_offsets(Input::memory(text, name, Limits{}, "quern::io::parse_groups"));
}

/// The same from a file; IoError where it cannot be read.
[[nodiscard]] inline std::vector<std::int64_t> read_groups(const std::string& path) {
  return detail::group_offsets(Input::file(path, Limits{}, "quern::io::read_groups"));
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_GROUPS_HPP
