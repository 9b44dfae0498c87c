// SPDX-License-Identifier: Apache-2.0

/// \file
/// Softmax, log-softmax and log-sum-exp of rows against long double, at every level; masked rows,
/// NaN, infinities, strides, in place.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::softmax {
namespace {

template <class T>
class Softmax : public ::testing::Test {
 protected:
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  static constexpr double unit = std::numeric_limits<T>::epsilon() / 2;
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Softmax, Scalars);

TYPED_TEST(Softmax, RowsAgainstLongDouble) {
  using T = TypeParam;
  constexpr std::size_t rows = 3;
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal(0, 5);
  for (const std::size_t cols : {1u, 2u, 7u, 8u, 9u, 16u, 63u, 64u, 65u, 130u, 1000u, 3000u}) {
    const std::size_t stride = cols + 5;
    std::vector<T> x(rows * stride);
    for (T& value : x) value = static_cast<T>(normal(random) + 300);
    for (const simd::Level level : simd::attainable_levels()) {
      const simd::ScopedLevel force(level);
      SCOPED_TRACE(simd::name(level));
      const auto step = static_cast<std::ptrdiff_t>(stride);
      std::vector<T> y(x.size(), T{-7}), log_y(x.size(), T{-7}), lse(rows);
      QUERN_DISPATCH(softmax_rows(rows, cols, x.data(), step, y.data(), step));
      QUERN_DISPATCH(log_softmax_rows(rows, cols, x.data(), step, log_y.data(), step));
      QUERN_DISPATCH(log_sum_exp_rows(rows, cols, x.data(), step, lse.data()));
      for (std::size_t row = 0; row < rows; ++row) {
        const T* in = x.data() + row * stride;
        long double largest = in[0], total = 0;
        for (std::size_t i = 0; i < cols; ++i)
          largest = (std::max)(largest, static_cast<long double>(in[i]));
        for (std::size_t i = 0; i < cols; ++i) total += std::exp(in[i] - largest);
        const double log_sum = static_cast<double>(largest + std::log(total));
        EXPECT_NEAR(lse[row], log_sum, 2 * this->unit * std::fabs(log_sum));
        for (std::size_t i = 0; i < cols; ++i) {
          const double exact = static_cast<double>(std::exp(in[i] - largest) / total);
          const double apart = static_cast<double>(largest - in[i]);
          ASSERT_NEAR(y[row * stride + i], exact, (8 + apart / 2) * this->unit * exact);
          const double log_exact = static_cast<double>(in[i] - largest - std::log(total));
          ASSERT_NEAR(log_y[row * stride + i], log_exact, 8 * this->unit * (apart + 10));
        }
        for (std::size_t i = cols; i < stride; ++i) ASSERT_EQ(y[row * stride + i], T{-7});
      }
      QUERN_DISPATCH(softmax_rows(rows, cols, y.data(), step, y.data(), step));
      for (std::size_t i = 0; i < cols; ++i) ASSERT_GT(y[i], 0) << "in place";
    }
  }
}

TYPED_TEST(Softmax, MaskedRowsInfinitiesAndNan) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    constexpr std::size_t n = 21;
    std::vector<T> x(n, -this->infinity), y(n, T{5});
    T lse = 0;
    const auto run = [&] {
      QUERN_DISPATCH(softmax_rows(1, n, x.data(), n, y.data(), n));
      QUERN_DISPATCH(log_sum_exp_rows(1, n, x.data(), n, &lse));
    };
    run();
    EXPECT_EQ(y, std::vector<T>(n, T{0}));
    EXPECT_EQ(lse, -this->infinity);
    QUERN_DISPATCH(log_softmax_rows(1, n, x.data(), n, y.data(), n));
    EXPECT_EQ(y, std::vector<T>(n, -this->infinity));

    x[4] = 90000;  // the only one that is not masked
    run();
    for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(y[i], i == 4 ? 1 : 0);
    EXPECT_EQ(lse, 90000);

    x[20] = this->infinity;
    run();
    for (const T value : y) EXPECT_TRUE(std::isnan(value));
    EXPECT_EQ(lse, this->infinity);

    x[20] = std::numeric_limits<T>::quiet_NaN();
    run();
    for (const T value : y) EXPECT_TRUE(std::isnan(value));
    EXPECT_TRUE(std::isnan(lse));
    QUERN_DISPATCH(softmax_rows(2, 0, x.data(), 0, y.data(), 0));
    QUERN_DISPATCH(log_sum_exp_rows(1, 0, x.data(), 0, &lse));
    EXPECT_EQ(lse, -this->infinity) << "an empty row";
  }
}

}  // namespace
}  // namespace quern::test::softmax
