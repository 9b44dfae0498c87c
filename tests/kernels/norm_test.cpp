// SPDX-License-Identifier: Apache-2.0

/// \file
/// Kernels of normalisation against double, at every level, at lengths
/// around the vector and the run, and without touching what lies beside.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::norm {
namespace {

template <class T>
class NormKernels : public ::testing::Test {
 protected:
  static constexpr double unit = std::numeric_limits<T>::epsilon() / 2;
  static std::vector<T> draw(std::size_t n, unsigned seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal(0.5, 1);
    std::vector<T> x(n);
    for (T& value : x) value = static_cast<T>(normal(random));
    return x;
  }
  template <class Fn>
  static void at_all(const Fn& fn) {
    for (const std::size_t n : {0u, 1u, 5u, 16u, 17u, 64u, 1023u, 1030u, 2100u}) {
      for (const simd::Level level : simd::attainable_levels()) {
        const simd::ScopedLevel force(level);
        SCOPED_TRACE(simd::name(level));
        fn(n);
      }
    }
  }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(NormKernels, Scalars);

TYPED_TEST(NormKernels, SumsOfRuns) {
  using T = TypeParam;
  this->at_all([&](std::size_t n) {
    const auto x = this->draw(n, 1), dy = this->draw(n, 2), gain = this->draw(n, 3);
    const T m = static_cast<T>(0.25);
    long double square = 0, plain = 0, along = 0, size = 1;
    for (std::size_t i = 0; i < n; ++i) {
      const long double apart = static_cast<long double>(x[i]) - m;
      const long double g = static_cast<long double>(dy[i]) * gain[i];
      square += apart * apart;
      plain += g;
      along += g * apart;
      size += std::fabs(g) * (1 + std::fabs(apart)) + apart * apart;
    }
    const double bound = 70 * this->unit * static_cast<double>(size);
    EXPECT_NEAR(QUERN_DISPATCH(squared_deviation(x.data(), n, m)), static_cast<double>(square),
                bound);
    double sums[2];
    QUERN_DISPATCH(norm_gradient_sums(x.data(), dy.data(), gain.data(), n, m, sums));
    EXPECT_NEAR(sums[0], static_cast<double>(plain), bound);
    EXPECT_NEAR(sums[1], static_cast<double>(along), bound);
  });
}

TYPED_TEST(NormKernels, RunsAndRows) {
  using T = TypeParam;
  this->at_all([&](std::size_t n) {
    const auto x = this->draw(n, 1), dy = this->draw(n, 2), gain = this->draw(n, 3);
    const auto offset = this->draw(n, 4);
    std::vector<T> y(n + 1, T{-7}), dx(n + 1, T{-7}), row(n + 1, T{-7}), drow(n + 1, T{-7});
    std::vector<T> dgain(n + 1, T{1}), doffset(n + 1, T{2});
    const T m = static_cast<T>(0.25), a = static_cast<T>(1.5), b = static_cast<T>(-0.75), c = T{2};
    QUERN_DISPATCH(norm_run(x.data(), n, m, a, b, y.data()));
    QUERN_DISPATCH(norm_run_gradient(x.data(), dy.data(), n, m, a, b, c, dx.data()));
    QUERN_DISPATCH(norm_row(x.data(), n, m, a, gain.data(), offset.data(), row.data()));
    QUERN_DISPATCH(norm_row_gradient(x.data(), dy.data(), gain.data(), n, m, a, b, c, drow.data()));
    QUERN_DISPATCH(norm_row_parameters(x.data(), dy.data(), n, m, a, dgain.data(), doffset.data()));
    for (std::size_t i = 0; i < n; ++i) {
      const double apart = static_cast<double>(x[i]) - 0.25, g = static_cast<double>(dy[i]);
      const double w = static_cast<double>(gain[i]), o = static_cast<double>(offset[i]);
      const double bound = 60 * this->unit;
      ASSERT_NEAR(y[i], apart * 1.5 - 0.75, bound);
      ASSERT_NEAR(dx[i], g * 1.5 - apart * 0.75 + 2, bound);
      ASSERT_NEAR(row[i], apart * 1.5 * w + o, bound);
      ASSERT_NEAR(drow[i], g * w * 1.5 - apart * 0.75 + 2, bound);
      ASSERT_NEAR(dgain[i], 1 + g * apart * 1.5, bound);
      ASSERT_NEAR(doffset[i], 2 + g, bound);
    }
    for (const T beside : {y[n], dx[n], row[n], drow[n]}) ASSERT_EQ(beside, T{-7});
  });
}

TYPED_TEST(NormKernels, Columns) {
  using T = TypeParam;
  for (const std::size_t cols : {1u, 5u, 16u, 35u}) {
    for (const std::size_t rows : {1u, 64u, 131u}) {
      const auto x = this->draw(rows * cols, 1), dy = this->draw(rows * cols, 2);
      const auto m = this->draw(cols, 3), a = this->draw(cols, 4), b = this->draw(cols, 5);
      for (const simd::Level level : simd::attainable_levels()) {
        const simd::ScopedLevel force(level);
        const auto stride = static_cast<std::ptrdiff_t>(cols);
        std::vector<T> square(cols), plain(cols), along(cols), y(x.size()), dx(x.size());
        QUERN_DISPATCH(column_deviations(rows, cols, x.data(), stride, m.data(), square.data()));
        QUERN_DISPATCH(column_gradient_sums(rows, cols, x.data(), dy.data(), stride, m.data(),
                                            plain.data(), along.data()));
        QUERN_DISPATCH(
            norm_columns(rows, cols, x.data(), stride, m.data(), a.data(), b.data(), y.data()));
        QUERN_DISPATCH(norm_columns_gradient(rows, cols, x.data(), dy.data(), stride, m.data(),
                                             a.data(), b.data(), a.data(), dx.data()));
        for (std::size_t j = 0; j < cols; ++j) {
          double sq = 0, sum = 0, dot = 0;
          const double mean = static_cast<double>(m[j]), scale = static_cast<double>(a[j]);
          const double shift = static_cast<double>(b[j]);
          for (std::size_t i = 0; i < rows; ++i) {
            const double apart = static_cast<double>(x[i * cols + j]) - mean;
            const double g = static_cast<double>(dy[i * cols + j]);
            sq += apart * apart, sum += g, dot += g * apart;
            ASSERT_NEAR(y[i * cols + j], apart * scale + shift, 60 * this->unit);
            ASSERT_NEAR(dx[i * cols + j], g * scale + apart * shift + scale, 60 * this->unit);
          }
          const double bound = 70 * this->unit * (10 + sq + 3 * static_cast<double>(rows));
          ASSERT_NEAR(square[j], sq, bound);
          ASSERT_NEAR(plain[j], sum, bound);
          ASSERT_NEAR(along[j], dot, bound);
        }
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::norm
