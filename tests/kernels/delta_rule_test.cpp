// SPDX-License-Identifier: Apache-2.0

/// \file
/// The delta rule's kernels against their definition in double, at every level; elementwise feature
/// maps and their derivatives.

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace quern::test::delta_kernel {
namespace {

template <class T>
class DeltaKernel : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(DeltaKernel, Scalars);

TYPED_TEST(DeltaKernel, BothWaysAgainstTheDefinition) {
  using T = TypeParam;
  const double tolerance = 200 * std::numeric_limits<T>::epsilon();
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const std::size_t rows = 5, steps = 9;
    const auto cols = 3 * static_cast<std::size_t>(QUERN_DISPATCH(recurrence_layout<T>()).lanes);
    Philox random(1, "delta kernel");
    const auto numbers = [&](std::size_t n, double low, double high) {
      std::vector<T> x(n);
      for (T& value : x) value = static_cast<T>(random.uniform(low, high));
      return x;
    };
    const auto keys = numbers(steps * rows, -0.5, 0.5), reads = numbers(steps * rows, -1, 1);
    const auto values = numbers(steps * cols, -1, 1), start = numbers(rows * cols, -1, 1);
    const auto beta = numbers(steps, 0, 1), decay = numbers(steps, 0.5, 1);
    for (const bool backward : {false, true}) {
      auto state = start;
      std::vector<T> residuals(steps * cols), writes(residuals), out(residuals);
      kernels::DeltaTile<T> tile;
      tile.steps = static_cast<std::ptrdiff_t>(steps),
      tile.rows = static_cast<std::ptrdiff_t>(rows);
      tile.stride = static_cast<std::ptrdiff_t>(cols);
      tile.keys = keys.data(), tile.reads = reads.data(), tile.values = values.data();
      tile.beta = beta.data(), tile.decay = decay.data();
      tile.residuals = residuals.data(), tile.writes = writes.data(), tile.out = out.data();
      tile.state = state.data();
      if (backward) {
        QUERN_DISPATCH(delta_backward<T>(tile));
      } else {
        QUERN_DISPATCH(delta_forward<T>(tile));
      }
      for (std::size_t c = 0; c < cols; ++c) {
        std::vector<double> s(rows);
        for (std::size_t r = 0; r < rows; ++r) s[r] = static_cast<double>(start[r * cols + c]);
        for (std::size_t i = 0; i < steps; ++i) {
          const std::size_t t = backward ? steps - 1 - i : i, at = t * cols + c;
          const double a = static_cast<double>(decay[t]), v = static_cast<double>(values[at]);
          double answer = 0, read = 0;
          const auto key = [&](std::size_t r) { return static_cast<double>(keys[t * rows + r]); };
          const auto query = [&](std::size_t r) {
            return static_cast<double>(reads[t * rows + r]);
          };
          for (std::size_t r = 0; r < rows && backward; ++r) s[r] += query(r) * v;
          for (std::size_t r = 0; r < rows; ++r) answer += key(r) * s[r];
          const double residual = backward ? answer : v - a * answer;
          const double write = static_cast<double>(beta[t]) * residual;
          for (std::size_t r = 0; r < rows; ++r) {
            s[r] = backward ? a * (s[r] - key(r) * write) : a * s[r] + key(r) * write;
            read += query(r) * s[r];
          }
          ASSERT_NEAR(residuals[at], residual, tolerance);
          ASSERT_NEAR(writes[at], write, tolerance);
          if (!backward) {
            ASSERT_NEAR(out[at], read, tolerance);
          }
        }
        for (std::size_t r = 0; r < rows; ++r) ASSERT_NEAR(state[r * cols + c], s[r], tolerance);
      }
      tile.steps = 0;
      QUERN_DISPATCH(delta_forward<T>(tile));
      QUERN_DISPATCH(delta_backward<T>(tile));
    }
  }
}

TYPED_TEST(DeltaKernel, FeatureMaps) {
  using T = TypeParam;
  const std::vector<T> x{T(-30), T(-1), T(-0.0), T(0), T(1e-3), T(2), T(50)};
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    std::vector<T> y(x.size()), dy(x.size(), T{1}), dx(x.size());
    const double unit = 2 * std::numeric_limits<T>::epsilon();
    QUERN_DISPATCH(transform(kernels::Elu1{}, x.data(), x.size(), y.data()));
    QUERN_DISPATCH(transform_gradient(kernels::Elu1{}, x.data(), dy.data(), x.size(), dx.data()));
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double e = static_cast<double>(x[i]), below = std::exp(e);
      EXPECT_NEAR(y[i], e > 0 ? e + 1 : below, unit * (e > 0 ? e + 1 : below));
      EXPECT_NEAR(dx[i], e > 0 ? 1 : below, unit);
    }
    QUERN_DISPATCH(transform(kernels::ReluSquare{}, x.data(), x.size(), y.data()));
    QUERN_DISPATCH(
        transform_gradient(kernels::ReluSquare{}, x.data(), dy.data(), x.size(), dx.data()));
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(y[i], x[i] > 0 ? x[i] * x[i] : 0);
      EXPECT_EQ(dx[i], x[i] > 0 ? 2 * x[i] : 0);
    }
  }
}

}  // namespace
}  // namespace quern::test::delta_kernel
