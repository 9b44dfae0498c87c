// SPDX-License-Identifier: Apache-2.0

/// \file
/// Chooses the buckets through which a column's codes are found; see kernels::CodeBuckets.

#ifndef QUERN_TREE_DETAIL_CODE_BUCKETS_HPP
#define QUERN_TREE_DETAIL_CODE_BUCKETS_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/tree_predict_types.hpp"
#include "quern/tree/float_key.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// The bucket of a key; the kernel's arithmetic, a key at a time.
[[nodiscard]] inline std::int32_t bucket_of_key(const kernels::CodeBuckets& map,
                                                std::int32_t key) noexcept {
  const std::int32_t clamped = (std::clamp)(key, map.low, map.high);
  if (map.scale == 0.0f) {
    const auto above = static_cast<std::uint32_t>(clamped) - static_cast<std::uint32_t>(map.low);
    return static_cast<std::int32_t>(above >> map.shift);
  }
  return static_cast<std::int32_t>(float_of_key<float>(clamped) * map.scale) - map.base;
}

/// Most thresholds in one bucket. \p table: the thresholds' keys minus one, ascending.
[[nodiscard]] inline std::int32_t fullest_bucket(const kernels::CodeBuckets& map,
                                                 const std::int32_t* table, std::int32_t count) {
  std::int32_t most = 0, run = 0, before = -1;
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int32_t bucket = bucket_of_key(map, table[i] + 1);
    run = bucket == before ? run + 1 : 1;
    before = bucket;
    most = (std::max)(most, run);
  }
  return most;
}

/// Buckets of equal width in the keys, which is to say in the numbers' logarithms.
[[nodiscard]] inline kernels::CodeBuckets key_buckets(std::int32_t low,
                                                      std::int32_t high) noexcept {
  kernels::CodeBuckets map{.low = low, .high = high, .base = 0, .shift = 0, .scale = 0};
  const auto range = static_cast<std::uint32_t>(high) - static_cast<std::uint32_t>(low);
  while ((range >> map.shift) >= static_cast<std::uint32_t>(kernels::code_buckets)) ++map.shift;
  return map;
}

/// Buckets of equal width in the numbers; without a scale where there are none.
[[nodiscard]] inline kernels::CodeBuckets value_buckets(std::int32_t low,
                                                        std::int32_t high) noexcept {
  kernels::CodeBuckets map{.low = low, .high = high, .base = 0, .shift = 0, .scale = 0};
  constexpr std::int32_t infinity = infinity_key<std::int32_t>;
  if (low <= -infinity || high >= infinity) return map;
  const auto from = static_cast<double>(float_of_key<float>(low));
  const auto to = static_cast<double>(float_of_key<float>(high));
  // Products stay within 2^30, and subnormal numbers, which some flags flush, within bucket 0.
  const double largest = (std::max)(std::abs(from), std::abs(to));
  if (!(largest > 0x1p-60) || !(largest < 0x1p60)) return map;
  int exponent = (std::min)(90, 29 - std::ilogb(largest));
  const double room = kernels::code_buckets - 1;
  const auto buckets = [&] {
    return std::trunc(std::ldexp(to, exponent)) - std::trunc(std::ldexp(from, exponent));
  };
  while (buckets() > room && exponent > -90) --exponent;
  if (buckets() > room) return map;
  map.scale = static_cast<float>(std::ldexp(1.0, exponent));
  map.base = static_cast<std::int32_t>(float_of_key<float>(low) * map.scale);
  return map;
}

/// The buckets of a column with so many thresholds, and their starts; shift is -1 where the
/// thresholds lie so unevenly that there are none.
inline kernels::CodeBuckets choose_buckets(const std::int32_t* table, std::int32_t count,
                                           std::uint8_t* starts) {
  std::fill_n(starts, kernels::code_buckets, std::uint8_t{0});
  if (count == 0) return {};
  const std::int32_t low = table[0], high = table[count - 1] + 1;
  kernels::CodeBuckets best = key_buckets(low, high);
  std::int32_t most = fullest_bucket(best, table, count);
  const kernels::CodeBuckets even = value_buckets(low, high);
  if (even.scale != 0.0f) {
    const std::int32_t fullest = fullest_bucket(even, table, count);
    if (fullest < most) best = even;
    most = (std::min)(most, fullest);
  }
  if (most > kernels::bucket_thresholds) return {};
  std::array<std::int32_t, kernels::code_buckets + 1> before{};  // thresholds by bucket, then sums
  for (std::int32_t i = 0; i < count; ++i)
    ++before[static_cast<std::size_t>(bucket_of_key(best, table[i] + 1)) + 1];
  for (std::size_t b = 0; b < std::size_t{kernels::code_buckets}; ++b) {
    before[b + 1] += before[b];
    starts[b] = static_cast<std::uint8_t>((std::min)(before[b], 256 - kernels::bucket_thresholds));
  }
  return best;
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_CODE_BUCKETS_HPP
