// SPDX-License-Identifier: Apache-2.0

/// \file
/// Kernels of codebooks against plain loops, at every level; the two best of a product's rows.

#include "quern/kernels/gemm.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::codes_kernels {
namespace {

template <class T>
class CodeKernels : public ::testing::Test {
 protected:
  static std::vector<T> normal(std::size_t n, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> draw;
    std::vector<T> values(n);
    for (T& value : values) value = static_cast<T>(draw(random));
    return values;
  }
  static constexpr double unit = std::numeric_limits<T>::epsilon();
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(CodeKernels, Scalars);

template <class F>
void at_every_level(const F& f) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    f();
  }
}

TYPED_TEST(CodeKernels, RowsAreMovedFetchedAndAdded) {
  using T = TypeParam;
  at_every_level([&] {
    for (const std::size_t cols : {1u, 3u, 8u, 16u, 17u, 70u}) {
      const std::size_t stride = cols + 2, rows = 5;
      const auto x = this->normal(rows * stride, cols), table = this->normal(7 * stride, cols + 9);
      const auto step = static_cast<std::ptrdiff_t>(stride);
      const std::vector<std::int64_t> codes = {6, 0, 3, 3, 5};
      std::vector<T> out(rows * stride, T(-9)), sum(cols, T(1)), distance(rows);
      std::vector<double> squares(rows);
      QUERN_DISPATCH(rows_minus<T>(x.data(), step, rows, cols, table.data(), out.data(), step));
      for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < cols; ++j) {
          ASSERT_EQ(out[i * stride + j], x[i * stride + j] - table[j]);
        }
        ASSERT_EQ(out[i * stride + cols], T(-9));
      }
      QUERN_DISPATCH(fetch_rows<T>(table.data(), step, codes.data(), rows, cols, out.data(), step));
      QUERN_DISPATCH(code_distances<T>(x.data(), step, table.data(), step, codes.data(), rows, cols,
                                       distance.data()));
      QUERN_DISPATCH(row_squares<T>(x.data(), step, rows, cols, squares.data()));
      for (std::size_t i = 0; i < rows; ++i) {
        const T* const code = table.data() + static_cast<std::size_t>(codes[i]) * stride;
        double apart = 0, own = 0;
        for (std::size_t j = 0; j < cols; ++j) {
          ASSERT_EQ(out[i * stride + j], code[j]);
          const double d = static_cast<double>(x[i * stride + j]) - static_cast<double>(code[j]);
          apart += d * d;
          own += std::pow(static_cast<double>(x[i * stride + j]), 2);
        }
        ASSERT_NEAR(distance[i], apart, 20 * this->unit * apart);
        ASSERT_NEAR(squares[i], own, 20 * this->unit * own);
      }
      const std::vector<std::int64_t> which = {4, 1, 1};
      QUERN_DISPATCH(add_rows<T>(x.data(), step, which.data(), which.size(), cols, sum.data()));
      for (std::size_t j = 0; j < cols; ++j) {
        ASSERT_EQ(sum[j], ((T(1) + x[4 * stride + j]) + x[stride + j]) + x[stride + j]);
      }
    }
  });
}

TYPED_TEST(CodeKernels, CombinationsUnitRowsAndDistancesInDouble) {
  using T = TypeParam;
  at_every_level([&] {
    for (const std::size_t n : {1u, 7u, 16u, 33u}) {
      const auto x = this->normal(n, 1), y = this->normal(n, 2), z = this->normal(n, 3);
      std::vector<T> out(n), sum = x, unit_row(n);
      QUERN_DISPATCH(
          three_terms<T>(T(2), x.data(), T(-3), y.data(), T(0.5), z.data(), n, out.data()));
      QUERN_DISPATCH(add_difference<T>(T(0.5), y.data(), z.data(), n, sum.data()));
      const auto step = static_cast<std::ptrdiff_t>(n);
      QUERN_DISPATCH(unit_rows<T>(x.data(), step, std::size_t{1}, n, unit_row.data(), step));
      double length = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const double a = x[i], b = y[i], c = z[i];
        ASSERT_NEAR(out[i], 2 * a - 3 * b + 0.5 * c,
                    8 * this->unit * (2 + 3 * std::fabs(b) + 2 * std::fabs(a)));
        ASSERT_NEAR(sum[i], a + 0.5 * (b - c), 8 * this->unit * (1 + std::fabs(b) + std::fabs(c)));
        length += static_cast<double>(unit_row[i]) * static_cast<double>(unit_row[i]);
      }
      ASSERT_NEAR(length, 1, 40 * this->unit);
      std::vector<T> gradient = y, zeros(n, T(0));
      QUERN_DISPATCH(
          unit_rows_gradient<T>(x.data(), step, std::size_t{1}, n, gradient.data(), step));
      double along = 0, squares = 0;
      for (std::size_t i = 0; i < n; ++i) {
        along += static_cast<double>(unit_row[i]) * static_cast<double>(y[i]);
        squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      }
      for (std::size_t i = 0; i < n; ++i) {
        const double want = (static_cast<double>(y[i]) - static_cast<double>(unit_row[i]) * along) /
                            std::sqrt(squares);
        ASSERT_NEAR(gradient[i], want, 100 * this->unit * (1 + std::fabs(want)));
      }
      QUERN_DISPATCH(
          unit_rows_gradient<T>(zeros.data(), step, std::size_t{1}, n, gradient.data(), step));
      ASSERT_TRUE(gradient == zeros);
      std::vector<T> table = y;
      table.insert(table.end(), x.begin(), x.end());
      table.insert(table.end(), x.begin(), x.end());
      ASSERT_EQ(QUERN_DISPATCH(nearest_in_double<T>(x.data(), table.data(), step, 3, n)), 1);
    }
  });
}

TYPED_TEST(CodeKernels, RotationKeepsAnglesAndItsTransposeIsOne) {
  using T = TypeParam;
  at_every_level([&] {
    const std::size_t n = 21;
    const auto x = this->normal(n, 1), q = this->normal(n, 2), w = this->normal(n, 3);
    std::vector<T> onto(n), there(n), back(n);
    QUERN_DISPATCH(rotate_row<T>(x.data(), q.data(), x.data(), n, false, onto.data()));
    QUERN_DISPATCH(rotate_row<T>(x.data(), q.data(), w.data(), n, false, there.data()));
    QUERN_DISPATCH(rotate_row<T>(x.data(), q.data(), q.data(), n, true, back.data()));
    double left = 0, right = 0;
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_NEAR(onto[i], q[i], 64 * this->unit);
      left += static_cast<double>(there[i]) * static_cast<double>(q[i]);
      right += static_cast<double>(w[i]) * static_cast<double>(back[i]);
    }
    ASSERT_NEAR(left, right, 512 * this->unit);
  });
}

TYPED_TEST(CodeKernels, SecondBestIsKnown) {
  using T = TypeParam;
  at_every_level([&] {
    for (const Index codes : {1, 2, 5, 16, 47, 130}) {
      const Index rows = 19, depth = 6;
      const auto x = this->normal(static_cast<std::size_t>(rows * depth), 5);
      const auto book = this->normal(static_cast<std::size_t>(codes * depth), 6);
      const auto offsets = this->normal(static_cast<std::size_t>(codes), 7);
      const MatrixView<const T> table(book.data(), {codes, depth});
      std::vector<T> best(static_cast<std::size_t>(rows)), second(best.size());
      std::vector<std::int64_t> found(best.size());
      kernels::PackedMatrix<T>(table.transposed())
          .multiply(MatrixView<const T>(x.data(), {rows, depth}),
                    kernels::StoreArgMinTwo<T>{{T(-1), offsets.data(), best.data(), found.data()},
                                               second.data()},
                    1);
      for (std::size_t i = 0; i < best.size(); ++i) {
        std::vector<double> all;
        for (Index k = 0; k < codes; ++k) {
          double value = static_cast<double>(offsets[static_cast<std::size_t>(k)]);
          for (Index j = 0; j < depth; ++j) {
            value -= static_cast<double>(
                         x[i * static_cast<std::size_t>(depth) + static_cast<std::size_t>(j)]) *
                     static_cast<double>(table(k, j));
          }
          all.push_back(value);
        }
        EXPECT_EQ(found[i], std::min_element(all.begin(), all.end()) - all.begin());
        std::sort(all.begin(), all.end());
        EXPECT_NEAR(best[i], all[0], 100 * this->unit);
        if (codes == 1) {
          EXPECT_TRUE(std::isinf(second[i]));
        } else {
          EXPECT_NEAR(second[i], all[1], 100 * this->unit);
        }
      }
    }
  });
}

}  // namespace
}  // namespace quern::test::codes_kernels
