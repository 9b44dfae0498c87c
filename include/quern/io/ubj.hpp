// SPDX-License-Identifier: Apache-2.0

/// \file
/// Universal Binary JSON (draft 12, big-endian, with counted and typed arrays), as XGBoost writes
/// it: decoded into a JSON document. Depth and sizes are checked before anything is allocated.

#ifndef QUERN_IO_UBJ_HPP
#define QUERN_IO_UBJ_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/json_values.hpp"

#include <nlohmann/json.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// Whether the bytes begin as a UBJ object does, and as no JSON text can.
[[nodiscard]] inline bool is_ubj(std::span<const std::byte> bytes) noexcept {
  if (bytes.size() < 2 || static_cast<char>(bytes[0]) != '{') return false;
  return std::string_view("iUIlL#$").find(static_cast<char>(bytes[1])) != std::string_view::npos;
}

class UbjDecoder {
 public:
  using Json = nlohmann::json;

  UbjDecoder(std::span<const std::byte> bytes, std::string source)
      : bytes_(bytes), source_(std::move(source)) {}

  /// The whole document. ParseError, naming the byte, for anything that is not one: memory stays
  /// within a fixed multiple of the input's size.
  [[nodiscard]] Json decode() {
    Json document = value(take("a type"), 0);
    if (at_ != bytes_.size()) fail("the end", "more");
    return document;
  }

 private:
  template <class Got>
  [[noreturn]] void fail(std::string_view expected, const Got& got) const {
    throw ParseError(error_text(source_, "byte " + std::to_string(at_), expected, got));
  }
  [[nodiscard]] std::size_t left() const noexcept { return bytes_.size() - at_; }

  char take(const char* what) {
    if (left() == 0) fail(what, "the end");
    return static_cast<char>(bytes_[at_++]);
  }
  [[nodiscard]] bool next_is(char c) const noexcept {
    return left() > 0 && static_cast<char>(bytes_[at_]) == c;
  }

  /// A big-endian number.
  template <class T>
  T fixed() {
    if (left() < sizeof(T)) fail(std::to_string(sizeof(T)) + " bytes", left());
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      bits = bits << 8 | std::to_integer<std::uint64_t>(bytes_[at_++]);
    }
    if constexpr (std::is_same_v<T, float>) {
      return std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    } else if constexpr (std::is_same_v<T, double>) {
      return std::bit_cast<double>(bits);
    } else {
      return static_cast<T>(bits);
    }
  }

  /// Calls use(T()) with the type of a marker for numbers; false where it is not one.
  template <class Use>
  static bool with_number(char type, const Use& use) {
    switch (type) {
      case 'i':
        use(std::int8_t{});
        return true;
      case 'U':
        use(std::uint8_t{});
        return true;
      case 'I':
        use(std::int16_t{});
        return true;
      case 'l':
        use(std::int32_t{});
        return true;
      case 'L':
        use(std::int64_t{});
        return true;
      case 'd':
        use(float{});
        return true;
      case 'D':
        use(double{});
        return true;
      default:
        return false;
    }
  }

  /// A length or count; each of what is counted takes at least so many bytes of those left.
  std::size_t count(std::size_t each) {
    const char type = take("a length");
    std::int64_t n = -1;
    const bool is_number = with_number(type, [&](auto like) {
      using T = decltype(like);
      if constexpr (std::is_integral_v<T>) n = fixed<T>();
    });
    if (!is_number || type == 'd' || type == 'D') fail("the type of a length", shown(type));
    if (n < 0 || static_cast<std::uint64_t>(n) > left() / each)
      fail("a length within the " + std::to_string(left()) + " bytes left", n);
    return static_cast<std::size_t>(n);
  }

  [[nodiscard]] static std::string shown(char type) {
    const auto code = static_cast<unsigned char>(type);
    if (code > 32 && code < 127) return std::string("'") + type + "'";
    return "byte " + std::to_string(code);
  }

  std::string string() {
    const std::size_t size = count(1);
    std::string s(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return s;
  }

  Json value(char type, int depth) {
    Json number;
    const bool is_number = with_number(type, [&](auto like) { number = fixed<decltype(like)>(); });
    if (is_number) return number;
    switch (type) {
      case 'Z':
        return nullptr;
      case 'T':
        return true;
      case 'F':
        return false;
      case 'C':
        return std::string(1, take("a character"));
      case 'S':
        return string();
      case '[':
        return array(depth + 1);
      case '{':
        return object(depth + 1);
      default:
        --at_;
        fail("a type", shown(type));
    }
  }

  void check_depth(int depth) const {
    if (depth > deepest_nesting)
      fail("nesting of at most " + std::to_string(deepest_nesting), "more");
  }

  Json array(int depth) {
    check_depth(depth);
    Json out = Json::array();
    if (next_is('$')) {
      ++at_;
      typed_array(out.get_ref<Json::array_t&>());
    } else if (next_is('#')) {
      ++at_;
      const std::size_t n = count(1);
      for (std::size_t i = 0; i < n; ++i) out.push_back(value(take("a type"), depth));
    } else {
      while (!next_is(']')) out.push_back(value(take("']'"), depth));
      ++at_;
    }
    return out;
  }

  /// Numbers only: an element without a byte of its own (null, true) would make memory from
  /// nothing.
  void typed_array(Json::array_t& out) {
    const char type = take("a type");
    const std::size_t type_at = at_ - 1;
    const bool is_number = with_number(type, [&](auto like) {
      using T = decltype(like);
      if (take("'#'") != '#') {
        --at_;
        fail("'#' and a count", "none");
      }
      const std::size_t n = count(sizeof(T));
      out.reserve(n);
      for (std::size_t i = 0; i < n; ++i) out.emplace_back(fixed<T>());
    });
    if (is_number) return;
    at_ = type_at;
    fail("a type of numbers for a typed array", shown(type));
  }

  Json object(int depth) {
    check_depth(depth);
    Json out = Json::object();
    if (next_is('$')) fail("an object without a type", "one");
    const auto member = [&] {
      std::string key = string();
      out[std::move(key)] = value(take("a type"), depth);
    };
    if (next_is('#')) {
      ++at_;
      const std::size_t n = count(1);
      for (std::size_t i = 0; i < n; ++i) member();
      return out;
    }
    while (!next_is('}')) member();
    ++at_;
    return out;
  }

  std::span<const std::byte> bytes_;
  std::string source_;
  std::size_t at_ = 0;
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_UBJ_HPP
