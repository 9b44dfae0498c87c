// SPDX-License-Identifier: Apache-2.0

/// \file
/// bfloat16 as a storage type: the upper half of a float.

#ifndef QUERN_CORE_BFLOAT16_HPP
#define QUERN_CORE_BFLOAT16_HPP

#include "quern/core/config.hpp"

#include <bit>
#include <cstdint>

QUERN_NAMESPACE_BEGIN

/// Eight bits of exponent and seven of fraction, stored; arithmetic is done in float.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  /// The nearest, ties to even; a NaN stays one.
  explicit constexpr BFloat16(float value) noexcept : bits(rounded(value)) {}
  /// Exact.
  explicit constexpr operator float() const noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  friend constexpr bool operator==(const BFloat16& a, const BFloat16& b) noexcept = default;

 private:
  static constexpr std::uint16_t rounded(float value) noexcept {
    const auto wide = std::bit_cast<std::uint32_t>(value);
    if ((wide & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>(wide >> 16 | 0x40U);
    return static_cast<std::uint16_t>((wide + 0x7fffU + (wide >> 16 & 1U)) >> 16);
  }
};

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_BFLOAT16_HPP
