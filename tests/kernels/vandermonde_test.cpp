// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sums of powers and their moments against sums by definition in double, at every level: rows
/// around a block, any number of modes and channels, added to or not, backwards.

#include "quern/kernels/kernels.hpp"

#include "quern/core/buffer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::vandermonde_kernels {
namespace {

using Complex = std::complex<double>;

template <class T>
struct Modes {
  static constexpr std::size_t lanes = kernels::power_lanes<T>;
  std::size_t modes;
  std::vector<Complex> q_values, g_values;
  core::Buffer<T> q;
  core::Buffer<double> q_block, q_slope, g;

  explicit Modes(std::size_t count)
      : modes(count),
        q(count * 2 * lanes),
        q_block(count * 2 * lanes),
        q_slope(count * 2 * lanes),
        g(count * 2 * lanes) {
    std::mt19937_64 random(count);
    std::uniform_real_distribution<double> uniform;
    const double block = static_cast<double>(kernels::power_block);
    for (std::size_t m = 0; m < count; ++m) {
      for (std::size_t k = 0; k < lanes; ++k) {
        const std::size_t at = m * 2 * lanes + k;
        q[at] = static_cast<T>((0.8 + 0.15 * uniform(random)) * std::cos(6 * uniform(random)));
        q[at + lanes] = static_cast<T>(0.1 * uniform(random));
        const Complex value(q[at], q[at + lanes]), weight(uniform(random), uniform(random));
        q_values.push_back(value);
        g_values.push_back(weight);
        const Complex far = std::pow(value, block), slope = block * std::pow(value, block - 1);
        q_block[at] = far.real(), q_block[at + lanes] = far.imag();
        q_slope[at] = slope.real(), q_slope[at + lanes] = slope.imag();
        g[at] = weight.real(), g[at + lanes] = weight.imag();
      }
    }
  }
};

template <class T>
void check(std::size_t modes, std::size_t rows, std::size_t channels, bool backwards) {
  constexpr std::size_t lanes = kernels::power_lanes<T>;
  Modes<T> m(modes);
  const std::size_t stride = channels + 2;
  std::vector<T> out(rows * stride + 1, T{-7});
  const std::ptrdiff_t step = static_cast<std::ptrdiff_t>(stride) * (backwards ? -1 : 1);
  T* const start = out.data() + (backwards && rows > 0 ? (rows - 1) * stride : 0);
  kernels::PowerSumTask<T> sum{modes,      rows,  channels, m.q.data(), m.q_block.data(),
                               m.g.data(), start, step,     backwards};
  QUERN_DISPATCH(power_sum<T>(sum));
  kernels::PowerMomentsTask<T> moments{};
  core::Buffer<double> p(modes * 2 * lanes), r(modes * 2 * lanes);
  std::vector<T> x(rows * stride + 1);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(std::sin(double(i * i)));
  moments = {modes,
             rows,
             channels,
             m.q.data(),
             m.q_block.data(),
             m.q_slope.data(),
             x.data() + (start - out.data()),
             step,
             p.data(),
             r.data()};
  QUERN_DISPATCH(power_moments<T>(moments));
  const double bound = 100 * std::numeric_limits<T>::epsilon();
  std::vector<Complex> ps(modes * lanes), rs(modes * lanes);
  double scale_p = 1, scale_r = 1;
  for (std::size_t l = 0; l < rows; ++l) {
    const std::size_t row = backwards ? rows - 1 - l : l;
    for (std::size_t k = 0; k < stride; ++k) {
      double want = backwards || k >= channels ? -7 : 0;
      for (std::size_t n = 0; n < modes && k < channels; ++n) {
        const Complex q = m.q_values[n * lanes + k];
        const Complex power = l == 0 ? Complex(1) : std::pow(q, double(l));
        want += (m.g_values[n * lanes + k] * power).real();
        const double value = x[row * stride + k];
        ps[n * lanes + k] += value * power;
        if (l > 0) rs[n * lanes + k] += double(l) * value * std::pow(q, double(l - 1));
        scale_p = std::fmax(scale_p, std::abs(ps[n * lanes + k]));
        scale_r = std::fmax(scale_r, std::abs(rs[n * lanes + k]));
      }
      ASSERT_NEAR(out[row * stride + k], want, bound * double(modes + 8)) << l << ' ' << k;
    }
  }
  for (std::size_t n = 0; n < modes; ++n) {
    for (std::size_t k = 0; k < channels; ++k) {
      const std::size_t at = n * 2 * lanes + k;
      ASSERT_LE(std::abs(Complex(p[at], p[at + lanes]) - ps[n * lanes + k]), bound * scale_p);
      ASSERT_LE(std::abs(Complex(r[at], r[at + lanes]) - rs[n * lanes + k]), bound * scale_r);
    }
  }
}

template <class T>
void check_all() {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t rows : {0U, 1U, 31U, 32U, 33U, 100U}) {
      for (const std::size_t modes : {1U, 4U, 7U}) {
        check<T>(modes, rows, kernels::power_lanes<T>, false);
        check<T>(modes, rows, 3, true);
      }
    }
  }
}

TEST(VandermondeKernels, FloatAgainstSums) { check_all<float>(); }
TEST(VandermondeKernels, DoubleAgainstSums) { check_all<double>(); }

}  // namespace
}  // namespace quern::test::vandermonde_kernels
