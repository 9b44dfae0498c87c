// SPDX-License-Identifier: Apache-2.0

/// \file
/// Kernels of convolution at every level against sums in double: every number of output channels
/// around the panels, few and many source channels, borders, narrow outputs.

#include "conv_problem.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <vector>

namespace quern::test::conv_kernels {
namespace {

template <class T>
class ConvKernels : public ::testing::Test {
 protected:
  static constexpr double unit = std::numeric_limits<T>::epsilon() / 2;

  static void check_outputs(const ConvProblem<T>& s, bool narrow) {
    const kernels::ConvLayout layout = QUERN_DISPATCH(conv_layout<T>());
    const std::ptrdiff_t depth = 6 * s.channels;
    std::vector<T> packed(static_cast<std::size_t>(
        narrow ? depth * s.outputs : QUERN_DISPATCH(conv_packed_size<T>(s.outputs, depth))));
    std::vector<const T*> pointers(static_cast<std::size_t>(6 * layout.rows));
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
      const ConvProblem<TypeParam> s(5, outputs);
      this->check_outputs(s, false);
    }
    for (const std::ptrdiff_t channels : {1, 8, 21}) {
      this->check_outputs(ConvProblem<TypeParam>(channels, 3), true);
      this->check_outputs(ConvProblem<TypeParam>(channels, 20), false);
    }
  }
}

}  // namespace
}  // namespace quern::test::conv_kernels
