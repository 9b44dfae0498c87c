// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows woven into one and taken apart again, and copies around the caches, at every level.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace quern::test::interleave_kernels {
namespace {

template <class T>
std::vector<T> normal(std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> draw;
  std::vector<T> values(n);
  for (T& value : values) value = static_cast<T>(draw(random));
  return values;
}

template <class T>
class InterleaveKernels : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(InterleaveKernels, Scalars);

TYPED_TEST(InterleaveKernels, RowsInTurn) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::ptrdiff_t factor : {1, 2, 3, 4}) {
      for (const std::size_t size : {1u, 5u, 16u, 31u, 64u}) {
        std::vector<std::vector<T>> rows, back;
        std::vector<const T*> sources;
        std::vector<T*> outs;
        for (std::ptrdiff_t j = 0; j < factor; ++j) {
          rows.push_back(normal<T>(size, static_cast<std::uint64_t>(j)));
          back.emplace_back(size);
        }
        for (std::size_t j = 0; j < rows.size(); ++j) {
          sources.push_back(rows[j].data());
          outs.push_back(back[j].data());
        }
        const std::size_t n = size * static_cast<std::size_t>(factor);
        for (const bool streams : {false, true}) {
          for (const std::size_t offset : {0u, 1u, 3u}) {
            std::vector<T> out(n + 4, T(-9));
            QUERN_DISPATCH(
                interleave_rows<T>(sources.data(), factor, size, out.data() + offset, streams));
            for (std::size_t i = 0; i < n; ++i) {
              const auto f = static_cast<std::size_t>(factor);
              ASSERT_EQ(out[offset + i], rows[i % f][i / f]) << i << " of " << n;
            }
            ASSERT_EQ(out[offset + n], T(-9));
            QUERN_DISPATCH(deinterleave_row<T>(out.data() + offset, factor, size, outs.data()));
            ASSERT_EQ(back, rows);
            std::vector<T> copy(n + 1);
            QUERN_DISPATCH(stream_copy<T>(out.data() + offset, n, copy.data() + 1));
            ASSERT_TRUE(std::equal(copy.begin() + 1, copy.end(),
                                   out.begin() + static_cast<std::ptrdiff_t>(offset)));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::interleave_kernels
