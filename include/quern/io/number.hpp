// SPDX-License-Identifier: Apache-2.0

/// \file
/// Decimal text to float or double: exactly rounded, fast for what data files hold.

#ifndef QUERN_IO_NUMBER_HPP
#define QUERN_IO_NUMBER_HPP

#include "quern/core/config.hpp"

#include <bit>
#include <cfloat>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <system_error>

QUERN_NAMESPACE_BEGIN
namespace io {

enum class NumberStatus : std::uint8_t {
  ok,
  not_a_number,  ///< no number starts here
  too_large,     ///< a number past the largest finite value of the type
};

/// What parse_number found; `end` is the first byte after the number.
template <class T>
struct Number {
  T value{};
  const char* end = nullptr;
  NumberStatus status = NumberStatus::not_a_number;
};

namespace detail {

inline bool is_digit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

inline constexpr double exact_powers_of_ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                 1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/// Sign, digits and exponent of a decimal number as they stand in the text.
struct Decimal {
  const char* end = nullptr;  ///< null when this is no number
  std::uint64_t digits = 0;   ///< all digits, when there are at most 19
  std::int64_t count = 0;     ///< digits read, leading zeros of the whole part included
  std::int64_t exponent = 0;  ///< of the last digit, in powers of ten
};

/// Reads digits into `d`, each moving the exponent by `step` (0 before the point, −1 after it).
inline const char* read_digits(const char* p, const char* end, int step, Decimal& d) {
  const char* const start = p;
  std::uint64_t digits = d.digits;
  for (; p != end && is_digit(*p); ++p) {
    digits = digits * 10 + static_cast<std::uint64_t>(*p - '0');
  }
  d.digits = digits;
  d.count += p - start;
  d.exponent += step * (p - start);
  return p;
}

/// Exponents saturate far outside every type's range, so the sum cannot overflow.
inline const char* read_exponent(const char* p, const char* end, Decimal& d) {
  const char* q = p + 1;
  const bool negative = q != end && *q == '-';
  if (q != end && (*q == '-' || *q == '+')) ++q;
  if (q == end || !is_digit(*q)) return p;  // "1e" is the number 1 followed by text
  std::int64_t exponent = 0;
  for (; q != end && is_digit(*q); ++q) {
    if (exponent < 100'000'000) exponent = exponent * 10 + (*q - '0');
  }
  d.exponent += negative ? -exponent : exponent;
  return q;
}

inline Decimal read_decimal(const char* p, const char* end) {
  Decimal d;
  p = read_digits(p, end, 0, d);
  if (p != end && *p == '.') p = read_digits(p + 1, end, -1, d);
  if (d.count == 0) return d;
  if (p != end && (*p == 'e' || *p == 'E')) p = read_exponent(p, end, d);
  d.end = p;
  return d;
}

/// Whether a number that from_chars calls out of range is too small rather than too large: the
/// power of ten of its first digit that is not 0 says so.
inline bool is_below_one(const char* p, const Decimal& d) {
  std::int64_t leading = 0;
  for (; p != d.end && (*p == '0' || *p == '.'); ++p) leading += *p == '0';
  return d.exponent + d.count - leading <= 0;
}

/// The product of digits and a power of ten where double arithmetic has it exactly rounded
/// (Clinger 1990: both factors are exact). For float the double is rounded once more, which is
/// right unless the double lies half way between two floats; false then.
template <std::floating_point T>
inline bool exact_product([[maybe_unused]] const Decimal& d, [[maybe_unused]] T& value) {
#if FLT_EVAL_METHOD != 0
  return false;  // wider registers round twice
#else
  if (d.count > 19 || d.digits > std::uint64_t{1} << 53) return false;
  if (d.exponent < -22 || d.exponent > 22) return false;
  double x = static_cast<double>(d.digits);
  if (d.exponent < 0) {
    x /= exact_powers_of_ten[-d.exponent];
  } else {
    x *= exact_powers_of_ten[d.exponent];
  }
  if constexpr (sizeof(T) == sizeof(float)) {
    constexpr std::uint64_t below = (std::uint64_t{1} << 29) - 1;
    if ((std::bit_cast<std::uint64_t>(x) & below) == (below + 1) / 2) return false;
  }
  value = static_cast<T>(x);
  return true;
#endif
}

inline char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// Length of "inf" or "infinity" in any case at p, 0 when there is neither.
inline std::size_t infinity_length(const char* p, const char* end) {
  constexpr std::string_view word = "infinity";
  std::size_t n = 0;
  while (n < word.size() && p + n != end && lower(p[n]) == word[n]) ++n;
  return n == word.size() ? n : n >= 3 ? 3 : 0;
}

template <std::floating_point T>
Number<T> slow_number(const char* p, const Decimal& d) {
  Number<T> result;
  result.end = d.end;
  const std::from_chars_result read = std::from_chars(p, d.end, result.value);
  result.status = NumberStatus::ok;
  if (read.ec == std::errc::result_out_of_range) {
    if (is_below_one(p, d)) {
      result.value = T(0);
    } else {
      result.status = NumberStatus::too_large;
    }
  } else if (read.ec != std::errc() || read.ptr != d.end) {
    result.status = NumberStatus::not_a_number;
  }
  return result;
}

}  // namespace detail

/// Reads the longest decimal number that starts at `p`: [+-] digits [. digits] [e [+-] digits], or
/// inf, infinity in any case. Rounded to the nearest T; numbers too small for T become 0. No
/// locale, no hexadecimal, no "nan" (readers treat that as their own token for missing).
template <std::floating_point T>
[[nodiscard]] Number<T> parse_number(const char* p, const char* end) {
  const bool negative = p != end && *p == '-';
  if (p != end && (*p == '-' || *p == '+')) ++p;
  Number<T> result;
  const detail::Decimal d = detail::read_decimal(p, end);
  if (d.end == nullptr) {
    const std::size_t length = detail::infinity_length(p, end);
    if (length == 0) return result;
    result = {(std::numeric_limits<T>::infinity)(), p + length, NumberStatus::ok};
  } else if (detail::exact_product(d, result.value)) {
    result.end = d.end;
    result.status = NumberStatus::ok;
  } else {
    result = detail::slow_number<T>(p, d);
  }
  if (negative) result.value = -result.value;
  return result;
}

/// The whole of `text` as a number.
template <std::floating_point T>
[[nodiscard]] Number<T> parse_whole_number(std::string_view text) {
  Number<T> number = parse_number<T>(text.data(), text.data() + text.size());
  if (number.status == NumberStatus::ok && number.end != text.data() + text.size()) {
    number.status = NumberStatus::not_a_number;
  }
  return number;
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_NUMBER_HPP
