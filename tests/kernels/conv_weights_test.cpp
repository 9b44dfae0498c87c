// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of a convolution's weights at every level against sums in double: channels around the
/// tiles, either operand by vectors, borders.

#include "conv_problem.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <vector>

namespace quern::test::conv_weights {
namespace {

template <class T>
class ConvWeightsKernels : public ::testing::Test {
 protected:
  static constexpr double unit = std::numeric_limits<T>::epsilon() / 2;
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ConvWeightsKernels, Scalars);

TYPED_TEST(ConvWeightsKernels, BothWays) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const kernels::ConvLayout layout = QUERN_DISPATCH(conv_layout<T>());
    for (const std::ptrdiff_t singles : {1, 5, 12, 13, 30}) {
      for (const std::ptrdiff_t vectors : {1, 2, 3, 4, 5}) {
        for (const bool swapped : {false, true}) {
          const std::ptrdiff_t wide = vectors * layout.lanes;
          const ConvProblem<T> s(swapped ? wide : singles, 1);
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
}  // namespace quern::test::conv_weights
