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

}  // namespace
}  // namespace quern::test::tree_gradient
