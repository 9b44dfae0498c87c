// SPDX-License-Identifier: Apache-2.0

/// \file
/// Depthwise convolutions and their weights' gradient at every level against sums in double:
/// channels around the vector, borders.

#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <vector>

namespace quern::test::conv_depthwise {
namespace {

template <class T>
class DepthwiseKernels : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(DepthwiseKernels, Scalars);

/// 2 x 2 kernels of stride 1 x 2 and a padding of one before over 4 x 5: outputs 4 x 3.
template <class T>
double source_at(const std::vector<T>& x, std::ptrdiff_t channels, std::ptrdiff_t h,
                 std::ptrdiff_t w, std::ptrdiff_t c) {
  if (h < 0 || h >= 4 || w < 0 || w >= 5) return 0;
  return static_cast<double>(x[static_cast<std::size_t>((h * 5 + w) * channels + c)]);
}

TYPED_TEST(DepthwiseKernels, AgainstPlainLoops) {
  using T = TypeParam;
  constexpr double unit = std::numeric_limits<T>::epsilon() / 2;
  const kernels::ConvTap taps[] = {{-1, -1, 0}, {-1, 0, 1}, {0, -1, 2}, {0, 0, 3}};
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const std::ptrdiff_t lanes = QUERN_DISPATCH(conv_layout<T>()).lanes;
    for (const std::ptrdiff_t channels : {lanes, 3 * lanes, std::ptrdiff_t{1}, 2 * lanes + 1}) {
      const auto size = [&](std::ptrdiff_t n) { return static_cast<std::size_t>(n * channels); };
      std::vector<T> x(size(20)), w(size(4)), dy(size(12)), zeros(size(1)), y(size(12) + 1, T{-7});
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(i * 31 % 17) - T{8};
      for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<T>(i % 5) - T{2};
      for (std::size_t i = 0; i < dy.size(); ++i) dy[i] = static_cast<T>(i % 7) - T{3};
      std::vector<const T*> pointers(4);
      kernels::ConvTask<T> task;
      task.source = {.data = x.data(),
                     .row_stride = 5 * channels,
                     .pixel_stride = channels,
                     .height = 4,
                     .width = 5,
                     .channels = channels,
                     .step_h = 1,
                     .step_w = 2,
                     .taps = taps,
                     .tap_count = 4};
      task.row_end = 4;
      task.grid_width = 3;
      task.outputs = channels;
      task.weights = w.data();
      task.y = y.data();
      task.y_row_stride = 3 * channels;
      task.y_pixel_stride = channels;
      task.zeros = zeros.data();
      task.pointers = pointers.data();
      QUERN_DISPATCH(conv_depthwise<T>(task));
      for (std::ptrdiff_t k = 0; k < 12 * channels; ++k) {
        const std::ptrdiff_t i = k / channels / 3, j = k / channels % 3, c = k % channels;
        double sum = 0;
        for (const kernels::ConvTap& tap : taps) {
          sum += source_at(x, channels, i + tap.dh, 2 * j + tap.dw, c) *
                 static_cast<double>(w[static_cast<std::size_t>(tap.weight * channels + c)]);
        }
        ASSERT_NEAR(y[static_cast<std::size_t>(k)], sum, 200 * unit);
      }
      ASSERT_EQ(y.back(), T{-7});
      if (channels % lanes != 0) continue;
      std::vector<T> dw(size(4), T{1});
      std::vector<kernels::ConvRun<T>> runs(4);
      kernels::ConvWeightsTask<T> gradient;
      gradient.source = task.source;
      gradient.row_end = 4;
      gradient.grid_width = 3;
      gradient.dy = dy.data();
      gradient.dy_row_stride = 3 * channels;
      gradient.dy_pixel_stride = channels;
      gradient.singles = 1;
      gradient.vectors = channels / lanes;
      gradient.out = dw.data();
      gradient.out_stride = channels;
      QUERN_DISPATCH(conv_depthwise_weights<T>(gradient, runs.data()));
      for (std::ptrdiff_t k = 0; k < 4 * channels; ++k) {
        const kernels::ConvTap& tap = taps[k / channels];
        double sum = 1;
        for (std::ptrdiff_t p = 0; p < 12; ++p) {
          sum += source_at(x, channels, p / 3 + tap.dh, 2 * (p % 3) + tap.dw, k % channels) *
                 static_cast<double>(dy[static_cast<std::size_t>(p * channels + k % channels)]);
        }
        ASSERT_NEAR(dw[static_cast<std::size_t>(k)], sum, 2000 * unit);
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::conv_depthwise
