// SPDX-License-Identifier: Apache-2.0

#include "quern/core/bfloat16.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/optim_types.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::optim {
namespace {

template <class T>
struct Arrays {
  std::vector<T> p, g, m, v;
  explicit Arrays(std::size_t n) : p(n), g(n), m(n + 16), v(n + 16) {
    Philox rng(5, "optim", n);
    for (std::size_t i = 0; i < n; ++i) {
      p[i] = static_cast<T>(rng.normal());
      g[i] = static_cast<T>(rng.normal());
      m[i] = static_cast<T>(rng.normal());
      v[i] = static_cast<T>(std::fabs(rng.normal()));
    }
  }
};

template <class T>
class Optim : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Optim, Scalars);

/// Adam after scale, clip, L2 and decay, at sizes around the vectors' and any alignment; what lies
/// around the tensor stays.
TYPED_TEST(Optim, StepAgainstTheFormula) {
  using T = TypeParam;
  const kernels::AdamRule<T> rule{T(0.9),  T(0.1), T(0.99), T(0.01),
                                  T(0.02), T(1.5), T(1e-3), T(1e-8)};
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t n : {0U, 1U, 3U, 7U, 8U, 9U, 16U, 17U, 31U, 64U, 100U}) {
      Arrays<T> a(n);
      std::vector<T> wide(n + 3, T(7));
      std::copy(a.p.begin(), a.p.end(), wide.begin() + 1);
      kernels::OptimChunk<T> chunk{wide.data() + 1, a.g.data(), n, 0, T{1}, 0};
      kernels::OptimWork<T, T> work;
      work.chunks = &chunk;
      work.count = 1;
      work.states[0] = a.m.data();
      work.states[1] = a.v.data();
      work.prologue = {T(2), T(1.5), T(0.1), T(0.95), 0};
      const Arrays<T> before = a;
      QUERN_DISPATCH(optim_step(rule, work));
      EXPECT_EQ(wide[0], T(7));
      EXPECT_EQ(wide[n + 1], T(7));
      EXPECT_EQ(wide[n + 2], T(7));
      for (std::size_t i = 0; i < n; ++i) {
        const double p = static_cast<double>(before.p[i]);
        const double raw = 2 * static_cast<double>(before.g[i]);
        const double g = (std::max)(-1.5, (std::min)(1.5, raw)) + 0.1 * p;
        const double m = 0.9 * static_cast<double>(before.m[i]) + 0.1 * g;
        const double v = 0.99 * static_cast<double>(before.v[i]) + 0.01 * g * g;
        const double next = 0.95 * p - 0.02 * m / (std::sqrt(1.5 * v + 1e-3) + 1e-8);
        const double tolerance = sizeof(T) == 4 ? 1e-6 : 1e-14;
        EXPECT_NEAR(static_cast<double>(a.m[i]), m, tolerance);
        EXPECT_NEAR(static_cast<double>(a.v[i]), v, tolerance);
        EXPECT_NEAR(static_cast<double>(wide[i + 1]), next, tolerance);
      }
    }
  }
}

TYPED_TEST(Optim, SurveySumsAndFindsWhatIsNotFinite) {
  using T = TypeParam;
  const T inf = (std::numeric_limits<T>::infinity)();
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t n : {1U, 7U, 16U, 37U}) {
      std::vector<T> g(n, T(3));
      kernels::OptimChunk<T> chunk{nullptr, g.data(), n, 0, T{1}, 0};
      kernels::OptimSums sum;
      const kernels::OptimChunk<T>* const chunks = &chunk;
      EXPECT_TRUE(QUERN_DISPATCH(optim_survey(chunks, std::size_t{1}, T(2), &sum)));
      EXPECT_EQ(sum.gradient, 36 * static_cast<double>(n));
      for (std::size_t i = 0; i < n; ++i) {
        for (const T bad : {inf, -inf, (std::numeric_limits<T>::quiet_NaN)()}) {
          g[i] = bad;
          EXPECT_FALSE(QUERN_DISPATCH(optim_survey(chunks, std::size_t{1}, T(2), &sum)));
        }
        g[i] = (std::numeric_limits<T>::max)();
        EXPECT_TRUE(QUERN_DISPATCH(optim_survey(chunks, std::size_t{1}, T(1), &sum)));
        g[i] = T(3);
      }
    }
  }
}

TEST(OptimBFloat16, RoundsToOneOfTheNeighboursWithoutBias) {
  const std::size_t n = 10'000;
  const kernels::AdamRule<float> rule{0.9F, 0.1F, 0.999F, 0.001F, 1e-3F, 1.0F, 0.0F, 1e-8F};
  std::vector<std::uint16_t> first;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    Arrays<float> a(n);
    std::vector<BFloat16> m(n + 16, BFloat16(1.0F)), v(n + 16, BFloat16(1.0F));
    kernels::OptimChunk<float> chunk{a.p.data(), a.g.data(), n, 0, 1.0F, 0};
    kernels::OptimWork<float, BFloat16> work;
    work.chunks = &chunk;
    work.count = 1;
    work.states[0] = m.data();
    work.states[1] = v.data();
    work.prologue = {1.0F, 100.0F, 0.0F, 1.0F, 12345U};
    QUERN_DISPATCH(optim_step(rule, work));
    double mean = 0, expected = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double g = static_cast<double>(a.g[i]), exact = 0.999 + 0.001 * g * g;
      const double got = static_cast<double>(static_cast<float>(v[i]));
      EXPECT_LT(std::fabs(got - exact), 0x1p-6);
      mean += got / static_cast<double>(n);
      expected += exact / static_cast<double>(n);
    }
    EXPECT_NEAR(mean, expected, 3e-4);  // 5 standard deviations; to nearest would be 1e-3 off
  }
}

TEST(OptimBFloat16, Conversions) {
  EXPECT_EQ(static_cast<float>(BFloat16(1.0F)), 1.0F);
  EXPECT_EQ(BFloat16(1.00390625F).bits, 0x3F80);  // half way: to even
  EXPECT_EQ(BFloat16(1.01171875F).bits, 0x3F82);
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::nanf("")))));
  EXPECT_TRUE(std::isinf(static_cast<float>(BFloat16((std::numeric_limits<float>::max)()))));
}

}  // namespace
}  // namespace quern::test::optim
