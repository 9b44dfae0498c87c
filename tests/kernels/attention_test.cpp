// SPDX-License-Identifier: Apache-2.0

/// \file
/// Attention's kernels against naive loops, at every level: small products, softmax of transposed
/// scores and its gradient, masks, rows of scores.

#include "quern/core/random.hpp"
#include "quern/kernels/attention_types.hpp"
#include "quern/kernels/feature_map_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace quern::test::attention_kernels {
namespace {

template <class T>
std::vector<T> numbers(std::size_t n, std::uint64_t seed, double low = -1, double high = 1) {
  Philox random(seed, "attention kernels");
  std::vector<T> x(n);
  for (T& value : x) value = static_cast<T>(random.uniform(low, high));
  return x;
}

template <class T>
class AttentionKernels : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(AttentionKernels, Scalars);

TYPED_TEST(AttentionKernels, ProductsOfAnyStrides) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const std::ptrdiff_t lanes = QUERN_DISPATCH(tile_layout<T>()).lanes;
    for (const std::ptrdiff_t rows : {0, 1, 3, 8, 13}) {
      for (const std::ptrdiff_t vectors : {1, 2, 3, 4, 5, 7}) {
        for (const std::ptrdiff_t depth : {0, 1, 9}) {
          for (const bool turned : {false, true}) {
            const std::ptrdiff_t cols = vectors * lanes, stride = cols + 3;
            const auto a = numbers<T>(static_cast<std::size_t>(rows * depth + 1), 1);
            const auto b = numbers<T>(static_cast<std::size_t>((depth + 1) * stride), 2);
            auto c = numbers<T>(static_cast<std::size_t>((rows + 1) * stride), 3);
            const auto before = c;
            kernels::TileProduct<T> p;
            p.rows = rows, p.cols = cols, p.depth = depth;
            p.a = a.data();
            p.a_row_stride = turned ? 1 : depth, p.a_depth_stride = turned ? rows : 1;
            p.b = b.data(), p.b_stride = stride;
            p.c = c.data(), p.c_stride = stride;
            p.add = depth != 1;
            QUERN_DISPATCH(tile_product<T>(p));
            for (std::ptrdiff_t i = 0; i < rows; ++i) {
              for (std::ptrdiff_t j = 0; j < stride; ++j) {
                const auto at = static_cast<std::size_t>(i * stride + j);
                double sum = p.add ? static_cast<double>(before[at]) : 0;
                for (std::ptrdiff_t k = 0; k < depth; ++k) {
                  const auto x = static_cast<std::size_t>(turned ? k * rows + i : i * depth + k);
                  sum += static_cast<double>(a[x]) *
                         static_cast<double>(b[static_cast<std::size_t>(k * stride + j)]);
                }
                if (j >= cols) sum = static_cast<double>(before[at]);
                // Ten products of at most one.
                ASSERT_NEAR(c[at], sum, 10 * std::numeric_limits<T>::epsilon());
              }
            }
          }
        }
      }
    }
  }
}

TYPED_TEST(AttentionKernels, SoftmaxInPiecesAndItsGradient) {
  using T = TypeParam;
  const double tolerance = 40 * std::numeric_limits<T>::epsilon();
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const std::ptrdiff_t cols = 2 * QUERN_DISPATCH(tile_layout<T>()).lanes, keys = 11;
    const auto n = static_cast<std::size_t>(keys * cols), width = static_cast<std::size_t>(cols);
    const auto scores = numbers<T>(n, 4, -20, 20), upstream = numbers<T>(n, 5);
    auto weights = scores, gradients = upstream;
    std::vector<T> largest(width, std::numeric_limits<T>::lowest() / 4), sums(width), factor(width);
    // Lane i sees key r where r - 3 <= i < r + 5.
    const auto sees = [&](std::ptrdiff_t r, std::ptrdiff_t i) { return r - 3 <= i && i < r + 5; };
    std::vector<double> scale_first(width, 1);
    for (const std::ptrdiff_t begin : {0, 6}) {
      kernels::ScoreTile<T> tile;
      tile.keys = begin == 0 ? 6 : keys - 6;
      tile.cols = cols;
      tile.scores = weights.data() + begin * cols;
      tile.masked = true;
      tile.low = begin - 3, tile.high = begin + 5;
      const bool corrected =
          QUERN_DISPATCH(softmax_tile<T>(tile, largest.data(), sums.data(), factor.data()));
      EXPECT_TRUE(corrected || begin > 0);
      for (std::size_t i = 0; i < width; ++i) {
        if (begin == 6) scale_first[i] = static_cast<double>(factor[i]);
      }
    }
    std::vector<T> log_sums(width), means(width, T(0.25));
    for (std::ptrdiff_t i = 0; i < cols; ++i) {
      const auto lane = static_cast<std::size_t>(i);
      double total = 0;
      for (std::ptrdiff_t r = 0; r < keys; ++r) {
        if (sees(r, i))
          total += std::exp2(static_cast<double>(scores[static_cast<std::size_t>(r * cols + i)]));
      }
      if (total == 0) {
        EXPECT_EQ(sums[lane], 0);
        log_sums[lane] = (std::numeric_limits<T>::max)() / 4;
        continue;
      }
      log_sums[lane] = static_cast<T>(std::log2(total));
      for (std::ptrdiff_t r = 0; r < keys; ++r) {
        const auto at = static_cast<std::size_t>(r * cols + i);
        const double weight = sees(r, i) ? std::exp2(static_cast<double>(scores[at])) / total : 0;
        const double got = static_cast<double>(weights[at]) / static_cast<double>(sums[lane]);
        ASSERT_NEAR(got * (r < 6 ? scale_first[lane] : 1.0), weight, tolerance);
      }
    }
    auto again = scores;
    kernels::ScoreTile<T> all{keys, cols, again.data(), true, -3, 5};
    QUERN_DISPATCH(
        softmax_tile_vjp<T>(all, log_sums.data(), means.data(), T(0.5), gradients.data()));
    for (std::ptrdiff_t r = 0; r < keys; ++r) {
      for (std::ptrdiff_t i = 0; i < cols; ++i) {
        const auto at = static_cast<std::size_t>(r * cols + i);
        const double weight =
            sees(r, i) ? std::exp2(static_cast<double>(scores[at]) -
                                   static_cast<double>(log_sums[static_cast<std::size_t>(i)]))
                       : 0;
        ASSERT_NEAR(again[at], weight, tolerance);
        ASSERT_NEAR(gradients[at], 0.5 * weight * (static_cast<double>(upstream[at]) - 0.25),
                    tolerance);
      }
    }
    QUERN_DISPATCH(scale_columns<T>(keys, cols, means.data(), again.data()));
    ASSERT_NEAR(again[0], 0.25 * std::exp2(static_cast<double>(scores[0] - log_sums[0])),
                tolerance);
  }
}

TYPED_TEST(AttentionKernels, RowsOfScores) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    for (const std::ptrdiff_t dim : {0, 1, 5, 16, 37, 64}) {
      const auto q = numbers<T>(static_cast<std::size_t>(dim), 6);
      const auto k = numbers<T>(static_cast<std::size_t>(3 * (dim + 2)), 7);
      T scores[3];
      QUERN_DISPATCH(score_rows<T>(q.data(), k.data(), dim + 2, 3, dim, T(0.5), scores));
      for (std::ptrdiff_t j = 0; j < 3; ++j) {
        double sum = 0;
        for (std::ptrdiff_t c = 0; c < dim; ++c) {
          sum += static_cast<double>(q[static_cast<std::size_t>(c)]) *
                 static_cast<double>(k[static_cast<std::size_t>(j * (dim + 2) + c)]);
        }
        ASSERT_NEAR(scores[j], 0.5 * sum, 30 * std::numeric_limits<T>::epsilon());
      }
    }
  }
}

TYPED_TEST(AttentionKernels, ExponentialsOfRows) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    for (const std::size_t cols :
         {std::size_t{1}, std::size_t{7}, std::size_t{16}, std::size_t{45}}) {
      const std::size_t rows = 3, apart = cols + 2;
      const auto u = numbers<T>(rows * apart, 8), shifts = numbers<T>(rows, 9);
      for (const bool own : {false, true}) {
        std::vector<T> phi(rows * apart, T{-9}), largest(rows);
        kernels::ExpRows<T> in;
        in.rows = rows, in.cols = cols, in.u = u.data(), in.phi = phi.data();
        in.u_stride = in.phi_stride = static_cast<std::ptrdiff_t>(apart);
        in.shifts = shifts.data(), in.own = own, in.largest = largest.data();
        in.factor = T(0.25), in.offset = T(0.5);
        QUERN_DISPATCH(exp_rows<T>(in));
        for (std::size_t r = 0; r < rows; ++r) {
          const T* const from = u.data() + r * apart;
          const T most = *std::max_element(from, from + cols);
          ASSERT_EQ(largest[r], own ? most : T{0});
          for (std::size_t c = 0; c < apart; ++c) {
            const double shift = static_cast<double>(shifts[r] + (own ? most : T{0}));
            const double exact = 0.25 * std::exp(static_cast<double>(from[c]) - shift) + 0.5;
            ASSERT_NEAR(phi[r * apart + c], c < cols ? exact : -9.0,
                        8 * std::numeric_limits<T>::epsilon() * exact);
          }
        }
      }
    }
  }
}

/// What is asked for on the way changes no bit, and the ways through it cover it.
TYPED_TEST(AttentionKernels, MemoryAheadOfTime) {
  using T = TypeParam;
  const auto a = numbers<T>(21 * 9, 1), b = numbers<T>(9 * 80, 2);
  std::vector<T> c(21 * 80), again = c;
  kernels::TileProduct<T> p;
  p.rows = 21, p.cols = 80, p.depth = 9;
  p.a = a.data(), p.a_row_stride = 9, p.a_depth_stride = 1;
  p.b = b.data(), p.b_stride = p.c_stride = 80, p.c = c.data();
  QUERN_DISPATCH(tile_product<T>(p));
  const kernels::Ahead parts{a.data(), static_cast<std::ptrdiff_t>(a.size() * sizeof(T))};
  p.ahead[0] = parts, p.c = again.data();
  QUERN_DISPATCH(tile_product<T>(p));
  EXPECT_EQ(c, again);
  const kernels::Ahead both[2] = {parts, {}};
  const char* end = static_cast<const char*>(parts.begin);
  for (std::ptrdiff_t n = 0; n < 7; ++n) {
    const kernels::AheadWalk walk(both, n, 7, 5, b.data());
    if (n >= 4) {
      EXPECT_EQ(walk.at, reinterpret_cast<const char*>(b.data()));
      EXPECT_EQ(walk.step, 0);
      continue;
    }
    EXPECT_LE(walk.at, end);
    end = walk.at + 5 * walk.step;
  }
  EXPECT_GE(end, static_cast<const char*>(parts.begin) + parts.bytes);
}

}  // namespace
}  // namespace quern::test::attention_kernels
