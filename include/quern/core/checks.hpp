// SPDX-License-Identifier: Apache-2.0

/// \file
/// Small checks of arguments that throw quern's errors with quern's wording.

#ifndef QUERN_CORE_CHECKS_HPP
#define QUERN_CORE_CHECKS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <bit>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

QUERN_NAMESPACE_BEGIN

/// By the bits, so that -ffast-math cannot fold the test away.
[[nodiscard]] constexpr bool is_nan_bits(float x) noexcept {
  return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffU) > 0x7f800000U;
}
[[nodiscard]] constexpr bool is_nan_bits(double x) noexcept {
  return (std::bit_cast<std::uint64_t>(x) & 0x7fffffffffffffffULL) > 0x7ff0000000000000ULL;
}
/// Neither infinite nor NaN.
[[nodiscard]] constexpr bool is_finite_bits(float x) noexcept {
  return (std::bit_cast<std::uint32_t>(x) & 0x7f800000U) != 0x7f800000U;
}
[[nodiscard]] constexpr bool is_finite_bits(double x) noexcept {
  return (std::bit_cast<std::uint64_t>(x) & 0x7ff0000000000000ULL) != 0x7ff0000000000000ULL;
}

namespace detail {

template <class T>
std::string range_text(const T& low, const T& high) {
  std::string text = text_of(+low);
  text += "..";
  text += text_of(+high);
  return text;
}

}  // namespace detail

/// ValueError unless low <= value <= high (a NaN fails).
template <class T>
void expect_in_range(std::string_view function, std::string_view argument, const T& value,
                     const std::type_identity_t<T>& low, const std::type_identity_t<T>& high) {
  if constexpr (std::floating_point<T>) {
    if (is_nan_bits(value)) {
      throw ValueError(error_text(function, argument, detail::range_text(low, high), "NaN"));
    }
  }
  if (value < low || high < value) {
    throw ValueError(error_text(function, argument, detail::range_text(low, high), +value));
  }
}

/// ValueError unless the value is finite.
template <std::floating_point T>
void expect_finite(std::string_view function, std::string_view argument, T value) {
  if (is_finite_bits(value)) return;
  throw ValueError(
      error_text(function, argument, "a finite number", is_nan_bits(value) ? "NaN" : "infinity"));
}

/// ShapeError unless the view has these extents.
template <class T, int Rank>
void expect_shape(std::string_view function, std::string_view argument, const NdView<T, Rank>& v,
                  const std::type_identity_t<Shape<Rank>>& extents) {
  if (v.extents() == extents) return;
  throw ShapeError(error_text(function, argument, shape_text(extents), shape_text(v.extents())));
}

/// ShapeError unless two lengths agree; `expected` says of what, such as "one label a row (100)".
inline void expect_size(std::string_view function, std::string_view argument, Index got,
                        Index wanted, std::string_view what) {
  if (got == wanted) return;
  std::string expected = std::to_string(wanted);
  expected += ' ';
  expected += what;
  throw ShapeError(error_text(function, argument, expected, got));
}

/// ShapeError when an output shares memory with an input.
template <class Out, int RankOut, class In, int RankIn>
void expect_apart(std::string_view function, std::string_view out_name,
                  const NdView<Out, RankOut>& out, std::string_view in_name,
                  const NdView<In, RankIn>& in) {
  if (!overlaps(out, in)) return;
  std::string got = "overlap with ";
  got += in_name;
  throw ShapeError(error_text(function, out_name, "memory apart from the inputs", got));
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_CHECKS_HPP
