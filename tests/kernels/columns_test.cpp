// SPDX-License-Identifier: Apache-2.0

/// \file
/// Column sums and the transpose at every level: sizes around the vector, strides, equal bits
/// whatever stands beside a column.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::columns {
namespace {

template <class T>
class Columns : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Columns, Scalars);

TYPED_TEST(Columns, SumsAgainstLongDouble) {
  using T = TypeParam;
  constexpr double unit = std::numeric_limits<T>::epsilon() / 2;
  std::mt19937_64 random(4);
  std::normal_distribution<double> normal(1, 1);
  for (const std::size_t rows : {0u, 1u, 2u, 63u, 64u, 65u, 300u}) {
    for (const std::size_t cols : {1u, 3u, 8u, 16u, 17u, 40u}) {
      const std::size_t stride = cols + 3;
      std::vector<T> x(rows * stride);
      for (T& value : x) value = static_cast<T>(normal(random));
      for (const simd::Level level : simd::attainable_levels()) {
        const simd::ScopedLevel force(level);
        std::vector<T> out(cols + 1, T{-7}), alone(1);
        QUERN_DISPATCH(
            column_sums(rows, cols, x.data(), static_cast<std::ptrdiff_t>(stride), out.data()));
        ASSERT_EQ(out[cols], T{-7});
        for (std::size_t j = 0; j < cols; ++j) {
          long double sum = 0, size = 0;
          for (std::size_t i = 0; i < rows; ++i) {
            sum += x[i * stride + j];
            size += std::fabs(x[i * stride + j]);
          }
          const double bound = (64 + static_cast<double>(rows) / 64) * unit;
          ASSERT_NEAR(out[j], static_cast<double>(sum), bound * static_cast<double>(size));
          QUERN_DISPATCH(column_sums(rows, 1, x.data() + j, static_cast<std::ptrdiff_t>(stride),
                                     alone.data()));
          ASSERT_EQ(alone[0], out[j]) << "its neighbours have no part in it";
        }
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::columns
