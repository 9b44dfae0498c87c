// SPDX-License-Identifier: Apache-2.0

/// \file
/// The kernels of the causal convolution, of token shifts and of looks for what is not finite, at
/// every level: against sums written out, at sizes around the vector width.

#include "quern/core/buffer.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::causal_conv_kernel {
namespace {

template <class T>
std::vector<T> drawn(std::ptrdiff_t n, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<T> x(static_cast<std::size_t>(n));
  for (T& value : x) value = static_cast<T>(normal(random));
  return x;
}

template <class T>
void expect_conv(std::ptrdiff_t steps, std::ptrdiff_t channels, std::ptrdiff_t taps) {
  const std::ptrdiff_t stride = channels + 2, kept = taps - 1;
  const auto x = drawn<T>(steps * stride, 1), before = drawn<T>(kept * stride, 2);
  const auto w = drawn<T>(taps * stride, 3), bias = drawn<T>(channels, 4);
  const auto dy = drawn<T>(steps * stride, 5);
  std::vector<T> y(x.size()), dx(x.size()), dbefore(before.size());
  std::vector<double> gx(x.size()), gbefore(before.size()), gw(w.size()), gbias(bias.size());
  kernels::CausalConvTask<T> task;
  task.steps = steps;
  task.channels = channels;
  task.taps = taps;
  task.x = {x.data(), stride};
  task.before = {before.data(), stride};
  task.weight = {w.data(), stride};
  task.bias = bias.data();
  task.y = {y.data(), stride};
  const auto at = [&](std::ptrdiff_t i, std::ptrdiff_t j) {
    return static_cast<std::size_t>(i * stride + j);
  };
  for (std::ptrdiff_t t = 0; t < steps; ++t) {
    for (std::ptrdiff_t i = 0; i < channels; ++i) {
      const double g = dy[at(t, i)];
      gbias[static_cast<std::size_t>(i)] += g;
      for (std::ptrdiff_t k = 0; k < taps; ++k) {
        const std::ptrdiff_t from = t + k - kept;
        const bool old = from < 0;
        const std::size_t place = old ? at(t + k, i) : at(from, i);
        (old ? gbefore : gx)[place] += g * static_cast<double>(w[at(k, i)]);
        gw[at(k, i)] += g * static_cast<double>(old ? before[place] : x[place]);
      }
    }
  }
  const double unit = 30 * static_cast<double>(std::numeric_limits<T>::epsilon());
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    EXPECT_TRUE(QUERN_DISPATCH(causal_conv<T>(task)));
    std::vector<T> dw(w.size()), dbias(bias.size());
    kernels::CausalConvVjpTask<T> back;
    back.conv = task;
    back.dy = {dy.data(), stride};
    back.dx = {dx.data(), stride};
    back.dbefore = {dbefore.data(), stride};
    back.dweight = {dw.data(), stride};
    back.dbias = dbias.data();
    core::Buffer<T> scratch(
        static_cast<std::size_t>((kernels::causal_conv_tile + taps) * (channels + 64)));
    back.scratch = scratch.data();
    QUERN_DISPATCH(causal_conv_vjp<T>(back));
    for (std::ptrdiff_t i = 0; i < channels; ++i) {
      const auto c = static_cast<std::size_t>(i);
      for (std::ptrdiff_t t = 0; t < steps; ++t) {
        double sum = bias[c];
        for (std::ptrdiff_t k = 0; k < taps; ++k) {
          const std::ptrdiff_t from = t + k - kept;
          sum += static_cast<double>(w[at(k, i)]) *
                 static_cast<double>(from < 0 ? before[at(t + k, i)] : x[at(from, i)]);
        }
        ASSERT_NEAR(static_cast<double>(y[at(t, i)]), sum, unit);
        ASSERT_NEAR(static_cast<double>(dx[at(t, i)]), gx[at(t, i)], unit);
      }
      for (std::ptrdiff_t j = 0; j < kept; ++j) {
        ASSERT_NEAR(static_cast<double>(dbefore[at(j, i)]), gbefore[at(j, i)], unit);
      }
      for (std::ptrdiff_t k = 0; k < taps; ++k) {
        ASSERT_NEAR(static_cast<double>(dw[at(k, i)]), gw[at(k, i)], 10 * unit);
      }
      ASSERT_NEAR(static_cast<double>(dbias[c]), gbias[c], 10 * unit);
    }
  }
}

TEST(CausalConvKernel, EveryLevel) {
  expect_conv<float>(70, 7, 4);
  expect_conv<float>(130, 65, 3);
  expect_conv<double>(65, 9, 4);
  expect_conv<double>(2, 33, 5);
  expect_conv<double>(3, 5, 1);
  expect_conv<float>(0, 5, 4);
}

TEST(FiniteKernel, EveryLevel) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t n : {0u, 1u, 7u, 16u, 33u, 70u}) {
      std::vector<float> x(n, -1.0F);
      EXPECT_TRUE(QUERN_DISPATCH(every_finite<float>(x.data(), n)));
      EXPECT_TRUE(QUERN_DISPATCH(every_at_most_zero<float>(x.data(), n)));
      for (std::size_t i = 0; i < n; ++i) {
        for (const float odd : {infinity, -infinity, nan, -nan, 1.0F, 0.0F, -0.0F}) {
          x[i] = odd;
          EXPECT_EQ(QUERN_DISPATCH(every_finite<float>(x.data(), n)), std::isfinite(odd));
          EXPECT_EQ(QUERN_DISPATCH(every_at_most_zero<float>(x.data(), n)), odd <= 0);
        }
        x[i] = -1;
      }
      std::fill(x.begin(), x.end(), 0.5F);
      EXPECT_TRUE(QUERN_DISPATCH(every_in_unit<float>(x.data(), n)));
      for (std::size_t i = 0; i < n; ++i) {
        for (const float odd : {infinity, -infinity, nan, -nan, 1.0F, 0.0F, -1e-9F, 1.0000001F}) {
          x[i] = odd;
          EXPECT_EQ(QUERN_DISPATCH(every_in_unit<float>(x.data(), n)), odd >= 0 && odd <= 1);
        }
        x[i] = 1;
      }
    }
  }
}

TEST(MixingKernel, EveryLevel) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::ptrdiff_t n : {1, 7, 16, 35}) {
      const auto now = drawn<double>(n, 1), past = drawn<double>(n, 2), mix = drawn<double>(n, 3);
      const auto dy = drawn<double>(n, 4), later = drawn<double>(n, 5);
      const auto size = static_cast<std::size_t>(n);
      std::vector<double> y(size), dx(size, 1.0), sums(size, 2.0), products(size, 3.0);
      QUERN_DISPATCH(mix_rows<double>(now.data(), past.data(), mix.data(), size, y.data()));
      QUERN_DISPATCH(
          mix_rows_gradient<double>(dy.data(), later.data(), mix.data(), size, false, dx.data()));
      QUERN_DISPATCH(
          add_mix_gradient<double>(now.data(), past.data(), dy.data(), size, sums.data()));
      QUERN_DISPATCH(add_products<double>(now.data(), past.data(), size, products.data()));
      for (std::size_t i = 0; i < size; ++i) {
        EXPECT_NEAR(y[i], mix[i] * now[i] + (1 - mix[i]) * past[i], 1e-14);
        EXPECT_NEAR(dx[i], 1 + mix[i] * dy[i] + (1 - mix[i]) * later[i], 1e-14);
        EXPECT_NEAR(sums[i], 2 + dy[i] * (now[i] - past[i]), 1e-14);
        EXPECT_NEAR(products[i], 3 + now[i] * past[i], 1e-14);
      }
      QUERN_DISPATCH(mix_rows<double>(now.data(), nullptr, mix.data(), size, y.data()));
      for (std::size_t i = 0; i < size; ++i) EXPECT_NEAR(y[i], mix[i] * now[i], 1e-14);
    }
  }
}

}  // namespace
}  // namespace quern::test::causal_conv_kernel
