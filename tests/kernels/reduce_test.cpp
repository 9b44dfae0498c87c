// SPDX-License-Identifier: Apache-2.0

/// \file
/// Reductions against long double: error bounds, equal bits at every level, NaN, infinities, ties.

#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::reduce {
namespace {

/// Every length around vectors, lanes and blocks, and a few long ones.
std::vector<std::size_t> lengths() {
  std::vector<std::size_t> all;
  for (std::size_t n = 0; n <= 140; ++n) all.push_back(n);
  for (const std::size_t n :
       {255u, 256u, 257u, 511u, 512u, 513u, 1023u, 1024u, 1025u, 2050u, 40000u}) {
    all.push_back(n);
  }
  return all;
}

template <class T>
class Reduce : public ::testing::Test {
 protected:
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  static constexpr T nan_value = std::numeric_limits<T>::quiet_NaN();
  static constexpr long double unit = std::numeric_limits<T>::epsilon() / 2;

  /// Numbers of mixed sign and of magnitudes over six decades.
  static std::vector<T> numbers(std::size_t n, unsigned seed) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> exponent(-3, 3);
    std::vector<T> x(n);
    for (T& value : x) {
      value = static_cast<T>(std::pow(10.0, exponent(random)) * (random() % 3 == 0 ? -1 : 1));
    }
    return x;
  }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Reduce, Scalars);

TYPED_TEST(Reduce, SumsKeepTheirBoundAndTheirBits) {
  using T = TypeParam;
  for (const std::size_t n : lengths()) {
    const std::vector<T> x = this->numbers(n + 1, 7);
    const T* from = x.data() + 1;  // unaligned
    long double exact = 0, size = 0;
    for (std::size_t i = 0; i < n; ++i) exact += from[i], size += std::fabs(from[i]);
    const double first = [&] {
      const simd::ScopedLevel force(simd::attainable_levels().front());
      return QUERN_DISPATCH(sum(from, n));
    }();
    EXPECT_LE(std::fabs(first - exact), 20 * this->unit * size) << n;
    for (const simd::Level level : simd::attainable_levels()) {
      const simd::ScopedLevel force(level);
      EXPECT_EQ(QUERN_DISPATCH(sum(from, n)), first) << simd::name(level) << ' ' << n;
      EXPECT_NEAR(QUERN_DISPATCH(sum_of(kernels::Abs{}, from, n)), static_cast<double>(size),
                  static_cast<double>(20 * this->unit * size));
    }
  }
}

TYPED_TEST(Reduce, LongSumsDoNotGrowInError) {
  using T = TypeParam;
  const std::size_t n = 3000000;
  const T tenth = T{1} / 10;
  const std::vector<T> x(n, tenth);
  const long double exact = static_cast<long double>(tenth) * n;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    EXPECT_LE(std::fabs(QUERN_DISPATCH(sum(x.data(), n)) - exact), 20 * this->unit * exact)
        << simd::name(level);
  }
}

TYPED_TEST(Reduce, DotAndSquaredNorm) {
  using T = TypeParam;
  for (const std::size_t n : lengths()) {
    const std::vector<T> x = this->numbers(n + 1, 8), y = this->numbers(n + 3, 9);
    const T *a = x.data() + 1, *b = y.data() + 3;
    long double exact = 0, size = 0, squares = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const long double product = static_cast<long double>(a[i]) * b[i];
      exact += product, size += std::fabs(product);
      squares += static_cast<long double>(a[i]) * a[i];
    }
    for (const simd::Level level : simd::attainable_levels()) {
      const simd::ScopedLevel force(level);
      SCOPED_TRACE(simd::name(level));
      EXPECT_LE(std::fabs(QUERN_DISPATCH(dot(a, b, n)) - exact), 21 * this->unit * size) << n;
      EXPECT_LE(std::fabs(QUERN_DISPATCH(squared_norm(a, n)) - squares), 21 * this->unit * squares)
          << n;
    }
  }
}

TYPED_TEST(Reduce, SumsOfInfinitiesAndNan) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t n : {5u, 700u, 5000u}) {
      std::vector<T> x(n, T{1});
      x[n / 2] = this->infinity;
      EXPECT_EQ(QUERN_DISPATCH(sum(x.data(), n)), this->infinity);
      x[n - 1] = -this->infinity;
      EXPECT_TRUE(std::isnan(QUERN_DISPATCH(sum(x.data(), n))));
      x[n - 1] = 1;
      x[n / 2] = this->nan_value;
      EXPECT_TRUE(std::isnan(QUERN_DISPATCH(sum(x.data(), n))));
      EXPECT_TRUE(std::isnan(QUERN_DISPATCH(squared_norm(x.data(), n))));
    }
  }
}

TYPED_TEST(Reduce, ExtremesAndTheirPlaces) {
  using T = TypeParam;
  for (const std::size_t n : lengths()) {
    if (n == 0) continue;
    const std::vector<T> x = this->numbers(n + 1, static_cast<unsigned>(n));
    const T* from = x.data() + 1;
    std::size_t low = 0, high = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (from[i] > from[high]) high = i;
      if (from[i] < from[low]) low = i;
    }
    for (const simd::Level level : simd::attainable_levels()) {
      const simd::ScopedLevel force(level);
      SCOPED_TRACE(simd::name(level));
      ASSERT_EQ(QUERN_DISPATCH(max_value(from, n)), from[high]) << n;
      ASSERT_EQ(QUERN_DISPATCH(min_value(from, n)), from[low]) << n;
      ASSERT_EQ(QUERN_DISPATCH(arg_max(from, n)), high) << n;
      ASSERT_EQ(QUERN_DISPATCH(arg_min(from, n)), low) << n;
    }
  }
}

TYPED_TEST(Reduce, ExtremesOfNothingTiesAndNan) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const T* nothing = nullptr;
    EXPECT_EQ(QUERN_DISPATCH(max_value(nothing, 0)), -this->infinity);
    EXPECT_EQ(QUERN_DISPATCH(min_value(nothing, 0)), this->infinity);
    EXPECT_EQ(QUERN_DISPATCH(arg_max(nothing, 0)), 0u);
    for (const std::size_t n : {3u, 40u, 300u, 1000u}) {
      for (const std::size_t at : {std::size_t{0}, n / 3, n - 1}) {
        std::vector<T> x(n, T{1});
        x[at] = 2, x[n - 1] = 2;
        EXPECT_EQ(QUERN_DISPATCH(arg_max(x.data(), n)), at);
        EXPECT_EQ(QUERN_DISPATCH(arg_min(x.data(), n)), at == 0 ? 1u : 0u);
        x[at] = this->nan_value, x[n - 1] = -this->nan_value;
        EXPECT_EQ(QUERN_DISPATCH(arg_max(x.data(), n)), at);
        EXPECT_EQ(QUERN_DISPATCH(arg_min(x.data(), n)), at);
        EXPECT_TRUE(std::isnan(QUERN_DISPATCH(max_value(x.data(), n))));
        EXPECT_TRUE(std::isnan(QUERN_DISPATCH(min_value(x.data(), n))));
      }
      std::vector<T> zeros(n, T{0});
      zeros[0] = -T{0};
      EXPECT_EQ(QUERN_DISPATCH(arg_max(zeros.data(), n)), 0u) << "zeros are equal";
      zeros.assign(n, -this->infinity);
      EXPECT_EQ(QUERN_DISPATCH(arg_max(zeros.data(), n)), 0u);
      EXPECT_EQ(QUERN_DISPATCH(max_value(zeros.data(), n)), -this->infinity);
    }
  }
}

}  // namespace
}  // namespace quern::test::reduce
