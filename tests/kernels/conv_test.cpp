// SPDX-License-Identifier: Apache-2.0

/// \file
/// Kernels of convolution at every level against sums in double: every number of output channels
/// around the panels, few and many source channels, borders, patches, narrow outputs, gradients of
/// weights both ways.

#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::conv_kernels {
namespace {

/// A 3 x 2 kernel of dilation 2 x 1 and stride 2 x 1 over images of 6 x 5, outputs 3 x 5.
template <class T>
struct Problem {
  std::ptrdiff_t channels, outputs, height = 6, width = 5, grid_h = 3, grid_w = 5;
  std::vector<kernels::ConvTap> taps;
  std::vector<T> x, w, bias, zeros;

  Problem(std::ptrdiff_t ci, std::ptrdiff_t co) : channels(ci), outputs(co) {
    for (std::ptrdiff_t u = 0; u < 3; ++u) {
      for (std::ptrdiff_t v = 0; v < 2; ++v) taps.push_back({2 * u - 2, v - 1, 2 * u + v});
    }
    std::mt19937_64 random(static_cast<unsigned>(ci * 100 + co));
    std::normal_distribution<double> normal;
    const auto fill = [&](std::vector<T>& to, std::ptrdiff_t n) {
      to.resize(static_cast<std::size_t>(n));
      for (T& value : to) value = static_cast<T>(normal(random));
    };
    fill(x, height * width * ci);
    fill(w, co * ci * 6);
    fill(bias, co);
    zeros.assign(static_cast<std::size_t>(ci), T{0});
  }
  [[nodiscard]] kernels::ConvSource<T> source() const {
    return {.data = x.data(),
            .row_stride = width * channels,
            .pixel_stride = channels,
            .height = height,
            .width = width,
            .channels = channels,
            .step_h = 2,
            .step_w = 1,
            .taps = taps.data(),
            .tap_count = static_cast<std::ptrdiff_t>(taps.size())};
  }
  /// x at a tap of output (i, j), 0 outside.
  [[nodiscard]] double at(std::ptrdiff_t i, std::ptrdiff_t j, const kernels::ConvTap& tap,
                          std::ptrdiff_t c) const {
    const std::ptrdiff_t h = 2 * i + tap.dh, v = j + tap.dw;
    if (h < 0 || h >= height || v < 0 || v >= width) return 0;
    return static_cast<double>(x[static_cast<std::size_t>((h * width + v) * channels + c)]);
  }
  [[nodiscard]] double weight(std::ptrdiff_t o, std::ptrdiff_t c, std::ptrdiff_t tap) const {
    return static_cast<double>(w[static_cast<std::size_t>((o * channels + c) * 6 + tap)]);
  }
  [[nodiscard]] double exact(std::ptrdiff_t i, std::ptrdiff_t j, std::ptrdiff_t o) const {
    double sum = static_cast<double>(bias[static_cast<std::size_t>(o)]);
    for (const kernels::ConvTap& tap : taps) {
      for (std::ptrdiff_t c = 0; c < channels; ++c)
        sum += at(i, j, tap, c) * weight(o, c, tap.weight);
    }
    return sum;
  }
};

template <class T>
class ConvKernels : public ::testing::Test {
 protected:
  static constexpr double unit = std::numeric_limits<T>::epsilon() / 2;

  static void check_outputs(const Problem<T>& s, bool patch, bool narrow) {
    const kernels::ConvLayout layout = QUERN_DISPATCH(conv_layout<T>());
    const std::ptrdiff_t depth = 6 * s.channels;
    std::vector<T> packed(static_cast<std::size_t>(
        narrow ? depth * s.outputs : QUERN_DISPATCH(conv_packed_size<T>(s.outputs, depth))));
    std::vector<const T*> pointers(static_cast<std::size_t>(6 * layout.rows));
    std::vector<T> patches(static_cast<std::size_t>(layout.rows * depth));
    std::vector<T> y(static_cast<std::size_t>(30 * s.outputs + 1), T{-7});
    kernels::ConvTask<T> task;
    task.source = s.source();
    task.row_end = s.grid_h;
    task.grid_width = s.grid_w;
    task.images = 2;  // the same one again
    task.y_image_stride = 15 * s.outputs;
    task.outputs = s.outputs;
    task.weights = packed.data();
    task.bias = s.bias.data();
    task.y = y.data();
    task.y_row_stride = s.grid_w * s.outputs;
    task.y_pixel_stride = s.outputs;
    task.zeros = s.zeros.data();
    task.pointers = pointers.data();
    if (patch) {
      task.patch = patches.data();
      task.source.run = 2;
    }
    if (narrow) {
      std::size_t to = 0;
      for (std::ptrdiff_t o = 0; o < s.outputs; ++o) {
        for (const kernels::ConvTap& tap : s.taps) {
          for (std::ptrdiff_t c = 0; c < s.channels; ++c) {
            packed[to++] = static_cast<T>(s.weight(o, c, tap.weight));
          }
        }
      }
      QUERN_DISPATCH(conv_narrow<T>(task));
    } else {
      QUERN_DISPATCH(conv_pack_weights<T>(s.w.data(), 6, s.channels * 6, s.taps.data(), 6,
                                          s.channels, s.outputs, packed.data()));
      QUERN_DISPATCH(conv_wide<T>(task));
    }
    const double bound = static_cast<double>(depth + 1) * unit * static_cast<double>(depth) * 3;
    for (std::ptrdiff_t k = 0; k < 30 * s.outputs; ++k) {
      const std::ptrdiff_t p = k / s.outputs % 15;
      ASSERT_NEAR(y[static_cast<std::size_t>(k)], s.exact(p / 5, p % 5, k % s.outputs), bound)
          << "channels " << s.channels << " outputs " << s.outputs << " at " << k;
    }
    ASSERT_EQ(y.back(), T{-7});
  }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ConvKernels, Scalars);

TYPED_TEST(ConvKernels, OutputsAroundThePanels) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::ptrdiff_t outputs : {1, 2, 7, 8, 15, 16, 17, 31, 33, 48, 50, 64, 65, 80, 97}) {
      const Problem<TypeParam> s(5, outputs);
      this->check_outputs(s, false, false);
      this->check_outputs(s, true, false);
    }
    for (const std::ptrdiff_t channels : {1, 8, 21}) {
      this->check_outputs(Problem<TypeParam>(channels, 3), false, true);
      this->check_outputs(Problem<TypeParam>(channels, 20), false, false);
    }
  }
}

TYPED_TEST(ConvKernels, GradientOfWeightsBothWays) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const kernels::ConvLayout layout = QUERN_DISPATCH(conv_layout<T>());
    for (const std::ptrdiff_t singles : {1, 5, 12, 13, 30}) {
      for (const std::ptrdiff_t vectors : {1, 2, 3, 4, 5}) {
        for (const bool swapped : {false, true}) {
          const std::ptrdiff_t wide = vectors * layout.lanes;
          const Problem<T> s(swapped ? wide : singles, 1);
          const std::ptrdiff_t outputs = swapped ? singles : wide;
          std::vector<T> dy(static_cast<std::size_t>(15 * outputs));
          for (std::size_t i = 0; i < dy.size(); ++i) dy[i] = static_cast<T>(i % 11) - T{5};
          std::vector<T> out(static_cast<std::size_t>(6 * singles * wide), T{1});
          std::vector<kernels::ConvRun<T>> runs(3);
          kernels::ConvWeightsTask<T> task;
          task.source = s.source();
          task.row_end = 3;
          task.grid_width = 5;
          task.dy = dy.data();
          task.dy_row_stride = 5 * outputs;
          task.dy_pixel_stride = outputs;
          task.singles = singles;
          task.vectors = vectors;
          task.source_by_vectors = swapped;
          task.out = out.data();
          task.out_stride = wide;
          QUERN_DISPATCH(conv_weights<T>(task, runs.data()));
          for (std::ptrdiff_t k = 0; k < 6 * singles * wide; ++k) {
            const std::ptrdiff_t tap = k / (singles * wide), a = k / wide % singles, b = k % wide;
            double sum = 1;
            for (std::ptrdiff_t p = 0; p < 15; ++p) {
              const std::ptrdiff_t o = swapped ? a : b;
              sum += s.at(p / 5, p % 5, s.taps[static_cast<std::size_t>(tap)], swapped ? b : a) *
                     static_cast<double>(dy[static_cast<std::size_t>(p * outputs + o)]);
            }
            ASSERT_NEAR(out[static_cast<std::size_t>(k)], sum, 2000 * this->unit) << k;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::conv_kernels
