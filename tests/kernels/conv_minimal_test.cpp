// SPDX-License-Identifier: Apache-2.0

/// \file
/// Minimal filtering at every level against sums in double: whole tiles and what is left over at
/// the ends of rows, borders, several grids of taps, channels around the vector.

#include "conv_minimal_problem.hpp"
#include "quern/kernels/conv_minimal_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <vector>

namespace quern::test::conv_minimal_kernel {
namespace {

template <class T>
void check_outputs(const ConvMinimalProblem<T>& p) {
  const MinimalShape& s = p.shape;
  const std::ptrdiff_t tiles = kernels::kMinimalTiles;
  const std::ptrdiff_t parts = s.step * s.step, depth = parts * s.channels;
  const auto count = static_cast<std::ptrdiff_t>(p.taps.size());
  const auto vector_of = [](std::ptrdiff_t n) {
    return std::vector<T>(static_cast<std::size_t>(n), std::numeric_limits<T>::quiet_NaN());
  };
  std::vector<T> packed =
      vector_of(QUERN_DISPATCH(conv_packed_size<T>(s.outputs, count * s.channels)));
  std::vector<T> points = vector_of(QUERN_DISPATCH(conv_minimal_weights_size<T>(s.outputs, depth)));
  std::vector<T> in = vector_of(QUERN_DISPATCH(conv_minimal_panels<T>(tiles, depth)));
  std::vector<T> out = vector_of(QUERN_DISPATCH(conv_minimal_panels<T>(tiles, s.outputs)));
  std::vector<T> y(p.dy.size() + 1, T{-7});
  QUERN_DISPATCH(conv_pack_weights<T>(p.w.data(), p.side * p.side, s.channels * p.side * p.side,
                                      p.taps.data(), count, s.channels, s.outputs, packed.data()));
  QUERN_DISPATCH(
      conv_minimal_weights<T>(packed.data(), s.taps, parts, s.channels, s.outputs, points.data()));
  kernels::ConvMinimalTask<T> t{p.task(), s.taps, tiles, in.data(), out.data()};
  t.conv.weights = points.data();
  t.conv.y = y.data();
  QUERN_DISPATCH(conv_minimal<T>(t));
  const double most = p.bound();
  for (std::size_t k = 0; k + 1 < y.size(); ++k) {
    const auto at = static_cast<std::ptrdiff_t>(k) / s.outputs, place = at % (p.grid_h * p.grid_w);
    ASSERT_NEAR(static_cast<double>(y[k]),
                p.exact(at / (p.grid_h * p.grid_w), place / p.grid_w, place % p.grid_w,
                        static_cast<std::ptrdiff_t>(k) % s.outputs),
                most)
        << "at " << k;
  }
  ASSERT_EQ(y.back(), T{-7});
}

template <class T>
class ConvMinimal : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ConvMinimal, Scalars);

TYPED_TEST(ConvMinimal, Outputs) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const MinimalShape& s :
         {MinimalShape{3, 1, 1, 1, 1, 1, 1}, MinimalShape{3, 1, 2, 9, 13, 17, 33},
          MinimalShape{3, 1, 3, 8, 7, 3, 80}, MinimalShape{2, 1, 2, 4, 5, 16, 3},
          MinimalShape{2, 2, 1, 13, 9, 5, 16}, MinimalShape{2, 2, 3, 6, 8, 17, 50},
          MinimalShape{3, 2, 1, 10, 15, 2, 65}}) {
      check_outputs(ConvMinimalProblem<TypeParam>(s));
    }
  }
}

}  // namespace
}  // namespace quern::test::conv_minimal_kernel
