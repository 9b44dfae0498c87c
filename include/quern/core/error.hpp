// SPDX-License-Identifier: Apache-2.0

/// \file
/// The errors that quern throws. Every message names the function, the argument, what was expected
/// and what came, so that it can be acted on without a debugger.

#ifndef QUERN_CORE_ERROR_HPP
#define QUERN_CORE_ERROR_HPP

#include "quern/core/config.hpp"

#include <concepts>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

QUERN_NAMESPACE_BEGIN

/// Base of everything that quern throws on purpose.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Extents, strides or lengths that do not fit each other.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A value outside its domain: an option, a label, a non-finite number.
class ValueError : public Error {
 public:
  using Error::Error;
};

/// Data or a model that is malformed, cut short or hostile; the message holds the place.
class ParseError : public Error {
 public:
  using Error::Error;
};

/// The operating system refused: a missing file, a full disk.
class IoError : public Error {
 public:
  using Error::Error;
};

/// A progress callback asked to stop.
class Cancelled : public Error {
 public:
  using Error::Error;
};

namespace detail {

/// A number or text as a stream would write it. Streams themselves would cost every program that
/// includes quern half a second to compile.
template <class T>
[[nodiscard]] std::string text_of(const T& x) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return std::string(std::string_view(x));
  } else if constexpr (std::same_as<T, char>) {
    return std::string(1, x);
  } else if constexpr (std::floating_point<T>) {
    char text[48];
    std::snprintf(text, sizeof text, "%Lg", static_cast<long double>(x));
    return text;
  } else {
    return std::to_string(+x);
  }
}

[[nodiscard]] inline std::string error_text_of(std::string_view function, std::string_view argument,
                                               std::string_view expected, std::string_view got) {
  std::string text;
  for (const std::string_view part :
       {function, std::string_view(": "), argument, std::string_view(": expected "), expected,
        std::string_view(", got "), got})
    text += part;
  return text;
}

}  // namespace detail

/// "function: argument: expected X, got Y". Got: a number or text.
template <class Got>
[[nodiscard]] std::string error_text(std::string_view function, std::string_view argument,
                                     std::string_view expected, const Got& got) {
  return detail::error_text_of(function, argument, expected, detail::text_of(got));
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_ERROR_HPP
