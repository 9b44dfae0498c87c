// SPDX-License-Identifier: Apache-2.0

/// \file
/// The bytes that a parser reads: of a file or of memory, inflated when they are gzip, with the
/// limits that keep hostile files from taking the machine's memory, and errors that name the place.

#ifndef QUERN_IO_INPUT_HPP
#define QUERN_IO_INPUT_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/io/gzip.hpp"
#include "quern/io/quote.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// Line and column of a byte, both from 1; the column counts bytes.
struct Place {
  std::int64_t line = 1;
  std::int64_t column = 1;
};

/// Line and column of the byte at `offset`. Counts from the start of the text, so it is for errors.
[[nodiscard]] inline Place place_of(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, (std::min)(offset, text.size()));
  const std::size_t newline = before.rfind('\n');
  const std::size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
  return {static_cast<std::int64_t>(std::count(before.begin(), before.end(), '\n')) + 1,
          static_cast<std::int64_t>(before.size() - line_start) + 1};
}

/// The bytes of one file or of one piece of memory, and how errors in them are told.
class Input {
 public:
  /// Reads the file. IoError when the system refuses, ParseError past a limit or for broken gzip.
  /// `function` names the public function that was called.
  [[nodiscard]] static Input file(const std::string& path, const Limits& limits,
                                  std::string function) {
    Input input(path, std::move(function));
    input.file_ = read_file(path, limits.bytes());
    input.text_ = {reinterpret_cast<const char*>(input.file_.data()), input.file_.size()};
    input.inflate(limits);
    return input;
  }

  /// Looks at memory that outlives the result; `name` stands for the file's name in messages.
  [[nodiscard]] static Input memory(std::string_view bytes, std::string_view name,
                                    const Limits& limits, std::string function) {
    Input input(std::string(name), std::move(function));
    input.text_ = bytes;
    if (bytes.size() > limits.bytes()) input.too_long(limits);
    input.inflate(limits);
    return input;
  }

  [[nodiscard]] std::string_view text() const noexcept { return text_; }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] const std::string& function() const noexcept { return function_; }

  /// ParseError "function: name:line:column: message".
  [[noreturn]] void fail_at(std::size_t offset, std::string_view message) const {
    const Place place = place_of(text_, offset);
    throw ParseError(function_ + ": " + name_ + ":" + std::to_string(place.line) + ":" +
                     std::to_string(place.column) + ": " + std::string(message));
  }
  /// ParseError "function: name: byte offset: message", for binary formats.
  [[noreturn]] void fail_byte(std::size_t offset, std::string_view message) const {
    throw ParseError(function_ + ": " + name_ + ": byte " + std::to_string(offset) + ": " +
                     std::string(message));
  }

 private:
  Input(std::string name, std::string function)
      : name_(std::move(name)), function_(std::move(function)) {}

  [[noreturn]] void too_long(const Limits& limits) const {
    throw ParseError(function_ + ": " + name_ +
                     ": more than max_bytes = " + std::to_string(limits.max_bytes) + " bytes");
  }
  void inflate(const Limits& limits) {
    if (!is_gzip(text_)) return;
    inflated_ = inflate_gzip(text_, limits, function_ + ": " + name_);
    text_ = inflated_.text();
    file_ = std::vector<std::byte>();  // its memory is not needed any longer
  }

  std::string name_;
  std::string function_;
  std::vector<std::byte> file_;  ///< empty when the caller's memory is looked at
  Bytes inflated_;               ///< of gzip
  std::string_view text_;
};

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_INPUT_HPP
