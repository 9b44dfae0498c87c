// SPDX-License-Identifier: Apache-2.0

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace quern::test::tree_gradient {
namespace {

TEST(TreeGradientKernel, PacksAsAPlainLoop) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    for (const std::int64_t n : {0, 1, 2, 3, 4, 7, 8, 9, 100}) {
      Philox rng(5, "pack", static_cast<std::uint64_t>(n));
      std::vector<float> pairs;
      for (std::int64_t i = 0; i < n; ++i) {
        pairs.push_back(rng.uniform<float>() * 2 - 1);
        pairs.push_back(i % 5 == 0 ? 0.0f : i % 5 == 1 ? 1e-12f : rng.uniform<float>());
      }
      if (n > 3) pairs[7] = 0.9999999f;  // rounds to 2^17: one too many
      std::vector<std::int64_t> out(static_cast<std::size_t>(n) + 1, -77);
      QUERN_DISPATCH(pack_gradients<float>(pairs.data(), n, 65536.0f, 131072.0f, out.data()));
      for (std::int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<std::size_t>(2 * i);
        const auto g = static_cast<std::int64_t>(std::nearbyint(pairs[at] * 65536.0f));
        auto h = static_cast<std::int64_t>(std::nearbyint(pairs[at + 1] * 131072.0f));
        if (pairs[at + 1] > 0 && h == 0) h = 1;
        if (h > 131071) h = 131071;
        EXPECT_EQ(out[static_cast<std::size_t>(i)] >> 32, g);
        EXPECT_EQ(out[static_cast<std::size_t>(i)] & 0xffffffff, h);
      }
      EXPECT_EQ(out.back(), -77);
    }
  }
}

TEST(TreeGradientKernel, ListedRowsAreSummedAndAddedToAsAPlainLoop) {
  constexpr std::int64_t rows = 300, stride = 3;
  Philox rng(7, "listed rows");
  std::vector<float> pairs, values;
  for (std::int64_t i = 0; i < 2 * rows; ++i) pairs.push_back(rng.uniform<float>() * 2 - 1);
  for (std::int64_t i = 0; i < stride * rows; ++i) values.push_back(rng.normal<float>());
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    for (const std::int64_t n : {0, 1, 23, 24, 25, 100}) {
      std::vector<std::int32_t> list;
      for (std::int32_t i = 0; i < n; ++i) list.push_back(3 * i % 299);
      for (const bool listed : {false, true}) {
        const kernels::RowList some{listed ? list.data() : nullptr, 5, n};
        std::int64_t sums[2] = {-4, 9}, expected[2] = {-4, 9};
        std::vector<float> got = values, plain = values;
        for (std::int64_t i = 0; i < n; ++i) {
          const auto row =
              static_cast<std::size_t>(listed ? list[static_cast<std::size_t>(i)] : 5 + i);
          expected[0] += static_cast<std::int64_t>(static_cast<double>(pairs[2 * row]) * 1e6);
          expected[1] += static_cast<std::int64_t>(static_cast<double>(pairs[2 * row + 1]) * 1e7);
          float& value = plain[stride * row];
          value = static_cast<float>(static_cast<double>(value) + 0.123456789);
        }
        QUERN_DISPATCH(sum_gradients<float>(pairs.data(), some, 1e6, 1e7, sums));
        QUERN_DISPATCH(add_to_rows<float>(got.data(), stride, some, 0.123456789));
        EXPECT_EQ(sums[0], expected[0]) << n;
        EXPECT_EQ(sums[1], expected[1]) << n;
        EXPECT_EQ(got, plain) << n;
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::tree_gradient
