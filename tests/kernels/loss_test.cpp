// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses of pairs against double, at every level, at lengths around the vector and the run.

#include "quern/kernels/loss_types.hpp"

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::loss_kernels {
namespace {

template <class T>
class LossKernels : public ::testing::Test {
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
TYPED_TEST_SUITE(LossKernels, Scalars);

TYPED_TEST(LossKernels, Pairs) {
  using T = TypeParam;
  const auto check = [&](const auto& f, const auto& value, const auto& slope) {
    this->at_all([&](std::size_t n) {
      const auto p = this->draw(n, 1), t = this->draw(n, 2);
      std::vector<T> g(n + 1, T{-7});
      double sum = 0;
      const double got = QUERN_DISPATCH(pair_loss(f, p.data(), t.data(), n, T{2}, g.data()));
      for (std::size_t i = 0; i < n; ++i) {
        const double a = static_cast<double>(p[i]), b = static_cast<double>(t[i]);
        sum += value(a, b);
        ASSERT_NEAR(g[i], 2 * slope(a, b), 100 * this->unit);
      }
      ASSERT_NEAR(got, sum, 100 * this->unit * (1 + 8 * static_cast<double>(n)));
      ASSERT_EQ(g[n], T{-7});
      T* const none = nullptr;
      EXPECT_EQ(QUERN_DISPATCH(pair_loss(f, p.data(), t.data(), n, T{2}, none)), got);
    });
  };
  check(
      kernels::SquaredLoss{}, [](double a, double b) { return (a - b) * (a - b); },
      [](double a, double b) { return 2 * (a - b); });
  check(
      kernels::AbsoluteLoss{}, [](double a, double b) { return std::fabs(a - b); },
      [](double a, double b) { return a > b ? 1.0 : -1.0; });
  check(
      kernels::LogisticLoss<T>{T{3}},
      [](double a, double b) {
        return 3 * b * std::log1p(std::exp(-a)) + (1 - b) * std::log1p(std::exp(a));
      },
      [](double a, double b) {
        const double s = 1 / (1 + std::exp(-a));
        return -3 * b * (1 - s) + (1 - b) * s;
      });
}

}  // namespace
}  // namespace quern::test::loss_kernels
