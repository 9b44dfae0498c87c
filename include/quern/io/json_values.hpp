// SPDX-License-Identifier: Apache-2.0

/// \file
/// Values of a JSON document that somebody else wrote: every access checks type and range, and an
/// error names the file and the path of the value.

#ifndef QUERN_IO_JSON_VALUES_HPP
#define QUERN_IO_JSON_VALUES_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <nlohmann/json.hpp>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// Models nest about ten deep; what nests deeper is not one, and must not fill the stack.
inline constexpr int deepest_nesting = 32;

/// A value of the document and its path, for messages.
struct JsonPlace {
  const nlohmann::json* value;
  std::string path;
};

class JsonValues {
 public:
  using Json = nlohmann::json;

  explicit JsonValues(std::string source) : source_(std::move(source)) {}

  /// The document of a JSON text; ParseError with the byte where it is none.
  [[nodiscard]] Json parse(std::span<const std::byte> bytes) const {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    check_depth(text);
    try {
      return Json::parse(text.begin(), text.end());
    } catch (const Json::exception& error) {
      throw ParseError(source_ + ": " + error.what());
    }
  }

 protected:
  [[nodiscard]] const std::string& source() const noexcept { return source_; }

  template <class Got>
  [[noreturn]] void fail(const std::string& path, std::string_view expected, const Got& got) const {
    throw ParseError(error_text(source_, path.empty() ? "document" : path, expected, got));
  }
  [[noreturn]] void fail_type(const JsonPlace& at, std::string_view expected) const {
    fail(at.path, expected, at.value->type_name());
  }

  [[nodiscard]] const Json* find(const JsonPlace& at, const char* key) const {
    if (!at.value->is_object()) fail_type(at, "an object");
    const auto found = at.value->find(key);
    return found == at.value->end() ? nullptr : &*found;
  }
  [[nodiscard]] JsonPlace get(const JsonPlace& at, const char* key) const {
    const Json* value = find(at, key);
    if (value == nullptr) fail(at.path, std::string("a member '") + key + "'", "none");
    return {value, at.path.empty() ? key : at.path + "." + key};
  }
  [[nodiscard]] std::string text(const JsonPlace& at) const {
    if (!at.value->is_string()) fail_type(at, "a string");
    return at.value->get<std::string>();
  }
  /// An integer, also one in a string, as XGBoost writes its parameters.
  [[nodiscard]] std::int64_t integer(const JsonPlace& at, std::int64_t low,
                                     std::int64_t high) const {
    std::int64_t number = 0;
    if (at.value->is_string()) {
      const std::string& s = at.value->get_ref<const std::string&>();
      const auto result = std::from_chars(s.data(), s.data() + s.size(), number);
      if (result.ec != std::errc() || result.ptr != s.data() + s.size())
        fail(at.path, "an integer", "'" + s.substr(0, 40) + "'");
    } else if (at.value->is_boolean()) {
      number = at.value->get<bool>() ? 1 : 0;
    } else if (at.value->is_number_unsigned() && at.value->get<std::uint64_t>() > std::uint64_t{1}
                                                                                      << 62) {
      fail(at.path, "an integer of sensible size", at.value->get<std::uint64_t>());
    } else if (at.value->is_number_integer()) {
      number = at.value->get<std::int64_t>();
    } else {
      fail_type(at, "an integer");
    }
    if (number < low || number > high)
      fail(at.path, std::to_string(low) + ".." + std::to_string(high), number);
    return number;
  }
  [[nodiscard]] double finite(const JsonPlace& at) const {
    if (!at.value->is_number()) fail_type(at, "a number");
    const double x = at.value->get<double>();
    if (!is_finite_bits(x)) fail(at.path, "a finite number", x);
    return x;
  }
  [[nodiscard]] const Json::array_t& array(const JsonPlace& at) const {
    if (!at.value->is_array()) fail_type(at, "an array");
    return at.value->get_ref<const Json::array_t&>();
  }
  [[nodiscard]] static JsonPlace element(const JsonPlace& at, const Json::array_t& values,
                                         std::size_t i) {
    return {&values[i], at.path + "[" + std::to_string(i) + "]"};
  }
  [[nodiscard]] const Json::array_t& array_of(const JsonPlace& at, std::size_t size) const {
    const Json::array_t& values = array(at);
    if (values.size() != size) fail(at.path, std::to_string(size) + " elements", values.size());
    return values;
  }
  [[nodiscard]] std::vector<double> finites(const JsonPlace& at, std::size_t size) const {
    const Json::array_t& values = array_of(at, size);
    std::vector<double> out(size);
    for (std::size_t i = 0; i < size; ++i) {
      const bool plain = values[i].is_number() && is_finite_bits(values[i].get<double>());
      out[i] = plain ? values[i].get<double>() : finite(element(at, values, i));
    }
    return out;
  }
  /// An entry's path is only built where the entry is wrong.
  [[nodiscard]] std::vector<std::int64_t> integers(const JsonPlace& at, std::size_t size,
                                                   std::int64_t low, std::int64_t high) const {
    const Json::array_t& values = array_of(at, size);
    std::vector<std::int64_t> out(size);
    for (std::size_t i = 0; i < size; ++i) {
      std::int64_t n = low - 1;
      if (values[i].is_number_integer()) n = values[i].get<std::int64_t>();
      if (values[i].is_number_unsigned() && n < 0) n = low - 1;
      out[i] = n >= low && n <= high ? n : integer(element(at, values, i), low, high);
    }
    return out;
  }
  [[nodiscard]] std::vector<std::string> strings(const JsonPlace& at) const {
    const Json::array_t& values = array(at);
    std::vector<std::string> out;
    for (std::size_t i = 0; i < values.size(); ++i) out.push_back(text(element(at, values, i)));
    return out;
  }

 private:
  void check_depth(std::string_view text) const {
    int depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (in_string) {
        i += c == '\\' ? 1 : 0;
        in_string = c != '"';
      } else if (c == '"') {
        in_string = true;
      } else if (c == '{' || c == '[') {
        if (++depth > deepest_nesting)
          fail("byte " + std::to_string(i), "nesting of at most " + std::to_string(deepest_nesting),
               "more");
      } else if (c == '}' || c == ']') {
        --depth;
      }
    }
  }

  std::string source_;
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_JSON_VALUES_HPP
