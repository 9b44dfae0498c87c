// SPDX-License-Identifier: Apache-2.0

/// \file
/// Transforms of tiles of channels against sums by definition, at every level: powers of two and
/// other lengths, there and back, products of rows, and tables' products.

#include "quern/kernels/fft.hpp"

#include "quern/core/buffer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstddef>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

namespace quern::test::fft_kernels {
namespace {

using Complex = std::complex<double>;

template <class T>
Complex point(const core::Buffer<T>& z, std::size_t j, std::size_t lane) {
  const T* at = z.data() + j * kernels::fft_point<T> + lane;
  return {static_cast<double>(at[0]), static_cast<double>(at[kernels::fft_lanes<T>])};
}

template <class T>
core::Buffer<T> random_tile(std::size_t points, std::size_t size, unsigned seed) {
  core::Buffer<T> z(size);
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  for (std::size_t i = 0; i < points * kernels::fft_point<T>; ++i) {
    z[i] = static_cast<T>(normal(random));
  }
  return z;
}

/// Root mean square of the difference, relative to that of the sum's terms.
template <class T>
void check_length(std::size_t n) {
  const kernels::Fft<T> fft(n);
  const core::Buffer<T> x = random_tile<T>(n, fft.tile_size(), static_cast<unsigned>(n));
  core::Buffer<T> z = x.clone();
  fft.forward(z.data());
  const double bound = 8 * std::numeric_limits<T>::epsilon() * std::sqrt(double(n)) *
                       (1 + std::log2(static_cast<double>(n)));
  for (const std::size_t lane : {std::size_t{0}, kernels::fft_lanes<T> - 1}) {
    for (std::size_t p = 0; p < n; ++p) {
      const std::size_t f = fft.frequencies()[p];
      Complex sum = 0;
      for (std::size_t t = 0; t < n; ++t) {
        const double turn = -2 * std::numbers::pi * double(f * t % n) / double(n);
        sum += point(x, t, lane) * std::polar(1.0, turn);
      }
      ASSERT_LE(std::abs(point(z, p, lane) - sum), bound) << n << " points, frequency " << f;
    }
  }
  fft.inverse(z.data());
  for (std::size_t t = 0; t < n; ++t) {
    for (std::size_t lane = 0; lane < kernels::fft_lanes<T>; ++lane) {
      const Complex back = point(z, t, lane) / static_cast<double>(n);
      ASSERT_LE(std::abs(back - point(x, t, lane)), bound) << n << " points";
    }
  }
}

template <class T>
void check_lengths() {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t n :
         {1U, 2U, 3U, 4U, 5U, 7U, 8U, 12U, 13U, 16U, 32U, 45U, 64U, 128U, 255U, 256U}) {
      check_length<T>(n);
    }
  }
}

TEST(FftKernels, FloatOfAnyLength) { check_lengths<float>(); }
TEST(FftKernels, DoubleOfAnyLength) { check_lengths<double>(); }

/// Products and correlations of rows of some channels, and nothing else touched.
template <class T>
void check_rows(std::size_t points, std::size_t n, std::size_t m, std::size_t channels) {
  const kernels::FftTask<T> task = kernels::FftTables<T>::of(points).task();
  const std::size_t stride = channels + 3, tile = points * kernels::fft_point<T>;
  std::mt19937_64 random(points + n + channels);
  std::normal_distribution<double> normal;
  std::vector<T> x(n * stride), y(m * stride), low(points * stride, T{-7}), high(low);
  for (T& v : x) v = static_cast<T>(normal(random));
  for (T& v : y) v = static_cast<T>(normal(random));
  core::Buffer<T> a(tile), b(tile), c(tile, core::Fill::zero);
  const auto step = static_cast<std::ptrdiff_t>(stride);
  const kernels::FftRows<const T> xs{x.data(), step, n, channels}, ys{y.data(), step, m, channels};
  const kernels::FftRows<T> lows{low.data(), step, points - 1, channels};
  const kernels::FftRows<T> highs{high.data(), step, points, channels};
  QUERN_DISPATCH(fft_forward_rows<T>(task, xs, a.data()));
  QUERN_DISPATCH(fft_forward_rows<T>(task, ys, b.data()));
  QUERN_DISPATCH(fft_accumulate<T>(points, a.data(), b.data(), false, c.data()));
  QUERN_DISPATCH(fft_multiply<T>(points, a.data(), b.data(), false, a.data()));
  QUERN_DISPATCH(fft_inverse_rows<T>(task, a.data(), lows, false, highs, false));
  const double bound = 40 * std::numeric_limits<T>::epsilon() * std::sqrt(double(n + m)) *
                       (1 + std::log2(static_cast<double>(points)));
  const auto product = [&](std::size_t lag, std::size_t k) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (lag >= i && lag - i < m)
        sum += double(x[i * stride + k]) * double(y[(lag - i) * stride + k]);
    }
    return sum;
  };
  const auto correlation = [&](std::ptrdiff_t lag, std::size_t k) {
    double sum = 0;
    for (std::size_t j = 0; j < m; ++j) {
      const std::ptrdiff_t i = lag + static_cast<std::ptrdiff_t>(j);
      if (i < 0 || i >= static_cast<std::ptrdiff_t>(n)) continue;
      sum += double(x[static_cast<std::size_t>(i) * stride + k]) * double(y[j * stride + k]);
    }
    return sum;
  };
  for (std::size_t j = 0; j < points; ++j) {
    for (std::size_t k = 0; k < stride; ++k) {
      const bool written = k < channels;
      const double want_low = written && j + 1 < points ? product(j, k) : -7;
      ASSERT_NEAR(low[j * stride + k], want_low, bound) << points << ' ' << j;
      ASSERT_NEAR(high[j * stride + k], written ? product(points + j, k) : -7, bound);
    }
  }
  std::vector<T> low2(low.size(), T{1}), high2(low.size(), T{-7});
  core::Buffer<T> work(tile);
  QUERN_DISPATCH(fft_convolve_rows<T>(task, xs, b.data(), work.data(),
                                      {low2.data(), step, points - 1, channels}, true,
                                      {high2.data(), step, points, channels}));
  for (std::size_t j = 0; j + 1 < points; ++j) {
    for (std::size_t k = 0; k < stride; ++k) {
      ASSERT_NEAR(low2[j * stride + k], k < channels ? 1 + low[j * stride + k] : T{1}, bound);
      ASSERT_NEAR(high2[j * stride + k], high[j * stride + k], bound);
    }
  }
  QUERN_DISPATCH(fft_inverse_rows<T>(task, c.data(), lows, true, highs, true));
  for (std::size_t j = 0; j + 1 < points; ++j) {
    for (std::size_t k = 0; k < channels; ++k) {
      const auto lag = static_cast<std::ptrdiff_t>(j);
      ASSERT_NEAR(low[j * stride + k], product(j, k) + correlation(lag, k), 2 * bound);
      ASSERT_NEAR(high[j * stride + k], correlation(lag - static_cast<std::ptrdiff_t>(points), k),
                  bound);
    }
  }
}

template <class T>
void check_all_rows() {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t points : {4U, 8U, 16U, 64U, 128U, 1024U}) {
      for (const std::size_t channels : {std::size_t{1}, std::size_t{5}, kernels::fft_lanes<T>}) {
        if (points <= 128) check_rows<T>(points, points, points, channels);
        check_rows<T>(points, points - 3, 1, channels);
      }
    }
  }
}

TEST(FftKernels, FloatProductsOfRows) { check_all_rows<float>(); }
TEST(FftKernels, DoubleProductsOfRows) { check_all_rows<double>(); }

TEST(FftKernels, LongFloatTransformsStayPrecise) {
  constexpr std::size_t n = std::size_t{1} << 14;
  const kernels::Fft<float> fft(n);
  const kernels::Fft<double> exact(n);
  core::Buffer<float> x = random_tile<float>(n, fft.tile_size(), 1);
  core::Buffer<double> y(exact.tile_size(), core::Fill::zero);
  for (std::size_t j = 0; j < n; ++j) {
    y[j * kernels::fft_point<double>] = point(x, j, 3).real();
    y[j * kernels::fft_point<double> + kernels::fft_lanes<double>] = point(x, j, 3).imag();
  }
  fft.forward(x.data());
  exact.forward(y.data());
  double error = 0, size = 0;
  for (std::size_t j = 0; j < n; ++j) {
    error += std::norm(point(x, j, 3) - point(y, j, 0));
    size += std::norm(point(y, j, 0));
  }
  EXPECT_LT(std::sqrt(error / size), 4e-7);
}

}  // namespace
}  // namespace quern::test::fft_kernels
