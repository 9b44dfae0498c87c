// SPDX-License-Identifier: Apache-2.0

/// \file
/// Resampling kernels against plain loops, at every level: windows of any reach, several channels,
/// unaligned rows, results written around the caches.

#include "quern/kernels/kernels.hpp"
#include "quern/nn/detail/resample_tables.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::resample_kernels {
namespace {

using nn::AxisWeights;
using nn::Interpolation;

template <class T>
class ResampleKernels : public ::testing::Test {
 protected:
  static std::vector<T> normal(std::size_t n, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> draw;
    std::vector<T> values(n);
    for (T& value : values) value = static_cast<T>(draw(random));
    return values;
  }
  static void expect_plane(const AxisWeights& across, const AxisWeights& down, Index channels,
                           bool streams) {
    const Index planes = 2, size = across.in * down.in * channels;
    const auto in = normal(static_cast<std::size_t>(planes * size), 1);
    const Index width = across.out * channels, result = width * down.out;
    std::vector<T> out(static_cast<std::size_t>(planes * result + 2), T(-9));
    nn::detail::resample_planes<T>(across, down,
                                   {in.data(), out.data() + 1, planes, channels, streams}, 2);
    for (Index p = 0; p < planes; ++p) {
      for (Index y = 0; y < down.out; ++y) {
        for (Index x = 0; x < width; ++x) {
          double sum = 0, scale = 1;
          for (Index t = 0; t < down.taps; ++t) {
            for (Index s = 0; s < across.taps; ++s) {
              const Index row = down.first[static_cast<std::size_t>(y)] + t;
              const Index col = across.first[static_cast<std::size_t>(x / channels)] + s;
              const double weight = down.weight(y, t) * across.weight(x / channels, s);
              const double value = static_cast<double>(in[static_cast<std::size_t>(
                  p * size + (row * across.in + col) * channels + x % channels)]);
              sum += weight * value;
              scale += std::fabs(weight * value);
            }
          }
          const double got =
              static_cast<double>(out[static_cast<std::size_t>(1 + p * result + y * width + x)]);
          ASSERT_NEAR(got, sum, 8 * std::numeric_limits<T>::epsilon() * scale)
              << p << ' ' << y << ' ' << x << " of " << width;
        }
      }
    }
    EXPECT_EQ(out.front(), T(-9));
    EXPECT_EQ(out.back(), T(-9));
  }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ResampleKernels, Scalars);

TYPED_TEST(ResampleKernels, PlanesOfAnyReach) {
  const nn::AxisResampling linear{.mode = Interpolation::linear};
  const nn::AxisResampling cubic{.mode = Interpolation::cubic}, nearest{};
  const nn::AxisResampling smooth{.mode = Interpolation::linear, .antialias = true};
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const bool streams : {false, true}) {
      for (const Index channels : {1, 3, 8, 19}) {
        this->expect_plane(nn::axis_weights(7, 15, linear), nn::axis_weights(5, 9, linear),
                           channels, streams);
        this->expect_plane(nn::axis_weights(40, 80, cubic), nn::axis_weights(3, 6, cubic), channels,
                           streams);
        this->expect_plane(nn::transposed(nn::axis_weights(33, 66, linear)),
                           nn::transposed(nn::axis_weights(4, 8, linear)), channels, streams);
        this->expect_plane(nn::axis_weights(90, 7, smooth), nn::axis_weights(9, 2, smooth),
                           channels, streams);
        this->expect_plane(nn::axis_weights(21, 50, nearest), nn::axis_weights(1, 3, nearest),
                           channels, streams);
      }
    }
    // Tasks of several pieces, and of several planes.
    this->expect_plane(nn::axis_weights(1500, 3000, linear), nn::axis_weights(40, 80, linear), 1,
                       true);
  }
}

}  // namespace
}  // namespace quern::test::resample_kernels
