// SPDX-License-Identifier: Apache-2.0

/// \file
/// Array kernels at every length around the vector width, unaligned, empty, in place, and without
/// touching what lies beside the arrays.

#include "quern/core/buffer.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace quern::test::elementwise {
namespace {

constexpr std::size_t kLongest = 131;  // four AVX-512 vectors of float, twice, and a remainder

template <class T>
class Elementwise : public ::testing::Test {
 protected:
  static constexpr T guard = T{-777};

  /// n numbers from \p offset on, guards elsewhere.
  static std::vector<T> guarded(std::size_t n, std::size_t offset) {
    std::vector<T> x(n + offset + 70, guard);
    for (std::size_t i = 0; i < n; ++i) x[offset + i] = static_cast<T>(0.37 * double(i % 29) - 4);
    return x;
  }
  static void expect_guards(const std::vector<T>& y, std::size_t n, std::size_t offset) {
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (i < offset || i >= offset + n) {
        ASSERT_EQ(y[i], guard) << "n " << n << " at " << i;
      }
    }
  }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Elementwise, Scalars);

TYPED_TEST(Elementwise, TransformOfEveryLengthAndAlignment) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (std::size_t n = 0; n <= kLongest; ++n) {
      for (const std::size_t offset : {std::size_t{0}, std::size_t{3}}) {
        const std::vector<T> x = this->guarded(n, offset);
        std::vector<T> y(x.size(), this->guard);
        QUERN_DISPATCH(transform(kernels::Square{}, x.data() + offset, n, y.data() + offset));
        for (std::size_t i = offset; i < offset + n; ++i) ASSERT_EQ(y[i], x[i] * x[i]);
        this->expect_guards(y, n, offset);
      }
    }
  }
}

TYPED_TEST(Elementwise, PlaceDoesNotMatter) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    std::vector<T> x = this->guarded(kLongest, 0);
    std::vector<T> whole(x.size()), single(x.size());
    QUERN_DISPATCH(transform(kernels::Exp{}, x.data(), kLongest, whole.data()));
    for (std::size_t i = 0; i < kLongest; ++i) {
      QUERN_DISPATCH(transform(kernels::Exp{}, &x[i], std::size_t{1}, &single[i]));
      EXPECT_EQ(single[i], whole[i]) << i;
    }
    QUERN_DISPATCH(transform(kernels::Exp{}, x.data(), kLongest, x.data()));
    for (std::size_t i = 0; i < kLongest; ++i) EXPECT_EQ(x[i], whole[i]) << "in place, " << i;
  }
}

TYPED_TEST(Elementwise, SmallFunctors) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const std::vector<T> x = {T{-3}, T{0}, T{2.5}};
    std::vector<T> y(3);
    QUERN_DISPATCH(transform(kernels::Identity{}, x.data(), 3, y.data()));
    EXPECT_EQ(y, x);
    QUERN_DISPATCH(transform(kernels::Abs{}, x.data(), 3, y.data()));
    EXPECT_EQ(y, (std::vector<T>{T{3}, T{0}, T{2.5}}));
    QUERN_DISPATCH(transform(kernels::Affine<T>{T{2}, T{1}}, x.data(), 3, y.data()));
    EXPECT_EQ(y, (std::vector<T>{T{-5}, T{1}, T{6}}));
    QUERN_DISPATCH(transform(kernels::MinusBoth<T>{T{2}, T{1}}, x.data(), 3, y.data()));
    EXPECT_EQ(y, (std::vector<T>{T{-6}, T{-3}, T{-0.5}}));
    QUERN_DISPATCH(transform(kernels::ExpMinus<T>{T{2.5}}, x.data(), 3, y.data()));
    EXPECT_EQ(y[2], 1);
    EXPECT_NEAR(y[1], std::exp(-2.5), 1e-7);
  }
}

TYPED_TEST(Elementwise, AxpyAndScale) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (std::size_t n = 0; n <= kLongest; ++n) {
      const std::size_t offset = n % 5;
      const std::vector<T> x = this->guarded(n, offset);
      std::vector<T> y(x.size(), this->guard), z(x.size(), this->guard);
      for (std::size_t i = offset; i < offset + n; ++i) y[i] = static_cast<T>(i) / 8;
      QUERN_DISPATCH(axpy(T{-0.5}, x.data() + offset, n, y.data() + offset));
      QUERN_DISPATCH(scale(T{3}, x.data() + offset, n, z.data() + offset));
      for (std::size_t i = offset; i < offset + n; ++i) {
        ASSERT_NEAR(y[i], T{-0.5} * x[i] + static_cast<T>(i) / 8, 1e-5);
        ASSERT_EQ(z[i], T{3} * x[i]);
      }
      this->expect_guards(y, n, offset);
      this->expect_guards(z, n, offset);
    }
  }
}

TYPED_TEST(Elementwise, RowsPastTheCachesAreTheSame) {
  using T = TypeParam;
  constexpr std::size_t rows = 3, cols = 128 / sizeof(T), apart = cols + 64 / sizeof(T);
  std::vector<T> x(rows * cols), factors{T(0.5), T(-3), T(0)}, want(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(0.37 * double(i) - 4);
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    core::Buffer<T> y(rows * apart);
    std::fill(y.begin(), y.end(), this->guard);
    const std::ptrdiff_t step = cols;
    QUERN_DISPATCH(scale_rows<T>(rows, cols, factors.data(), x.data(), step, want.data(), step));
    QUERN_DISPATCH(stream_scaled_rows<T>(rows, cols, factors.data(), x.data(), step, y.data(),
                                         static_cast<std::ptrdiff_t>(apart)));
    for (std::size_t i = 0; i < y.size(); ++i) {
      const std::size_t c = i % apart;
      ASSERT_EQ(y[i], c < cols ? want[i / apart * cols + c] : this->guard);
    }
  }
}

}  // namespace
}  // namespace quern::test::elementwise
