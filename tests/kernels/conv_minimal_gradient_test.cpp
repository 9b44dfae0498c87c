// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of weights by minimal filtering at every level against sums in double.

#include "conv_minimal_problem.hpp"
#include "quern/kernels/conv_minimal_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <vector>

namespace quern::test::conv_minimal_gradient_kernel {
namespace {

template <class T>
void check_gradient(const ConvMinimalProblem<T>& p) {
  const MinimalShape& s = p.shape;
  const std::ptrdiff_t tiles = kernels::kMinimalTiles;
  const kernels::ConvLayout layout = QUERN_DISPATCH(conv_layout<T>());
  const std::ptrdiff_t parts = s.step * s.step, depth = parts * s.channels;
  const std::ptrdiff_t width = (s.outputs + layout.lanes - 1) / layout.lanes * layout.lanes;
  const std::ptrdiff_t each = s.channels * width, squares = s.taps * s.taps;
  const auto vector_of = [](std::ptrdiff_t n, T value) {
    return std::vector<T>(static_cast<std::size_t>(n), value);
  };
  const T nan = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> in = vector_of(QUERN_DISPATCH(conv_minimal_panels<T>(tiles, depth)), nan);
  std::vector<T> out = vector_of(QUERN_DISPATCH(conv_minimal_panels<T>(tiles, s.outputs)), nan);
  std::vector<T> sums = vector_of(kernels::kMinimalPoints * depth * width, T{0});
  std::vector<T> made = vector_of(squares * parts * each, nan);
  const kernels::ConvMinimalGradient<T> t{.conv = p.task(),
                                          .dy = p.dy.data(),
                                          .taps = s.taps,
                                          .tiles = tiles,
                                          .source_panels = in.data(),
                                          .gradient_panels = out.data(),
                                          .sums = sums.data()};
  QUERN_DISPATCH(conv_minimal_gradient<T>(t));
  for (std::ptrdiff_t row = 0; row < depth; ++row) {
    const std::ptrdiff_t part = row / s.channels, c = row % s.channels;
    QUERN_DISPATCH(conv_minimal_taps<T>(sums.data() + row * width, s.taps, s.outputs, depth * width,
                                        each, made.data() + part * squares * each + c * width));
  }
  const auto positions = static_cast<double>(s.images * p.grid_h * p.grid_w);
  const double unit = static_cast<double>(std::numeric_limits<T>::epsilon()) / 2;
  const double most = (positions + 12) * unit * 16 * positions *
                      ConvMinimalProblem<T>::largest(p.x) * ConvMinimalProblem<T>::largest(p.dy);
  for (std::ptrdiff_t k = 0; k < parts * squares * s.channels * s.outputs; ++k) {
    const std::ptrdiff_t o = k % s.outputs, c = k / s.outputs % s.channels;
    const std::ptrdiff_t tap = k / s.outputs / s.channels;
    const std::ptrdiff_t place = p.taps[static_cast<std::size_t>(tap)].weight;
    ASSERT_NEAR(static_cast<double>(made[static_cast<std::size_t>(tap * each + c * width + o)]),
                p.exact_gradient(o, c, place / p.side, place % p.side), most)
        << "tap " << tap << " channel " << c << " output " << o;
  }
}

template <class T>
class ConvMinimalGradient : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ConvMinimalGradient, Scalars);

TYPED_TEST(ConvMinimalGradient, Weights) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const MinimalShape& s :
         {MinimalShape{3, 1, 1, 1, 1, 1, 1}, MinimalShape{3, 1, 2, 9, 13, 17, 33},
          MinimalShape{3, 1, 4, 8, 7, 3, 66}, MinimalShape{2, 1, 2, 4, 5, 16, 3},
          MinimalShape{2, 2, 1, 13, 9, 5, 16}, MinimalShape{2, 2, 3, 6, 8, 17, 50},
          MinimalShape{3, 2, 1, 10, 15, 2, 17}}) {
      check_gradient(ConvMinimalProblem<TypeParam>(s));
    }
  }
}

}  // namespace
}  // namespace quern::test::conv_minimal_gradient_kernel
