// SPDX-License-Identifier: Apache-2.0

/// \file
/// Turning pairs at every level against the definition, in place too.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::rotary_kernel {
namespace {

template <class T>
void expect_turned(std::size_t pairs) {
  std::mt19937_64 random(pairs);
  std::uniform_real_distribution<double> uniform(-3, 3);
  const std::size_t n = 2 * pairs;
  std::vector<T> x(n), c(pairs), s(pairs), c2(n), s2(n), y(n + 1, T{7});
  for (T& value : x) value = static_cast<T>(uniform(random));
  for (std::size_t i = 0; i < pairs; ++i) {
    const double angle = uniform(random);
    c[i] = c2[2 * i] = c2[2 * i + 1] = static_cast<T>(std::cos(angle));
    s[i] = s2[2 * i + 1] = static_cast<T>(std::sin(angle));
    s2[2 * i] = -s[i];
  }
  const auto check = [&](std::size_t step, std::size_t apart) {
    const double bound = 8 * static_cast<double>(std::numeric_limits<T>::epsilon());
    for (std::size_t i = 0; i < pairs; ++i) {
      const double a = static_cast<double>(x[i * step]);
      const double b = static_cast<double>(x[i * step + apart]);
      const double cosine = static_cast<double>(c[i]), sine = static_cast<double>(s[i]);
      ASSERT_NEAR(static_cast<double>(y[i * step]), a * cosine - b * sine, bound) << i;
      ASSERT_NEAR(static_cast<double>(y[i * step + apart]), a * sine + b * cosine, bound) << i;
    }
    EXPECT_EQ(y[n], T{7}) << "after the last";
  };
  QUERN_DISPATCH(turn_adjacent<T>(x.data(), n, c2.data(), s2.data(), y.data()));
  check(2, 1);
  QUERN_DISPATCH(turn_halves<T>(x.data(), pairs, c.data(), s.data(), y.data()));
  check(1, pairs);
  std::vector<T> own = x;
  QUERN_DISPATCH(turn_halves<T>(own.data(), pairs, c.data(), s.data(), own.data()));
  EXPECT_TRUE(std::equal(own.begin(), own.end(), y.begin()));
  QUERN_DISPATCH(turn_adjacent<T>(x.data(), n, c2.data(), s2.data(), y.data()));
  own = x;
  QUERN_DISPATCH(turn_adjacent<T>(own.data(), n, c2.data(), s2.data(), own.data()));
  EXPECT_TRUE(std::equal(own.begin(), own.end(), y.begin()));
}

TEST(RotaryKernel, EveryLevel) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t pairs : std::initializer_list<std::size_t>{0, 1, 2, 3, 8, 13, 16, 33}) {
      expect_turned<float>(pairs);
      expect_turned<double>(pairs);
    }
  }
}

}  // namespace
}  // namespace quern::test::rotary_kernel
