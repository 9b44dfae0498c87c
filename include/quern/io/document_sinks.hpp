// SPDX-License-Identifier: Apache-2.0

/// \file
/// One way to write a document, two forms: JSON text and UBJ (universal binary JSON, big-endian).

#ifndef QUERN_IO_DOCUMENT_SINKS_HPP
#define QUERN_IO_DOCUMENT_SINKS_HPP

#include "quern/core/config.hpp"

#include <array>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// JSON without blanks. Members of an object are `key` and then a value; elements of an array come
/// one after the other. The caller gives valid UTF-8.
class JsonSink {
 public:
  void begin_object() { open('{'); }
  void end_object() { out_ += '}'; }
  void begin_array(std::size_t) { open('['); }
  void end_array() { out_ += ']'; }
  void key(std::string_view name) {
    string(name);
    out_ += ':';
  }
  void string(std::string_view s) {
    separate();
    out_ += '"';
    for (char c : s) character(c);
    out_ += '"';
  }
  void integer(std::int64_t x) {
    separate();
    out_ += std::to_string(x);
  }
  /// The shortest text that reads back as x. XGBoost tells "1" (an integer) from "1.0".
  void number(float x) {
    separate();
    std::array<char, 32> buffer;
    const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), x);
    const std::string_view digits(buffer.data(),
                                  static_cast<std::size_t>(result.ptr - buffer.data()));
    out_ += digits;
    if (digits.find_first_of(".e") == std::string_view::npos) out_ += ".0";
  }
  /// An array of value(0) … value(size - 1), as T.
  template <class T, class Value>
  void numbers(std::size_t size, const Value& value) {
    begin_array(size);
    for (std::size_t i = 0; i < size; ++i) {
      if constexpr (std::is_same_v<T, float>) {
        number(value(i));
      } else {
        integer(static_cast<std::int64_t>(value(i)));
      }
    }
    end_array();
  }

  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  void open(char bracket) {
    separate();
    out_ += bracket;
  }
  /// A comma, unless this is the first of something; texts end with a quote.
  void separate() {
    if (out_.empty() || out_.back() == '{' || out_.back() == '[' || out_.back() == ':') return;
    out_ += ',';
  }
  void character(char c) {
    if (c == '"' || c == '\\') {
      out_ += '\\';
      out_ += c;
    } else if (static_cast<unsigned char>(c) < 32) {
      std::array<char, 8> escape;
      std::snprintf(escape.data(), escape.size(), "\\u%04x", static_cast<unsigned>(c));
      out_ += escape.data();
    } else {
      out_ += c;
    }
  }

  std::string out_;
};

/// UBJ as XGBoost writes it: lengths of eight bytes, counted arrays, typed arrays of numbers.
class UbjSink {
 public:
  void begin_object() { out_ += '{'; }
  void end_object() { out_ += '}'; }
  void begin_array(std::size_t size) {
    out_ += "[#";
    length(size);
  }
  void end_array() {}  // the count says where it ends
  void key(std::string_view name) {
    length(name.size());
    out_ += name;
  }
  void string(std::string_view s) {
    out_ += 'S';
    key(s);
  }
  void integer(std::int64_t x) {
    if (fits<std::int8_t>(x)) return marked<std::int8_t>(x);
    if (fits<std::int16_t>(x)) return marked<std::int16_t>(x);
    if (fits<std::int32_t>(x)) return marked<std::int32_t>(x);
    marked<std::int64_t>(x);
  }
  void number(float x) { marked<float>(x); }
  template <class T, class Value>
  void numbers(std::size_t size, const Value& value) {
    out_ += "[$";
    out_ += type<T>();
    out_ += '#';
    length(size);
    for (std::size_t i = 0; i < size; ++i) fixed(static_cast<T>(value(i)));
  }

  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  template <class T>
  [[nodiscard]] static constexpr char type() {
    if constexpr (std::is_same_v<T, float>) return 'd';
    if constexpr (std::is_same_v<T, std::uint8_t>) return 'U';
    if constexpr (std::is_same_v<T, std::int8_t>) return 'i';
    if constexpr (std::is_same_v<T, std::int16_t>) return 'I';
    if constexpr (std::is_same_v<T, std::int32_t>) return 'l';
    return 'L';
  }
  template <class T>
  [[nodiscard]] static bool fits(std::int64_t x) {
    return x >= (std::numeric_limits<T>::min)() && x <= (std::numeric_limits<T>::max)();
  }
  template <class T, class X>
  void marked(X x) {
    out_ += type<T>();
    fixed(static_cast<T>(x));
  }
  template <class T>
  void fixed(T x) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    Bits bits = 0;
    if constexpr (std::is_same_v<T, float>) {
      bits = std::bit_cast<std::uint32_t>(x);
    } else {
      bits = static_cast<Bits>(x);
    }
    for (std::size_t i = sizeof(T); i-- > 0;) out_ += static_cast<char>(bits >> (8 * i) & 0xff);
  }
  void length(std::size_t size) { marked<std::int64_t>(size); }

  std::string out_;
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_DOCUMENT_SINKS_HPP
