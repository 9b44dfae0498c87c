// SPDX-License-Identifier: Apache-2.0

/// \file
/// The transpose at every level, sizes around its squares and blocks, with strides.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace quern::test::transpose {
namespace {

template <class T>
class Transpose : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Transpose, Scalars);

TYPED_TEST(Transpose, EverySize) {
  using T = TypeParam;
  for (const std::ptrdiff_t rows : {0, 1, 2, 3, 4, 5, 31, 32, 33, 70}) {
    for (const std::ptrdiff_t cols : {0, 1, 2, 4, 7, 32, 37}) {
      const std::ptrdiff_t from_stride = cols + 2, to_stride = rows + 3;
      std::vector<T> x(static_cast<std::size_t>(rows * from_stride));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(i);
      for (const simd::Level level : simd::attainable_levels()) {
        const simd::ScopedLevel force(level);
        std::vector<T> y(static_cast<std::size_t>(cols * to_stride), T{-7});
        QUERN_DISPATCH(transpose(x.data(), from_stride, rows, cols, y.data(), to_stride));
        for (std::ptrdiff_t j = 0; j < cols; ++j) {
          for (std::ptrdiff_t i = 0; i < to_stride; ++i) {
            const T expected = i < rows ? x[static_cast<std::size_t>(i * from_stride + j)] : T{-7};
            ASSERT_EQ(y[static_cast<std::size_t>(j * to_stride + i)], expected);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::transpose
