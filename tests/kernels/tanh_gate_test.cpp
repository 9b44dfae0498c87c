// SPDX-License-Identifier: Apache-2.0

/// \file
/// The gate tanh(a) sigmoid(b) and its gradient against long double, at every level.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::tanh_gate {
namespace {

template <class T>
class TanhGate : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(TanhGate, Scalars);

TYPED_TEST(TanhGate, AgainstLongDouble) {
  using T = TypeParam;
  constexpr double unit = std::numeric_limits<T>::epsilon();
  std::mt19937_64 random(4);
  std::normal_distribution<double> draw(0, 2);
  const auto some = [&](std::size_t n) {
    std::vector<T> values(n);
    for (T& value : values) value = static_cast<T>(draw(random));
    return values;
  };
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t cols : {1u, 6u, 16u, 37u}) {
      const std::size_t rows = 3;
      const auto in = some(2 * rows * cols), add = some(2 * cols), dout = some(rows * cols);
      for (const T* const plus : {static_cast<const T*>(nullptr), add.data()}) {
        std::vector<T> out(rows * cols + 1, T(9)), din(2 * rows * cols + 1, T(9));
        QUERN_DISPATCH(tanh_gate<T>(rows, cols, in.data(), plus, out.data()));
        QUERN_DISPATCH(tanh_gate_gradient<T>(rows, cols, in.data(), plus, dout.data(), din.data()));
        for (std::size_t i = 0; i < rows * cols; ++i) {
          const std::size_t at = i / cols * 2 * cols + i % cols;
          const T pa = plus == nullptr ? T(0) : plus[i % cols];
          const T pb = plus == nullptr ? T(0) : plus[cols + i % cols];
          const long double a = in[at] + pa, b = in[at + cols] + pb;
          const long double t = std::tanh(a), s = 1 / (1 + std::exp(-b)), g = dout[i];
          ASSERT_NEAR(out[i], static_cast<double>(t * s),
                      6 * unit * std::fabs(static_cast<double>(t * s)));
          ASSERT_NEAR(din[at], static_cast<double>(g * s * (1 - t * t)),
                      16 * unit * std::fabs(static_cast<double>(g)));
          ASSERT_NEAR(din[at + cols], static_cast<double>(g * t * s * (1 - s)),
                      16 * unit * std::fabs(static_cast<double>(g)));
        }
        ASSERT_EQ(out.back(), T(9));
        ASSERT_EQ(din.back(), T(9));
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::tanh_gate
