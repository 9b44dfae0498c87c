// SPDX-License-Identifier: Apache-2.0

/// \file
/// Activations, their derivatives and gated units against long double, at every level; lengths
/// around the vector, what lies beside the arrays, NaN and far inputs.

#include "quern/kernels/activation_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace quern::test::activation {
namespace {

using Wide = long double;

Wide apart(Wide a, Wide b) { return std::fabs(a - b); }

template <class T>
class ActivationKernels : public ::testing::Test {
 protected:
  static constexpr Wide unit = std::numeric_limits<T>::epsilon() / 2;
  static std::vector<T> points() {
    std::vector<T> x;
    for (int i = -400; i <= 400; ++i) x.push_back(static_cast<T>(0.03 * i));
    for (const double far : {-60.0, -20.0, 20.0, 60.0}) x.push_back(static_cast<T>(far));
    return x;
  }
  /// |error| <= 16 u max(1, |x|): the bound of activation_types.hpp.
  template <class F, class Value, class Slope>
  static void check(const F& f, const Value& value, const Slope& slope) {
    const std::vector<T> x = points();
    const std::vector<T> ones(x.size(), T{1});
    for (const simd::Level level : simd::attainable_levels()) {
      const simd::ScopedLevel force(level);
      SCOPED_TRACE(simd::name(level));
      std::vector<T> y(x.size()), d(x.size());
      QUERN_DISPATCH(transform(f, x.data(), x.size(), y.data()));
      QUERN_DISPATCH(transform_gradient(f, x.data(), ones.data(), x.size(), d.data()));
      for (std::size_t i = 0; i < x.size(); ++i) {
        const Wide at = x[i], bound = 16 * unit * (std::max)(Wide{1}, std::fabs(at));
        ASSERT_LE(apart(y[i], value(at)), bound) << x[i];
        ASSERT_LE(apart(d[i], slope(at)), bound) << x[i];
      }
    }
  }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ActivationKernels, Scalars);

Wide logistic(Wide x) { return 1 / (1 + std::exp(-x)); }
Wide cdf(Wide x) { return std::erfc(-x / std::sqrt(Wide{2})) / 2; }
Wide density(Wide x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(Wide{-1})); }
Wide inner(Wide x) { return 2 * std::sqrt(2 / std::acos(Wide{-1})) * (x + 0.044715L * x * x * x); }

TYPED_TEST(ActivationKernels, PiecewiseAgainstLongDouble) {
  using T = TypeParam;
  this->check(
      kernels::Relu{}, [](Wide x) { return x > 0 ? x : 0; },
      [](Wide x) { return x > 0 ? Wide{1} : Wide{0}; });
  const T slope = static_cast<T>(0.125);
  this->check(
      kernels::LeakyRelu<T>{slope}, [](Wide x) { return x > 0 ? x : x / 8; },
      [](Wide x) { return x > 0 ? Wide{1} : Wide{0.125}; });
  this->check(
      kernels::Elu<T>{T{1}}, [](Wide x) { return x > 0 ? x : std::expm1(x); },
      [](Wide x) { return x > 0 ? 1 : std::exp(x); });
}

TYPED_TEST(ActivationKernels, SmoothAgainstLongDouble) {
  this->check(
      kernels::Gelu{}, [](Wide x) { return x * cdf(x); },
      [](Wide x) { return cdf(x) + x * density(x); });
  this->check(
      kernels::GeluTanh{}, [](Wide x) { return x * logistic(inner(x)); },
      [](Wide x) {
        const Wide s = logistic(inner(x));
        const Wide rate = 2 * std::sqrt(2 / std::acos(Wide{-1})) * (1 + 3 * 0.044715L * x * x);
        return s + x * s * (1 - s) * rate;
      });
  this->check(
      kernels::Silu{}, [](Wide x) { return x * logistic(x); },
      [](Wide x) { return logistic(x) * (1 + x * (1 - logistic(x))); });
  this->check(
      kernels::Tanh{}, [](Wide x) { return std::tanh(x); },
      [](Wide x) { return 1 - std::tanh(x) * std::tanh(x); });
  this->check(
      kernels::Sigmoid{}, [](Wide x) { return logistic(x); },
      [](Wide x) { return logistic(x) * (1 - logistic(x)); });
  this->check(
      kernels::Softplus{}, [](Wide x) { return x > 40 ? x : std::log1p(std::exp(x)); },
      [](Wide x) { return logistic(x); });
}

TYPED_TEST(ActivationKernels, GatesOfEveryLength) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (std::size_t n = 0; n <= 70; ++n) {
      std::vector<T> a(n), b(n), dy(n), y(n + 1, T{-7}), da(n + 1, T{-7}), db(n + 1, T{-7});
      for (std::size_t i = 0; i < n; ++i) {
        a[i] = static_cast<T>(0.1 * static_cast<double>(i) - 3);
        b[i] = static_cast<T>(0.2 * static_cast<double>(i % 13) - 1);
        dy[i] = static_cast<T>(1 + static_cast<double>(i % 3));
      }
      QUERN_DISPATCH(gate(kernels::Sigmoid{}, a.data(), b.data(), n, y.data()));
      QUERN_DISPATCH(gate_gradient(kernels::Sigmoid{}, a.data(), b.data(), dy.data(), n, da.data(),
                                   db.data()));
      for (std::size_t i = 0; i < n; ++i) {
        const Wide s = logistic(b[i]), g = dy[i];
        ASSERT_LE(apart(y[i], a[i] * s), 40 * this->unit);
        ASSERT_LE(apart(da[i], g * s), 40 * this->unit);
        ASSERT_LE(apart(db[i], g * a[i] * s * (1 - s)), 40 * this->unit);
      }
      for (const T beside : {y[n], da[n], db[n]}) ASSERT_EQ(beside, T{-7}) << n;
    }
  }
}

TYPED_TEST(ActivationKernels, NanAndFarInputs) {
  using T = TypeParam;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> x = {nan, static_cast<T>(1e30), static_cast<T>(-1e30)};
  const std::vector<T> ones(3, T{1});
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    std::vector<T> y(3), d(3);
    QUERN_DISPATCH(transform(kernels::GeluTanh{}, x.data(), 3, y.data()));
    QUERN_DISPATCH(transform_gradient(kernels::GeluTanh{}, x.data(), ones.data(), 3, d.data()));
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(d[0]));
    EXPECT_EQ(y[1], x[1]);
    EXPECT_EQ(d[1], 1);
    EXPECT_EQ(y[2], 0);
    EXPECT_EQ(d[2], 0);
    QUERN_DISPATCH(transform(kernels::Relu{}, x.data(), 3, y.data()));
    EXPECT_TRUE(std::isnan(y[0]));
  }
}

}  // namespace
}  // namespace quern::test::activation
