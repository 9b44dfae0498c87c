// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sine and cosine at every level against long double.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::sincos_kernel {
namespace {

template <class T>
void expect_right() {
  std::mt19937_64 random(1);
  std::vector<T> x = {T{0}, T{-0.0}, std::numeric_limits<T>::denorm_min()};
  for (const double size : {1e-6, 1e-2, 1.0, 10.0, 1e3, 1e5}) {
    std::uniform_real_distribution<double> uniform(-size, size);
    for (int k = 0; k < 501; ++k) x.push_back(static_cast<T>(uniform(random)));
  }
  std::vector<T> s(x.size()), c(x.size());
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const bool fused = level != simd::Level::scalar && level != simd::Level::emu128;
    QUERN_DISPATCH(sin_cos_of<T>(x.data(), x.size(), s.data(), c.data()));
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto exact = static_cast<long double>(x[i]);
      const double unit = static_cast<double>(std::numeric_limits<T>::epsilon());
      const double bound = unit * (1 + (fused ? 0 : std::fabs(static_cast<double>(x[i])) / 2));
      ASSERT_NEAR(static_cast<double>(s[i]), static_cast<double>(std::sin(exact)), bound) << x[i];
      ASSERT_NEAR(static_cast<double>(c[i]), static_cast<double>(std::cos(exact)), bound) << x[i];
    }
    const T odd[2] = {std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN()};
    QUERN_DISPATCH(sin_cos_of<T>(odd, 2, s.data(), c.data()));
    for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(std::isnan(s[i]) && std::isnan(c[i]));
  }
}

TEST(SinCosKernel, EveryLevel) {
  expect_right<float>();
  expect_right<double>();
}

}  // namespace
}  // namespace quern::test::sincos_kernel
