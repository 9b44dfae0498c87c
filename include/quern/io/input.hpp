// SPDX-License-Identifier: Apache-2.0

/// \file
/// The bytes that a parser reads: of a file or of memory, inflated when they are gzip, with the
/// limits that keep hostile files from taking the machine's memory, and errors that name the place.

#ifndef QUERN_IO_INPUT_HPP
#define QUERN_IO_INPUT_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/gzip.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

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

/// At most 40 bytes of `text` between quotes, for messages; control bytes become '?'.
[[nodiscard]] inline std::string quote_text(std::string_view text) {
  constexpr std::size_t longest = 40;
  std::string shown(text.substr(0, longest));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 32) c = '?';
  }
  return "'" + shown + (text.size() > longest ? "…'" : "'");
}

/// The bytes of one file or of one piece of memory, and how errors in them are told.
class Input {
 public:
  /// Reads the file. IoError when the system refuses, ParseError past a limit or for broken gzip.
  /// `function` names the public function that was called.
  [[nodiscard]] static Input file(const std::string& path, const Limits& limits,
                                  std::string function) {
    Input input(path, std::move(function));
    input.read_file(limits);
    input.text_ = input.memory_.text();
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
    throw ParseError(function_ + ": " + name_ + ": more than max_bytes = " +
                     std::to_string(limits.max_bytes) + " bytes");
  }
  [[noreturn]] void refused(const char* what) const {
    const int code = errno;
    throw IoError(function_ + ": " + name_ + ": cannot " + what + ": " +
                  std::error_code(code, std::generic_category()).message());
  }

  void read_file(const Limits& limits) {
    struct Close {
      void operator()(std::FILE* f) const { std::fclose(f); }
    };
    errno = 0;
    const std::unique_ptr<std::FILE, Close> file(std::fopen(name_.c_str(), "rb"));
    if (!file) refused("open");
    std::error_code unknown;  // pipes have no size: they are read in growing pieces
    const std::uintmax_t size = std::filesystem::file_size(name_, unknown);
    const std::size_t most = limits.bytes();
    if (!unknown && size > most) too_long(limits);
    memory_.reserve(unknown ? std::size_t{1} << 16 : static_cast<std::size_t>(size) + 1);
    for (;;) {
      const std::size_t got =
          std::fread(memory_.free_data(), 1, memory_.free_size(), file.get());
      memory_.add(got);
      if (memory_.size() > most) too_long(limits);
      if (got > 0) {
        if (memory_.free_size() == 0) memory_.reserve(2 * memory_.size());
        continue;
      }
      if (std::ferror(file.get()) != 0) refused("read");
      return;
    }
  }

  void inflate(const Limits& limits) {
    if (!is_gzip(text_)) return;
    Bytes inflated = inflate_gzip(text_, limits, function_ + ": " + name_);
    memory_ = std::move(inflated);
    text_ = memory_.text();
  }

  std::string name_;
  std::string function_;
  Bytes memory_;  ///< empty when the caller's memory is looked at
  std::string_view text_;
};

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_INPUT_HPP
