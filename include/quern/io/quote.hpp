// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pieces of somebody's file in an error's message.

#ifndef QUERN_IO_QUOTE_HPP
#define QUERN_IO_QUOTE_HPP

#include "quern/core/config.hpp"

#include <cstddef>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace io {

/// At most 40 bytes of `text` between quotes, for messages; control bytes become '?'.
[[nodiscard]] inline std::string quote_text(std::string_view text) {
  constexpr std::size_t longest = 40;
  std::string shown(text.substr(0, longest));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 32) c = '?';
  }
  return "'" + shown + (text.size() > longest ? "…'" : "'");
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_QUOTE_HPP
