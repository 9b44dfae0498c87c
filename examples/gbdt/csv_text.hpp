// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pieces of CSV files, and writing texts to a file or to standard output.

#ifndef QUERN_EXAMPLES_GBDT_CSV_TEXT_HPP
#define QUERN_EXAMPLES_GBDT_CSV_TEXT_HPP

#include "quern/core/error.hpp"
#include "quern/core/file.hpp"

#include <charconv>
#include <cstdio>
#include <span>
#include <string>

namespace gbdt {

/// A field of a CSV file, quoted where it must be.
inline std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

/// The shortest text that reads back as the same number.
template <class T>
void append_number(std::string& text, T value) {
  char digits[32];
  text.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

/// To a file, which is replaced at the end or not at all; "-" is standard output.
inline void write_text(const std::string& path, const std::string& text) {
  if (path != "-") {
    quern::write_file_atomically(path,
                                 std::as_bytes(std::span<const char>(text.data(), text.size())));
    return;
  }
  const bool good =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!good) throw quern::IoError("cannot write to the standard output");
}

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_CSV_TEXT_HPP
