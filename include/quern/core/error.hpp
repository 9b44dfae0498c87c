// SPDX-License-Identifier: Apache-2.0

/// \file
/// The errors that quern throws. Every message names the function, the argument, what was expected
/// and what came, so that it can be acted on without a debugger.

#ifndef QUERN_CORE_ERROR_HPP
#define QUERN_CORE_ERROR_HPP

#include "quern/core/config.hpp"

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

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

/// "function: argument: expected X, got Y".
template <class Got>
[[nodiscard]] std::string error_text(std::string_view function, std::string_view argument,
                                     std::string_view expected, const Got& got) {
  std::ostringstream text;
  text << function << ": " << argument << ": expected " << expected << ", got " << got;
  return text.str();
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_ERROR_HPP
