// SPDX-License-Identifier: Apache-2.0

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace quern::test::tree_cut {
namespace {

/// Codes whose room up to the next multiple of 64 holds copies of the first.
template <class Code>
std::vector<Code> some_codes(std::int64_t n, std::uint64_t limit) {
  Philox rng(1, "cut", static_cast<std::uint64_t>(n));
  std::vector<Code> codes(static_cast<std::size_t>((n + 63) / 64 * 64));
  for (std::int64_t i = 0; i < n; ++i)
    codes[static_cast<std::size_t>(i)] = static_cast<Code>(rng.integer(limit));
  std::fill(codes.begin() + n, codes.end(), codes[0]);
  return codes;
}

template <class Code>
void check(std::uint64_t limit) {
  for (const std::int64_t n : {1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 200, 1000}) {
    SCOPED_TRACE(n);
    const std::vector<Code> codes = some_codes<Code>(n, limit);
    const auto end = codes.begin() + n;
    Code low = 0, high = 0;
    QUERN_DISPATCH(code_range<Code>(codes.data(), n, &low, &high));
    EXPECT_EQ(low, *std::min_element(codes.begin(), end));
    EXPECT_EQ(high, *std::max_element(codes.begin(), end));
    for (const std::int64_t groups : {1, 2, 5, 64}) {
      std::vector<std::uint32_t> ends;
      for (std::int64_t k = 1; k <= groups; ++k) {
        const auto at = static_cast<std::uint32_t>(n * k / groups);
        if (at > (ends.empty() ? 0U : ends.back())) ends.push_back(at);
      }
      std::vector<std::uint32_t> counts(ends.size(), 99), expected;
      const Code most = codes[static_cast<std::size_t>(n / 2)];
      std::ptrdiff_t from = 0;
      for (const std::uint32_t to : ends) {
        expected.push_back(static_cast<std::uint32_t>(
            std::count_if(codes.begin() + from, codes.begin() + static_cast<std::ptrdiff_t>(to),
                          [&](Code c) { return c <= most; })));
        from = static_cast<std::ptrdiff_t>(to);
      }
      QUERN_DISPATCH(count_up_to<Code>(codes.data(), most, ends.data(),
                                       static_cast<std::int64_t>(ends.size()), counts.data()));
      EXPECT_EQ(counts, expected);
    }
  }
}

TEST(TreeCutKernel, FindsTheRangeAndCountsEachGroup) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    check<std::uint8_t>(256);
    check<std::uint8_t>(3);
    check<std::uint32_t>(std::uint64_t{1} << 32);
    check<std::uint32_t>(70000);
  }
}

}  // namespace
}  // namespace quern::test::tree_cut
