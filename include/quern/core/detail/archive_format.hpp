// SPDX-License-Identifier: Apache-2.0

/// \file
/// What archives are made of: types of sections, byte order, checksum. See archive.hpp.

#ifndef QUERN_CORE_DETAIL_ARCHIVE_FORMAT_HPP
#define QUERN_CORE_DETAIL_ARCHIVE_FORMAT_HPP

#include "quern/core/config.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN

/// What a section can hold: numbers of fixed width. (bool: say std::uint8_t.)
template <class T>
concept ArchiveNumber = (std::integral<T> && !std::same_as<T, bool> && sizeof(T) <= 8) ||
                        std::same_as<T, float> || std::same_as<T, double>;

namespace detail {

inline constexpr std::array<char, 6> archive_magic = {'Q', 'U', 'E', 'R', 'N', '\0'};
inline constexpr std::uint16_t archive_format = 1;
inline constexpr std::uint8_t archive_text = 0x40;

/// Type byte: 0x10 unsigned, 0x20 signed, 0x30 floating point, plus the size; 0x40 texts.
template <ArchiveNumber T>
constexpr std::uint8_t archive_type() {
  const int family = std::floating_point<T> ? 0x30 : std::is_signed_v<T> ? 0x20 : 0x10;
  return static_cast<std::uint8_t>(family + static_cast<int>(sizeof(T)));
}

inline std::string archive_type_name(std::uint8_t type) {
  if (type == archive_text) return "texts";
  const std::string bits = std::to_string((type & 0x0f) * 8) + " bits";
  switch (type & 0xf0) {
    case 0x10:
      return "unsigned integers of " + bits;
    case 0x20:
      return "signed integers of " + bits;
    case 0x30:
      return "floating-point numbers of " + bits;
    default:
      return "an unknown type";
  }
}

template <class T>
T little_endian(T value) {
  if constexpr (std::endian::native == std::endian::big && sizeof(T) > 1) {
    std::array<std::byte, sizeof(T)> raw;
    std::memcpy(raw.data(), &value, sizeof(T));
    std::reverse(raw.begin(), raw.end());
    std::memcpy(&value, raw.data(), sizeof(T));
  }
  return value;
}

template <class T>
T read_little_endian(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return little_endian(value);
}

/// 64 bits over four lanes of words. Every step is invertible in the word and in the lane, so a
/// change within any one word always changes the sum.
inline std::uint64_t archive_checksum(std::span<const std::byte> bytes) {
  constexpr std::uint64_t odd = 0x9E3779B97F4A7C15ULL;
  std::array<std::uint64_t, 4> lanes = {1, 2, 3, 4};
  const auto step = [](std::uint64_t lane, std::uint64_t word) {
    lane = (lane ^ word) * 0xD1342543DE82EF95ULL;
    return lane ^ (lane >> 29);
  };
  std::size_t at = 0;
  for (; bytes.size() - at >= 32; at += 32) {
    for (std::size_t l = 0; l < 4; ++l) {
      lanes[l] = step(lanes[l], read_little_endian<std::uint64_t>(bytes.data() + at + 8 * l));
    }
  }
  std::array<std::byte, 32> rest{};
  if (at < bytes.size()) std::memcpy(rest.data(), bytes.data() + at, bytes.size() - at);
  for (std::size_t l = 0; l < 4; ++l) {
    lanes[l] = step(lanes[l], read_little_endian<std::uint64_t>(rest.data() + 8 * l));
  }
  std::uint64_t sum = bytes.size() * odd;
  for (std::uint64_t lane : lanes) sum = step(sum, lane);
  return sum;
}

}  // namespace detail

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_DETAIL_ARCHIVE_FORMAT_HPP
