// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pooling windows at every level: channels around the vector, ties,
/// NaN, what lies beside.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace quern::test::pool_kernels {
namespace {

template <class T>
class PoolKernels : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(PoolKernels, Scalars);

TYPED_TEST(PoolKernels, LargestAndMean) {
  using T = TypeParam;
  using I = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (const std::size_t channels : {1u, 3u, 8u, 16u, 17u, 40u}) {
    for (const std::size_t count : {1u, 4u, 9u}) {
      std::vector<T> x(channels * count);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>((i * 7919) % 13);
      if (count > 4) x[5 * channels] = x[7 * channels] = nan;
      std::vector<const T*> pixels;
      for (std::size_t t = 0; t < count; ++t) pixels.push_back(x.data() + t * channels);
      for (const simd::Level level : simd::attainable_levels()) {
        const simd::ScopedLevel force(level);
        SCOPED_TRACE(simd::name(level));
        std::vector<T> y(channels + 1, T{-7}), mean(y);
        std::vector<I> which(channels + 1, I{-7});
        QUERN_DISPATCH(max_pool_pixel(pixels.data(), count, channels, y.data(), which.data()));
        const T share = static_cast<T>(0.25);
        QUERN_DISPATCH(mean_pool_pixel(pixels.data(), count, channels, share, mean.data()));
        for (std::size_t c = 0; c < channels; ++c) {
          std::size_t best = 0;
          double sum = 0;
          for (std::size_t t = 0; t < count; ++t) {
            const T value = x[t * channels + c], before = x[best * channels + c];
            if (!std::isnan(before) && (value > before || std::isnan(value))) best = t;
            sum += static_cast<double>(value);
          }
          ASSERT_EQ(which[c], static_cast<I>(best)) << c;
          ASSERT_TRUE(y[c] == x[best * channels + c] || std::isnan(y[c]));
          if (std::isnan(sum)) continue;
          ASSERT_NEAR(mean[c], sum / 4, 1e-5);
        }
        ASSERT_EQ(y[channels], T{-7});
        ASSERT_EQ(mean[channels], T{-7});
        ASSERT_EQ(which[channels], I{-7});
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::pool_kernels
