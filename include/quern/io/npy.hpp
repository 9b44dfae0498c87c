// SPDX-License-Identifier: Apache-2.0

/// \file
/// NumPy's NPY files: read versions 1, 2 and 3 (also gzip), write version 1.
/// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

#ifndef QUERN_IO_NPY_HPP
#define QUERN_IO_NPY_HPP

#include "quern/core/config.hpp"
#include "quern/core/file.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/io/elements.hpp"
#include "quern/io/gzip.hpp"
#include "quern/io/input.hpp"

#include <array>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// How read_npy reads.
struct NpyOptions {
  /// Refuse a file whose element type is not T; otherwise elements are converted: to integers
  /// exactly or not at all, to floating point rounded, never from finite to infinite.
  bool exact_type = false;
  Limits limits{};
};

namespace detail {

/// NumPy itself stops at 64 (32 before NumPy 2).
inline constexpr std::size_t npy_max_rank = 64;
/// NumPy refuses to evaluate longer headers too.
inline constexpr std::size_t npy_max_header = 10000;

/// Reads the header's dictionary, a Python literal with three known keys in any order. It does not
/// nest beyond the one tuple, so there is no depth to attack.
class NpyHeaderParser {
 public:
  NpyHeaderParser(const Input& input, std::size_t begin, std::size_t end)
      : input_(input), text_(input.text().substr(0, end)), at_(begin) {}

  [[nodiscard]] RawArray parse() {
    expect('{');
    while (peek() != '}') {
      key();
      if (peek() != ',') break;
      ++at_;
    }
    expect('}');
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    if (at_ != text_.size()) fail("expected spaces up to the end of the header");
    if (!has_type_ || !has_order_ || !has_shape_) {
      fail("expected the keys 'descr', 'fortran_order' and 'shape'");
    }
    raw_.offset = text_.size();
    return raw_;
  }

 private:
  [[noreturn]] void fail(const std::string& message) const { input_.fail_byte(at_, message); }

  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void expect(char c) {
    if (peek() != c || at_ >= text_.size()) fail(std::string("expected '") + c + "' in the header");
    ++at_;
  }
  std::string_view string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') fail("expected a string in the header");
    const std::size_t close = text_.find(quote, at_ + 1);
    if (close == std::string_view::npos) fail("expected a closing quote in the header");
    const std::string_view inside = text_.substr(at_ + 1, close - at_ - 1);
    if (inside.find('\\') != std::string_view::npos) fail("expected a string without escapes");
    at_ = close + 1;
    return inside;
  }
  void once(bool& seen) {
    if (seen) fail("expected each key once");
    seen = true;
  }

  void key() {
    const std::string_view name = string();
    expect(':');
    if (name == "descr") {
      once(has_type_);
      type();
    } else if (name == "fortran_order") {
      once(has_order_);
      order();
    } else if (name == "shape") {
      once(has_shape_);
      shape();
    } else {
      fail("expected 'descr', 'fortran_order' or 'shape', got " + quote_text(name));
    }
  }

  void type() {
    if (peek() == '[') fail("structured arrays are not supported");
    const std::size_t from = at_;
    std::string_view text = string();
    const char order = text.empty() ? '\0' : text[0];
    const bool has_order = order == '<' || order == '>' || order == '=' || order == '|';
    if (has_order) text.remove_prefix(1);
    raw_.big_endian = order == '>' || (order != '<' && std::endian::native == std::endian::big);
    constexpr std::string_view codes[] = {"b1", "i1", "i2", "i4", "i8", "u1",
                                          "u2", "u4", "u8", "f2", "f4", "f8"};
    for (std::size_t i = 0; i < std::size(codes); ++i) {
      if (codes[i] != text) continue;
      raw_.type = static_cast<ElementType>(i);
      return;
    }
    at_ = from;
    fail("expected an element type b1, i1 … i8, u1 … u8, f2, f4 or f8, got " + quote_text(text));
  }

  void order() {
    peek();
    const std::string_view rest = text_.substr(at_);
    raw_.column_major = rest.starts_with("True");
    if (!raw_.column_major && !rest.starts_with("False")) fail("expected True or False");
    at_ += raw_.column_major ? 4 : 5;
  }

  void shape() {
    expect('(');
    bool comma = true;
    while (peek() != ')') {
      if (!comma) fail("expected ',' or ')' in the shape");
      if (raw_.shape.size() == npy_max_rank) fail("more than 64 dimensions");
      Index extent = 0;
      const char* const end = text_.data() + text_.size();
      const std::from_chars_result read = std::from_chars(text_.data() + at_, end, extent);
      if (read.ec != std::errc() || extent < 0) fail("expected an extent, 0 … 2^63 - 1");
      raw_.shape.push_back(extent);
      at_ = static_cast<std::size_t>(read.ptr - text_.data());
      comma = peek() == ',';
      if (comma) ++at_;
    }
    if (raw_.shape.size() == 1 && !comma) fail("expected a tuple: (n,)");
    expect(')');
  }

  const Input& input_;
  std::string_view text_;  ///< the input up to the end of the header
  std::size_t at_;
  RawArray raw_;
  bool has_type_ = false;
  bool has_order_ = false;
  bool has_shape_ = false;
};

inline constexpr std::string_view npy_magic = "\x93NUMPY";

template <class T>
RawArray read_npy_head(const Input& input, const NpyOptions& options) {
  const std::string_view bytes = input.text();
  if (!bytes.starts_with(npy_magic)) input.fail_byte(0, "expected an NPY file");
  if (bytes.size() < 10) input.fail_byte(bytes.size(), "cut short: expected an NPY header");
  const int version = bytes[6];
  if (version < 1 || version > 3 || bytes[7] != 0) {
    input.fail_byte(6, "expected NPY version 1.0, 2.0 or 3.0");
  }
  const std::size_t begin = version == 1 ? 10 : 12;
  if (bytes.size() < begin) input.fail_byte(bytes.size(), "cut short: expected an NPY header");
  const std::size_t length =
      version == 1 ? load_bits<2>(bytes.data() + 8, false) : load_bits<4>(bytes.data() + 8, false);
  if (length > npy_max_header) {
    input.fail_byte(8, "expected a header of up to 10000 bytes, got " + std::to_string(length));
  }
  if (length > bytes.size() - begin) input.fail_byte(bytes.size(), "cut short in the header");
  const RawArray raw = NpyHeaderParser(input, begin, begin + length).parse();
  if (options.exact_type && raw.type != element_type_of<T>()) {
    input.fail_byte(begin, std::string("expected elements of type ") + name(element_type_of<T>()) +
                               ", got " + name(raw.type));
  }
  return raw;
}

/// The header of version 1, padded so that the elements start at a multiple of 64.
template <class T, std::size_t Rank>
std::string npy_head(const std::array<Index, Rank>& shape) {
  constexpr char kind = std::is_same_v<T, bool>       ? 'b'
                        : std::is_floating_point_v<T> ? 'f'
                        : std::is_signed_v<T>         ? 'i'
                                                      : 'u';
  constexpr char order = sizeof(T) == 1 ? '|' : std::endian::native == std::endian::big ? '>' : '<';
  std::string text = "{'descr': '";
  text += order;
  text += kind + std::to_string(sizeof(T)) + "', 'fortran_order': False, 'shape': (";
  for (Index extent : shape) text += std::to_string(extent) + ", ";
  text.resize(text.size() - (Rank > 1 ? 2 : 1));  // (2, 3) but (3,)
  text += "), }";
  constexpr std::size_t before = 10;
  const std::size_t size = (before + text.size() + 1 + 63) / 64 * 64;
  text.resize(size - before - 1, ' ');
  text += '\n';
  std::string head(npy_magic);
  head +=
      {'\x01', '\x00', static_cast<char>(text.size() & 255U), static_cast<char>(text.size() >> 8)};
  return head + text;
}

}  // namespace detail

/// Reads an NPY file of exactly `Rank` dimensions; files in Fortran order come out row-major like
/// all others. ParseError ("name: byte n: …") when it is malformed, cut short, longer than its
/// header says, structured, or of another rank.
template <class T, int Rank>
[[nodiscard]] NdArray<T, Rank> read_npy(const std::string& path, const NpyOptions& options = {}) {
  const Input input = Input::file(path, options.limits, "quern::io::read_npy");
  return detail::to_array<T, Rank>(input, detail::read_npy_head<T>(input, options));
}

/// The same for a rank known at run time only (0 is a single number).
template <class T>
[[nodiscard]] DynamicArray<T> read_npy(const std::string& path, const NpyOptions& options = {}) {
  const Input input = Input::file(path, options.limits, "quern::io::read_npy");
  return detail::to_dynamic<T>(input, detail::read_npy_head<T>(input, options));
}

/// From memory; `name` stands for the file in messages.
template <class T, int Rank>
[[nodiscard]] NdArray<T, Rank> parse_npy(std::string_view bytes, const NpyOptions& options = {},
                                         std::string_view name = "memory") {
  const Input input = Input::memory(bytes, name, options.limits, "quern::io::parse_npy");
  return detail::to_array<T, Rank>(input, detail::read_npy_head<T>(input, options));
}

template <class T>
[[nodiscard]] DynamicArray<T> parse_npy(std::string_view bytes, const NpyOptions& options = {},
                                        std::string_view name = "memory") {
  const Input input = Input::memory(bytes, name, options.limits, "quern::io::parse_npy");
  return detail::to_dynamic<T>(input, detail::read_npy_head<T>(input, options));
}

/// The bytes of an NPY file that holds what a view shows, whatever its strides are.
template <class T, int Rank>
[[nodiscard]] std::vector<std::byte> npy_bytes(const NdView<T, Rank>& array) {
  using Value = std::remove_const_t<T>;
  const std::string head = detail::npy_head<Value>(array.extents());
  const std::size_t size = static_cast<std::size_t>(array.size()) * sizeof(Value);
  std::vector<std::byte> bytes(head.size() + size);
  std::memcpy(bytes.data(), head.data(), head.size());
  if (size == 0) return bytes;
  if (array.is_contiguous()) {
    std::memcpy(bytes.data() + head.size(), array.data(), size);
  } else {
    const NdArray<Value, Rank> packed{NdView<const Value, Rank>(array)};
    std::memcpy(bytes.data() + head.size(), packed.data(), size);
  }
  return bytes;
}

/// Writes an NPY file, replacing an existing one only when all of it is on the disk. IoError when
/// the system refuses.
template <class T, int Rank>
void write_npy(const std::string& path, const NdView<T, Rank>& array) {
  write_file_atomically(path, npy_bytes(array));
}
template <class T, int Rank>
void write_npy(const std::string& path, const NdArray<T, Rank>& array) {
  write_npy(path, array.view());
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_NPY_HPP
