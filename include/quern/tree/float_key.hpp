// SPDX-License-Identifier: Apache-2.0

/// \file
/// Floating-point numbers as integers of the same order (see kernels/tree_predict_types.hpp).

#ifndef QUERN_TREE_FLOAT_KEY_HPP
#define QUERN_TREE_FLOAT_KEY_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/tree_predict_types.hpp"

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Integer that holds the key of a T.
template <class T>
using KeyOf = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

/// Bits of +infinity.
template <class Key>
inline constexpr Key infinity_key = sizeof(Key) == 4 ? static_cast<Key>(0x7f800000)
                                                     : static_cast<Key>(0x7ff0000000000000LL);

/// Keys order as numbers do, -0 and +0 have the same, and every NaN has missing_key.
template <class T>
[[nodiscard]] constexpr KeyOf<T> float_key(T x) noexcept {
  using Key = KeyOf<T>;
  const Key bits = std::bit_cast<Key>(x);
  const Key magnitude = bits & (std::numeric_limits<Key>::max)();
  if (magnitude > infinity_key<Key>) return kernels::missing_key<Key>;
  return bits < 0 ? -magnitude : magnitude;
}

/// The number of a key, which must not be missing_key.
template <class T>
[[nodiscard]] constexpr T float_of_key(KeyOf<T> key) noexcept {
  using Key = KeyOf<T>;
  return std::bit_cast<T>(key < 0 ? static_cast<Key>(-key | kernels::missing_key<Key>) : key);
}

/// The smallest float that is at least \p t (not NaN): x < t and x < round_up_to_float(t) are the
/// same for every float x.
[[nodiscard]] constexpr float round_up_to_float(double t) noexcept {
  constexpr double largest = (std::numeric_limits<float>::max)();
  if (t > largest) return std::bit_cast<float>(infinity_key<std::int32_t>);
  if (t < -largest) {
    const bool infinite = float_key(t) == -infinity_key<std::int64_t>;
    return infinite ? std::bit_cast<float>(std::int32_t(-0x800000)) : -static_cast<float>(largest);
  }
  const float nearest = static_cast<float>(t);
  if (float_key(static_cast<double>(nearest)) >= float_key(t)) return nearest;
  return float_of_key<float>(float_key(nearest) + 1);
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_FLOAT_KEY_HPP
