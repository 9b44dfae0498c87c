// SPDX-License-Identifier: Apache-2.0

/// \file
/// Every vector function against the standard library in a wider format, at every level: the
/// largest error in ulp, and what is special.

#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace quern::test::math {
namespace {

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

struct ExpCase {
  kernels::Exp f;
  static constexpr double bound = 1.1;
  template <class W>
  static W exact(W x) {
    return std::exp(x);
  }
};
struct Expm1Case {
  kernels::Expm1 f;
  static constexpr double bound = 2.5;
  template <class W>
  static W exact(W x) {
    return std::expm1(x);
  }
};
struct Exp2Case {
  kernels::Exp2 f;
  static constexpr double bound = 1.25;
  template <class W>
  static W exact(W x) {
    return std::exp2(x);
  }
};
struct LogCase {
  kernels::Log f;
  static constexpr double bound = 1.0;
  template <class W>
  static W exact(W x) {
    return std::log(x);
  }
};
struct TanhCase {
  kernels::Tanh f;
  static constexpr double bound = 2.6;
  template <class W>
  static W exact(W x) {
    return std::tanh(x);
  }
};
struct SigmoidCase {
  kernels::Sigmoid f;
  static constexpr double bound = 2.5;
  template <class W>
  static W exact(W x) {
    return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
  }
};
struct SoftplusCase {
  kernels::Softplus f;
  static constexpr double bound = 2.1;
  template <class W>
  static W exact(W x) {
    return (x > 0 ? x : W{0}) + std::log1p(std::exp(-std::fabs(x)));
  }
};
struct ErfCase {
  kernels::Erf f;
  static constexpr double bound = 1.5;
  template <class W>
  static W exact(W x) {
    return std::erf(x);
  }
};

template <class F, class T>
std::vector<T> applied(const F& f, const std::vector<T>& x) {
  std::vector<T> y(x.size());
  QUERN_DISPATCH(transform(f, x.data(), x.size(), y.data()));
  return y;
}

/// Distance of \p got from \p exact in units of the last place of \p exact in T.
template <class T>
double error_in_ulp(T got, Wide<T> exact) {
  using W = Wide<T>;
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e9;
  const W largest = (std::numeric_limits<T>::max)();
  // Near overflow either side is the nearest number but for a rounding: measured as if T went on.
  if (std::isinf(got) && std::fabs(exact) < largest * (1 + std::numeric_limits<T>::epsilon())) {
    got = std::copysign((std::numeric_limits<T>::max)(), got);
  }
  if (std::isinf(exact) || std::fabs(exact) > largest * (1 + std::numeric_limits<T>::epsilon())) {
    const bool same = std::isinf(got) && std::signbit(got) == std::signbit(exact);
    return same ? 0 : 1e9;
  }
  if (std::isnan(got) || std::isinf(got)) return 1e9;
  int exponent = std::numeric_limits<T>::min_exponent;
  if (exact != 0) {
    int own;
    std::frexp(exact, &own);
    exponent = (std::max)(exponent, own);
  }
  const W ulp = std::ldexp(W{1}, exponent - std::numeric_limits<T>::digits);
  return static_cast<double>(std::fabs(static_cast<W>(got) - exact) / ulp);
}

/// Numbers of all magnitudes by their bits, and many where functions bend.
template <class T>
std::vector<T> arguments() {
  std::vector<T> x;
  std::mt19937_64 random(20);
  if constexpr (std::is_same_v<T, float>) {
    for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 4003) {
      x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    }
  } else {
    for (int i = 0; i < 150000; ++i) x.push_back(std::bit_cast<double>(random()));
  }
  for (const double range : {1e-3, 0.3, 1.0, 3.0, 10.0, 40.0, 110.0, 760.0, 1100.0}) {
    std::uniform_real_distribution<double> uniform(-range, range);
    for (int i = 0; i < 30000; ++i) x.push_back(static_cast<T>(uniform(random)));
  }
  std::uniform_real_distribution<double> around_one(0.5, 2.0);
  for (int i = 0; i < 100000; ++i) x.push_back(static_cast<T>(around_one(random)));
  return x;
}

template <class Case, class T>
void check_errors() {
  const std::vector<T> x = arguments<T>();
  std::vector<Wide<T>> exact;
  exact.reserve(x.size());
  for (const T value : x) exact.push_back(Case::exact(static_cast<Wide<T>>(value)));
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    const std::vector<T> y = applied(Case{}.f, x);
    double worst = 0;
    T at = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double error = error_in_ulp(y[i], exact[i]);
      if (error > worst) worst = error, at = x[i];
    }
    EXPECT_LT(worst, Case::bound) << simd::name(level) << " at " << at;
  }
}

template <class Case>
class MathFunctions : public ::testing::Test {};
using Cases = ::testing::Types<ExpCase, Expm1Case, Exp2Case, LogCase, TanhCase, SigmoidCase,
                               SoftplusCase, ErfCase>;
TYPED_TEST_SUITE(MathFunctions, Cases);

TYPED_TEST(MathFunctions, FloatKeepsItsBound) { check_errors<TypeParam, float>(); }
TYPED_TEST(MathFunctions, DoubleKeepsItsBound) { check_errors<TypeParam, double>(); }

template <class T>
class MathSpecials : public ::testing::Test {
 protected:
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  static constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  static constexpr T tiny = std::numeric_limits<T>::denorm_min();
  static constexpr T largest = (std::numeric_limits<T>::max)();

  /// f of one number, in the whole-vector and in the remainder part of the loop.
  template <class F>
  static T at(const F& f, T x) {
    const std::vector<T> y = applied(f, std::vector<T>(67, x));
    for (const T value : y) {
      const bool same = std::memcmp(&value, &y[0], sizeof(T)) == 0;
      EXPECT_TRUE(same || (std::isnan(value) && std::isnan(y[0]))) << x;
    }
    return y[0];
  }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(MathSpecials, Scalars);

TYPED_TEST(MathSpecials, NanIsNan) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const TypeParam x : {this->nan, -this->nan}) {
      EXPECT_TRUE(std::isnan(this->at(kernels::Exp{}, x)));
      EXPECT_TRUE(std::isnan(this->at(kernels::Expm1{}, x)));
      EXPECT_TRUE(std::isnan(this->at(kernels::Exp2{}, x)));
      EXPECT_TRUE(std::isnan(this->at(kernels::Log{}, x)));
      EXPECT_TRUE(std::isnan(this->at(kernels::Tanh{}, x)));
      EXPECT_TRUE(std::isnan(this->at(kernels::Sigmoid{}, x)));
      EXPECT_TRUE(std::isnan(this->at(kernels::Softplus{}, x)));
      EXPECT_TRUE(std::isnan(this->at(kernels::Erf{}, x)));
    }
  }
}

TYPED_TEST(MathSpecials, Exponentials) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const T zero : {T{0}, -T{0}}) {
      EXPECT_EQ(this->at(kernels::Exp{}, zero), 1);
      EXPECT_EQ(this->at(kernels::Expm1{}, zero), 0);
      EXPECT_EQ(this->at(kernels::Exp2{}, zero), 1);
    }
    EXPECT_EQ(this->at(kernels::Exp{}, this->infinity), this->infinity);
    EXPECT_EQ(this->at(kernels::Exp{}, -this->infinity), 0);
    EXPECT_EQ(this->at(kernels::Exp{}, this->largest), this->infinity);
    EXPECT_EQ(this->at(kernels::Exp{}, -this->largest), 0);
    EXPECT_EQ(this->at(kernels::Expm1{}, this->infinity), this->infinity);
    EXPECT_EQ(this->at(kernels::Expm1{}, -this->infinity), -1);
    EXPECT_EQ(this->at(kernels::Exp2{}, this->infinity), this->infinity);
    EXPECT_EQ(this->at(kernels::Exp2{}, -this->infinity), 0);
    const int top = std::numeric_limits<T>::max_exponent;
    const int bottom = std::numeric_limits<T>::min_exponent - std::numeric_limits<T>::digits;
    for (int k = bottom; k < top; ++k) {
      EXPECT_EQ(this->at(kernels::Exp2{}, static_cast<T>(k)), std::ldexp(T{1}, k)) << k;
    }
    EXPECT_EQ(this->at(kernels::Exp2{}, static_cast<T>(top)), this->infinity);
    EXPECT_EQ(this->at(kernels::Exp2{}, static_cast<T>(bottom - 1)), 0);
    // Gradual underflow: between the smallest normal and the smallest number.
    const T low = static_cast<T>(std::log(static_cast<Wide<T>>(this->tiny)) + 3);
    EXPECT_EQ(this->at(kernels::Exp{}, low), std::exp(low));
    EXPECT_GT(this->at(kernels::Exp{}, low), 0);
  }
}

TYPED_TEST(MathSpecials, Logarithm) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    EXPECT_EQ(this->at(kernels::Log{}, T{0}), -this->infinity);
    EXPECT_EQ(this->at(kernels::Log{}, -T{0}), -this->infinity);
    EXPECT_EQ(this->at(kernels::Log{}, T{1}), 0);
    EXPECT_EQ(this->at(kernels::Log{}, this->infinity), this->infinity);
    EXPECT_TRUE(std::isnan(this->at(kernels::Log{}, -this->infinity)));
    EXPECT_TRUE(std::isnan(this->at(kernels::Log{}, T{-1})));
    EXPECT_TRUE(std::isnan(this->at(kernels::Log{}, -this->tiny)));
    EXPECT_NEAR(this->at(kernels::Log{}, this->tiny), std::log(this->tiny), 1e-4);
  }
}

TYPED_TEST(MathSpecials, SaturatingFunctions) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const T big : {T{10000}, this->largest, this->infinity}) {
      EXPECT_EQ(this->at(kernels::Tanh{}, big), 1);
      EXPECT_EQ(this->at(kernels::Tanh{}, -big), -1);
      EXPECT_EQ(this->at(kernels::Erf{}, big), 1);
      EXPECT_EQ(this->at(kernels::Erf{}, -big), -1);
      EXPECT_EQ(this->at(kernels::Sigmoid{}, big), 1);
      EXPECT_EQ(this->at(kernels::Sigmoid{}, -big), 0);
      EXPECT_EQ(this->at(kernels::Softplus{}, big), big);
      EXPECT_EQ(this->at(kernels::Softplus{}, -big), 0);
    }
    EXPECT_EQ(this->at(kernels::Softplus{}, T{89}), 89);
    EXPECT_EQ(this->at(kernels::Sigmoid{}, T{0}), T{0.5});
    EXPECT_GT(this->at(kernels::Sigmoid{}, T{-103}), 0) << "underflows gradually";
    EXPECT_GT(this->at(kernels::Softplus{}, T{-103}), 0) << "underflows gradually";
  }
}

TYPED_TEST(MathSpecials, OddFunctionsAreExactlyOdd) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    EXPECT_TRUE(std::signbit(this->at(kernels::Tanh{}, -T{0})));
    EXPECT_TRUE(std::signbit(this->at(kernels::Erf{}, -T{0})));
    EXPECT_FALSE(std::signbit(this->at(kernels::Tanh{}, T{0})));
    EXPECT_EQ(this->at(kernels::Tanh{}, this->tiny), this->tiny);
    EXPECT_EQ(this->at(kernels::Erf{}, this->tiny), this->tiny);
    for (T x = this->tiny; x < 30; x = x * 3 + this->tiny) {
      EXPECT_EQ(this->at(kernels::Tanh{}, -x), -this->at(kernels::Tanh{}, x)) << x;
      EXPECT_EQ(this->at(kernels::Erf{}, -x), -this->at(kernels::Erf{}, x)) << x;
    }
  }
}

/// Levels with fused multiply-add give the same bits; this machine may have but one of them.
TYPED_TEST(MathSpecials, LevelsAgreeWithinTheBounds) {
  using T = TypeParam;
  std::vector<T> x;
  for (int i = -4000; i < 4000; ++i) x.push_back(static_cast<T>(i) / 97);
  std::vector<std::vector<T>> fused;
  std::vector<std::vector<T>> all;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    all.push_back(applied(kernels::Softplus{}, x));
    if (level == simd::Level::avx2 || level == simd::Level::avx512) fused.push_back(all.back());
  }
  for (const auto& y : fused) EXPECT_EQ(y, fused[0]);
  for (const auto& y : all) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_NEAR(y[i], all[0][i], 5 * std::numeric_limits<T>::epsilon() * all[0][i]) << x[i];
    }
  }
}

}  // namespace
}  // namespace quern::test::math
