// SPDX-License-Identifier: Apache-2.0

/// \file
/// Walks over JSON text once, without building a tree: for big files of known shape, of which most
/// is read into arrays or skipped. Strict (RFC 8259), errors with line and column.

#ifndef QUERN_IO_JSON_SCAN_HPP
#define QUERN_IO_JSON_SCAN_HPP

#include "quern/core/config.hpp"
#include "quern/io/input.hpp"
#include "quern/io/number.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace io {

/// A place in a JSON text. Every function starts at the next thing that is not white space and
/// throws a ParseError that names the place where that is not what it wants.
class JsonScan {
 public:
  explicit JsonScan(const Input& input) : input_(input) {
    const std::string_view text = input.text();
    p_ = begin_ = text.data();
    end_ = p_ + text.size();
    if (text.substr(0, 3) == "\xEF\xBB\xBF") p_ += 3;
  }

  [[nodiscard]] std::size_t offset() const noexcept {
    return static_cast<std::size_t>(p_ - begin_);
  }
  [[nodiscard]] std::size_t size() const noexcept {
    return static_cast<std::size_t>(end_ - begin_);
  }

  [[noreturn]] void fail(std::string_view message) const { input_.fail_at(offset(), message); }
  [[noreturn]] void fail_at(std::size_t offset, std::string_view message) const {
    input_.fail_at(offset, message);
  }

  /// The next character that is not white space; 0 at the end.
  [[nodiscard]] char peek() {
    while (p_ != end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) ++p_;
    return p_ != end_ ? *p_ : '\0';
  }

  /// Where that is.
  [[nodiscard]] std::size_t next_offset() {
    (void)peek();
    return offset();
  }

  /// Calls each(key) for every member of an object; it must read the value.
  template <class F>
  void object(F&& each) {
    enter('{', "an object");
    if (peek() == '}') return leave();
    for (;;) {
      if (peek() != '"') unexpected("a key in quotes");
      const std::string_view key = string(key_);
      if (peek() != ':') unexpected("':' after a key");
      ++p_;
      each(key);
      if (peek() == '}') return leave();
      if (*p_at() != ',') unexpected("',' or '}'");
      ++p_;
    }
  }

  /// Calls each() for every element of an array; it must read it.
  template <class F>
  void array(F&& each) {
    if (!enter_array()) return;
    do {
      each();
    } while (next_element());
  }

  /// An array, element by element: whether there is a first one, …
  [[nodiscard]] bool enter_array() {
    enter('[', "an array");
    if (peek() != ']') return true;
    leave();
    return false;
  }
  /// … and whether another follows the one that was read.
  [[nodiscard]] bool next_element() {
    if (peek() == ']') {
      leave();
      return false;
    }
    if (*p_at() != ',') unexpected("',' or ']'");
    ++p_;
    return true;
  }

  /// Goes on at \p offset, an element of an array that is the whole text.
  void jump_into_array(std::size_t offset) noexcept {
    p_ = begin_ + offset;
    depth_ = 1;
  }

  /// A finite number, exactly rounded.
  [[nodiscard]] double number() {
    const char c = peek();
    if (c != '-' && !detail::is_digit(c)) unexpected("a number");
    const char* const start = p_;
    detail::Decimal d = scan_number();
    double value = 0;
    const char* const digits = start + (*start == '-');
    if (!detail::exact_product(d, value)) {
      const Number<double> slow = detail::slow_number<double>(digits, d);
      if (slow.status != NumberStatus::ok) {
        p_ = start;
        fail("a number too large for a double");
      }
      value = slow.value;
    }
    return *start == '-' ? -value : value;
  }

  /// A number without a fraction: any of 64 bits that is written plainly, within 2^53 with a point
  /// or an exponent.
  [[nodiscard]] std::int64_t integer() {
    (void)peek();
    const char* const start = p_;
    const char* q = p_ != end_ && *p_ == '-' ? p_ + 1 : p_;
    const char* const digits = q;
    // 18 digits fit; a 19th is looked at with care.
    std::int64_t quick = 0;
    while (q != end_ && detail::is_digit(*q) && q - digits < 18) quick = quick * 10 + (*q++ - '0');
    if (q != end_ && detail::is_digit(*q) && q != digits) {
      constexpr std::int64_t most = (std::numeric_limits<std::int64_t>::max)();
      const std::int64_t digit = *q - '0';
      if (quick <= (most - digit) / 10) quick = quick * 10 + digit, ++q;
    }
    const bool plain = q != digits && q != end_ && *q != '.' && *q != 'e' && *q != 'E' &&
                       !detail::is_digit(*q) && (*digits != '0' || q - digits == 1);
    if (plain) {
      p_ = q;
      return digits == start ? quick : -quick;
    }
    const double value = number();
    if (value != std::floor(value) || std::fabs(value) > 0x1p53) {
      p_ = start;
      fail("expected an integer");
    }
    return static_cast<std::int64_t>(value);
  }

  /// true, false, or a number that is 0 or not.
  [[nodiscard]] bool flag() {
    const char c = peek();
    if (c == 't') return literal("true"), true;
    if (c == 'f') return literal("false"), false;
    return number() != 0;
  }

  /// A string; the view is into the text or, where that holds escapes, into `buffer`.
  [[nodiscard]] std::string_view string(std::string& buffer) {
    if (peek() != '"') unexpected("a string");
    const char* const start = ++p_;
    while (p_ != end_ && *p_ != '"' && *p_ != '\\' && static_cast<unsigned char>(*p_) >= 32) ++p_;
    if (p_ != end_ && *p_ == '"') {
      const char* const stop = p_++;
      return {start, static_cast<std::size_t>(stop - start)};
    }
    return escaped(start, buffer);
  }

  /// Any value, checked but not kept.
  void skip() {
    switch (peek()) {
      case '{':
        object([this](std::string_view) { skip(); });
        return;
      case '[':
        array([this] { skip(); });
        return;
      case '"':
        (void)string(skipped_);
        return;
      case 't':
        return literal("true");
      case 'f':
        return literal("false");
      case 'n':
        return literal("null");
      default:
        if (*p_at() != '-' && !detail::is_digit(*p_at())) unexpected("a value");
        (void)scan_number();
    }
  }

  /// Nothing but white space follows.
  void end() {
    if (peek() != '\0' || p_ != end_) fail("expected the end of the text");
  }

  [[noreturn]] void unexpected(std::string_view wanted) {
    (void)peek();
    std::string text = "expected ";
    text += wanted;
    if (p_ == end_) {
      text += ", got the end of the text";
    } else {
      const std::size_t left = static_cast<std::size_t>(end_ - p_);
      text += ", got " + quote_text({p_, left < 12 ? left : 12});
    }
    fail(text);
  }

 private:
  static constexpr int deepest = 256;

  /// A place that can be looked at, also at the end.
  [[nodiscard]] const char* p_at() const noexcept { return p_ != end_ ? p_ : ""; }

  void enter(char open, const char* what) {
    if (peek() != open) unexpected(what);
    if (++depth_ > deepest) fail("nested deeper than 256");
    ++p_;
  }
  void leave() {
    --depth_;
    ++p_;
  }

  void literal(std::string_view word) {
    const std::size_t left = static_cast<std::size_t>(end_ - p_);
    if (left < word.size() || std::memcmp(p_, word.data(), word.size()) != 0) {
      unexpected("a value");
    }
    p_ += word.size();
  }

  /// Moves over a number's text and collects its digits.
  detail::Decimal scan_number() {
    detail::Decimal d;
    if (*p_ == '-') ++p_;
    if (p_ != end_ && *p_ == '0') {
      ++p_;
      ++d.count;
    } else {
      digits(0, d);
    }
    if (p_ != end_ && *p_ == '.') {
      ++p_;
      digits(-1, d);
    }
    if (p_ != end_ && (*p_ == 'e' || *p_ == 'E')) {
      ++p_;
      const bool minus = p_ != end_ && *p_ == '-';
      if (p_ != end_ && (*p_ == '-' || *p_ == '+')) ++p_;
      if (p_ == end_ || !detail::is_digit(*p_)) unexpected_digit();
      std::int64_t power = 0;
      for (; p_ != end_ && detail::is_digit(*p_); ++p_) {
        if (power < 1000000000) power = power * 10 + (*p_ - '0');
      }
      d.exponent += minus ? -power : power;
    }
    if (p_ != end_ && detail::is_digit(*p_)) fail("a number that starts with 0");
    d.end = p_;
    return d;
  }

  void digits(int step, detail::Decimal& d) {
    const char* const start = p_;
    std::uint64_t value = d.digits;
    for (; p_ != end_ && detail::is_digit(*p_); ++p_) {
      value = value * 10 + static_cast<std::uint64_t>(*p_ - '0');
    }
    if (p_ == start) unexpected_digit();
    d.digits = value;
    d.count += p_ - start;
    d.exponent += step * (p_ - start);
  }
  [[noreturn]] void unexpected_digit() { fail("expected a digit"); }

  /// The rest of a string that has escapes (or what is not allowed), from `start` on.
  std::string_view escaped(const char* start, std::string& buffer) {
    buffer.assign(start, p_);
    for (;;) {
      if (p_ == end_) fail("a string that does not end");
      const char c = *p_;
      if (c == '"') break;
      if (static_cast<unsigned char>(c) < 32) fail("a control character in a string");
      ++p_;
      if (c == '\\') {
        escape(buffer);
      } else {
        buffer += c;
      }
    }
    ++p_;
    return buffer;
  }

  void escape(std::string& buffer) {
    if (p_ == end_) fail("a string that does not end");
    const char c = *p_++;
    static constexpr std::string_view letters = "\"\\/bfnrt", means = "\"\\/\b\f\n\r\t";
    const std::size_t at = letters.find(c);
    if (at != std::string_view::npos) {
      buffer += means[at];
      return;
    }
    if (c != 'u') {
      --p_;
      fail("an escape that does not exist");
    }
    std::uint32_t code = hex4();
    if (code >= 0xD800 && code < 0xDC00) {
      if (end_ - p_ < 2 || p_[0] != '\\' || p_[1] != 'u') fail("half of a surrogate pair");
      p_ += 2;
      const std::uint32_t low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
      fail("half of a surrogate pair");
    }
    append_utf8(code, buffer);
  }

  std::uint32_t hex4() {
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i) {
      if (p_ == end_) fail("a string that does not end");
      const char c = detail::lower(*p_);
      const bool letter = c >= 'a' && c <= 'f';
      if (!letter && !detail::is_digit(c)) fail("expected four hexadecimal digits");
      code = code * 16 + static_cast<std::uint32_t>(letter ? c - 'a' + 10 : c - '0');
      ++p_;
    }
    return code;
  }

  static void append_utf8(std::uint32_t code, std::string& to) {
    const auto put = [&to](std::uint32_t byte) { to += static_cast<char>(byte); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
      put(0xC0 | code >> 6);
    } else {
      if (code < 0x10000) {
        put(0xE0 | code >> 12);
      } else {
        put(0xF0 | code >> 18);
        put(0x80 | (code >> 12 & 63));
      }
      put(0x80 | (code >> 6 & 63));
    }
    put(0x80 | (code & 63));
  }

  const Input& input_;
  const char* begin_ = nullptr;
  const char* p_ = nullptr;
  const char* end_ = nullptr;
  int depth_ = 0;
  std::string key_, skipped_;
};

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_JSON_SCAN_HPP
