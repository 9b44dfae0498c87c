// SPDX-License-Identifier: Apache-2.0

/// \file
/// Kernels of gated units against plain loops in double, at every level: sizes around the vector
/// width, biases along diagonals, derivatives against differences.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::gated_unit {
namespace {

template <class T>
std::vector<T> normal(std::size_t n, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> draw;
  std::vector<T> x(n);
  for (T& value : x) value = static_cast<T>(draw(random));
  return x;
}

double squared_relu(double x) { return x > 0 ? x * x : 0; }
double laplace(double x) {
  const double s = std::sqrt(1 / (4 * 3.14159265358979323846));
  return 0.5 * (1 + std::erf((x - std::sqrt(0.5)) / (s * std::sqrt(2.0))));
}

template <class T, class F>
void check_activation(const F& f, double (*exact)(double), std::size_t cols) {
  const std::size_t rows = 3, stride = cols + 2;
  const std::vector<T> x = normal<T>(rows * stride, 1), g = normal<T>(rows * stride, 2);
  const std::vector<T> bias = normal<T>(rows + cols, 3);
  const T scale = T(0.7);
  const double unit = std::numeric_limits<T>::epsilon();
  for (const bool biased : {false, true}) {
    std::vector<T> y = x, both = x, slope = g;
    const T* const first = biased ? bias.data() + rows - 1 : nullptr;
    const auto step = static_cast<std::ptrdiff_t>(stride);
    QUERN_DISPATCH(biased_activation_rows(f, rows, cols, scale, first, y.data(), step));
    QUERN_DISPATCH(biased_activation_rows_gradient(f, rows, cols, scale, first, both.data(), step,
                                                   slope.data(), step));
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < stride; ++j) {
        const std::size_t at = i * stride + j;
        if (j >= cols) {
          ASSERT_EQ(y[at], x[at]);
          ASSERT_EQ(slope[at], g[at]);
          continue;
        }
        const double argument = static_cast<double>(scale) * static_cast<double>(x[at]) +
                                (biased ? static_cast<double>(bias[rows - 1 + j - i]) : 0.0);
        const double h = 1e-6;
        const double derivative = (exact(argument + h) - exact(argument - h)) / (2 * h);
        ASSERT_NEAR(static_cast<double>(y[at]), exact(argument), 32 * unit);
        ASSERT_EQ(both[at], y[at]);
        ASSERT_NEAR(static_cast<double>(slope[at]), static_cast<double>(g[at]) * derivative,
                    64 * unit + 1e-8);
      }
    }
  }
}

template <class T>
void check_elements(std::size_t n) {
  const std::vector<T> a = normal<T>(n, 4), b = normal<T>(n, 5), c = normal<T>(n, 6);
  std::vector<T> product(n), sum = c, offset(n), dgamma = b, dbeta = c;
  QUERN_DISPATCH(multiply(a.data(), b.data(), n, product.data()));
  QUERN_DISPATCH(multiply_add(a.data(), b.data(), n, sum.data()));
  QUERN_DISPATCH(scale_offset_rows(1, n, a.data(), 0, b.data(), c.data(), offset.data(), 0));
  QUERN_DISPATCH(
      scale_offset_rows_gradient(2, n, a.data(), 0, b.data(), 0, dgamma.data(), dbeta.data()));
  const double tolerance = 8 * std::numeric_limits<T>::epsilon() * 10;
  for (std::size_t i = 0; i < n; ++i) {
    const double x = a[i], y = b[i], z = c[i];
    ASSERT_EQ(product[i], a[i] * b[i]);
    ASSERT_NEAR(sum[i], x * y + z, tolerance);
    ASSERT_NEAR(offset[i], x * y + z, tolerance);
    ASSERT_NEAR(dgamma[i], y + 2 * x * y, tolerance);
    ASSERT_NEAR(dbeta[i], z + 2 * y, tolerance);
  }
}

template <class T>
void check_levels() {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t n : {1U, 7U, 8U, 15U, 16U, 17U, 50U}) {
      check_activation<T>(kernels::SquaredRelu{}, squared_relu, n);
      check_activation<T>(kernels::LaplaceActivation{}, laplace, n);
      check_elements<T>(n);
    }
  }
}
TEST(GatedUnitKernels, FloatAtEveryLevel) { check_levels<float>(); }
TEST(GatedUnitKernels, DoubleAtEveryLevel) { check_levels<double>(); }

}  // namespace
}  // namespace quern::test::gated_unit
