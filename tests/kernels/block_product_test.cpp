// SPDX-License-Identifier: Apache-2.0

/// \file
/// Products of small blocks against sums in long double, at every level: sizes around the tile,
/// turned left-hand matrices, adding, and what lies beside the columns.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

namespace quern::test::block_product {
namespace {

template <class T>
void check(std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t depth, bool turned, bool add) {
  std::mt19937_64 random(static_cast<unsigned>(rows * 1000 + cols * 10 + depth));
  std::normal_distribution<double> normal;
  const std::ptrdiff_t b_stride = cols + 3, c_stride = cols + 5;
  const std::ptrdiff_t a_row = turned ? 1 : depth + 1, a_depth = turned ? rows + 2 : 1;
  std::vector<T> a(static_cast<std::size_t>((rows + 2) * (depth + 1) + 2));
  std::vector<T> b(static_cast<std::size_t>(b_stride * depth + 1));
  std::vector<T> c(static_cast<std::size_t>(c_stride * rows));
  for (auto* x : {&a, &b, &c})
    for (T& value : *x) value = static_cast<T>(normal(random));
  const std::vector<T> before = c;
  kernels::BlockProduct<T> p{a.data(), a_row,    a_depth, b.data(), b_stride,
                             c.data(), c_stride, rows,    cols,     depth};
  if (add) {
    QUERN_DISPATCH(block_product<true>(p));
  } else {
    QUERN_DISPATCH(block_product<false>(p));
  }
  const double unit = std::numeric_limits<T>::epsilon() / 2;
  for (std::ptrdiff_t i = 0; i < rows; ++i) {
    for (std::ptrdiff_t j = 0; j < c_stride; ++j) {
      const auto at = static_cast<std::size_t>(i * c_stride + j);
      if (j >= cols) {
        ASSERT_EQ(c[at], before[at]);
        continue;
      }
      long double sum = add ? static_cast<long double>(before[at]) : 0.0L, size = std::fabs(sum);
      for (std::ptrdiff_t q = 0; q < depth; ++q) {
        const long double term =
            static_cast<long double>(a[static_cast<std::size_t>(i * a_row + q * a_depth)]) *
            static_cast<long double>(b[static_cast<std::size_t>(q * b_stride + j)]);
        sum += term, size += std::fabs(term);
      }
      // Every step rounds once: at most depth + 1 times half an ulp of what was summed.
      ASSERT_NEAR(static_cast<double>(c[at]), static_cast<double>(sum),
                  static_cast<double>(depth + 2) * unit * static_cast<double>(size));
    }
  }
}

template <class T>
void check_all() {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::ptrdiff_t rows : {1, 3, 5, 6, 13, 64})
      for (const std::ptrdiff_t cols : {1, 7, 8, 17, 48, 64, 67})
        for (const std::ptrdiff_t depth : {0, 1, 5, 64})
          for (const bool turned : {false, true}) check<T>(rows, cols, depth, turned, turned);
    check<T>(7, 33, 9, false, true);
    check<T>(0, 8, 4, false, false);
  }
}

TEST(BlockProduct, FloatAgainstLongDouble) { check_all<float>(); }
TEST(BlockProduct, DoubleAgainstLongDouble) { check_all<double>(); }

}  // namespace
}  // namespace quern::test::block_product
