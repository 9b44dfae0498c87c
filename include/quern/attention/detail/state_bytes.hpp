// SPDX-License-Identifier: Apache-2.0

/// \file
/// Decode states as bytes: whole numbers and arrays one after the other, read back with checks.

#ifndef QUERN_ATTENTION_DETAIL_STATE_BYTES_HPP
#define QUERN_ATTENTION_DETAIL_STATE_BYTES_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// Appends to bytes.
class StateWriter {
 public:
  explicit StateWriter(std::vector<std::byte>& out) : out_(out) {}
  void number(Index value) {
    const auto wide = static_cast<std::int64_t>(value);
    raw(&wide, sizeof wide);
  }
  template <class T>
  void array(const T* values, std::size_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    number(static_cast<Index>(sizeof(T)));
    number(static_cast<Index>(count));
    raw(values, count * sizeof(T));
  }
  template <class T>
  void array(const std::vector<T>& values) {
    array(values.data(), values.size());
  }

 private:
  void raw(const void* from, std::size_t bytes) {
    const auto* const at = static_cast<const std::byte*>(from);
    out_.insert(out_.end(), at, at + bytes);
  }
  std::vector<std::byte>& out_;
};

/// Reads what StateWriter wrote; ParseError where that ends early or is of another shape.
class StateReader {
 public:
  StateReader(const char* function, std::span<const std::byte> bytes)
      : function_(function), bytes_(bytes) {}
  Index number() {
    std::int64_t wide = 0;
    raw(&wide, sizeof wide);
    return static_cast<Index>(wide);
  }
  /// A number that has to be this one.
  void expect(const char* what, Index value) {
    const Index got = number();
    if (got != value) fail(what, std::to_string(value), std::to_string(got));
  }
  /// A number within bounds.
  Index number_in(const char* what, Index low, Index high) {
    const Index got = number();
    if (got < low || got > high) {
      fail(what, std::to_string(low) + ".." + std::to_string(high), std::to_string(got));
    }
    return got;
  }
  template <class T>
  void array(T* values, std::size_t count) {
    expect("size of an element", static_cast<Index>(sizeof(T)));
    expect("size of an array", static_cast<Index>(count));
    raw(values, count * sizeof(T));
  }
  /// Nothing may be left.
  void finish() const {
    if (!bytes_.empty()) {
      fail("bytes", "none after the state", std::to_string(bytes_.size()) + " more");
    }
  }

 private:
  [[noreturn]] void fail(const char* what, const std::string& expected,
                         const std::string& got) const {
    throw ParseError(error_text(function_, what, expected, got));
  }
  void raw(void* to, std::size_t count) {
    if (bytes_.size() < count) {
      fail("bytes", std::to_string(count) + " more", std::to_string(bytes_.size()));
    }
    if (count > 0) std::memcpy(to, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
  }
  const char* function_;
  std::span<const std::byte> bytes_;
};

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_STATE_BYTES_HPP
