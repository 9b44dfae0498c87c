// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/detail/feature_blocks.hpp"

#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace quern::test::feature_blocks {
namespace {

using namespace tree::detail;  // all of it is under test
using tree::BlockLayout;

tree::Cuts cuts_of(const std::vector<std::int32_t>& bins) {
  tree::Cuts cuts;
  for (const std::int32_t b : bins) {
    for (std::int32_t i = 1; i < b; ++i) cuts.values.push_back(i);
    cuts.offsets.push_back(static_cast<std::int64_t>(cuts.values.size()));
  }
  return cuts;
}

TEST(FeatureBlocks, StridesAreMultiplesOfEightAndHoldTheColumns) {
  for (std::int32_t n = 1; n <= 64; ++n) {
    EXPECT_GE(dense_stride(n), n);
    EXPECT_EQ(dense_stride(n) % 8, 0);
  }
  EXPECT_EQ(dense_stride(5), 8);
  EXPECT_EQ(dense_stride(17), 32);
  EXPECT_EQ(dense_stride(33), 40);
}

TEST(FeatureBlocks, BytesAreTransposed) {
  std::uint64_t x[8];
  for (std::uint64_t j = 0; j < 8; ++j) {
    x[j] = 0;
    for (std::uint64_t i = 0; i < 8; ++i) x[j] |= (8 * j + i) << (8 * i);
  }
  transpose_bytes(x);
  for (std::uint64_t j = 0; j < 8; ++j)
    for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(x[j] >> (8 * i) & 0xff, 8 * i + j);
}

TEST(FeatureBlocks, OtherCodesAreVisitedInOrder) {
  std::vector<std::uint8_t> codes(45, 7);
  codes[0] = codes[13] = codes[44] = 1;
  std::vector<std::pair<std::int64_t, int>> seen;
  for_each_other(codes.data(), {0, 45}, 7,
                 [&](std::int64_t r, std::uint8_t c) { seen.emplace_back(r, c); });
  EXPECT_EQ(seen, (std::vector<std::pair<std::int64_t, int>>{{0, 1}, {13, 1}, {44, 1}}));
}

TEST(FeatureBlocks, ProfilesKnowConstantColumnsAndTheMostFrequentCode) {
  std::vector<std::uint8_t> codes(1000, 3);
  EXPECT_TRUE(profile_column(codes.data(), 1000).constant);
  EXPECT_EQ(profile_column(codes.data(), 1000).default_code, 3);
  for (std::size_t i = 0; i < 100; ++i) codes[10 * i] = 9;
  const tree::detail::ColumnProfile p = profile_column(codes.data(), 1000);
  EXPECT_FALSE(p.constant);
  EXPECT_EQ(p.default_code, 3);
  EXPECT_NEAR(p.density, 0.1, 0.02);
  EXPECT_TRUE(profile_column(codes.data(), 0).constant);
}

/// Every feature that is not constant is in one block; rare ones in a sparse one, where they pay.
TEST(FeatureBlocks, PlansHoldEveryFeatureOnce) {
  const std::vector<std::int32_t> bins(200, 10);
  std::vector<ColumnProfile> profiles(200);
  for (std::size_t f = 0; f < 200; ++f) {
    profiles[f].density = f % 2 == 0 ? 0.9 : 0.01;
    profiles[f].constant = f % 10 == 0;
  }
  const auto blocks = plan_blocks(cuts_of(bins), profiles, {}, 5000);
  std::vector<int> times(200, 0);
  for (const tree::FeatureBlock& b : blocks) {
    for (const std::int32_t f : b.features) {
      ++times[static_cast<std::size_t>(f)];
      EXPECT_EQ(b.layout == BlockLayout::sparse, f % 2 == 1) << f;
    }
    EXPECT_EQ(b.cell_offsets.size(), b.features.size() + 1);
    if (b.layout == BlockLayout::dense) {
      EXPECT_LE(b.columns(), dense_block_columns);
    }
  }
  for (std::size_t f = 0; f < 200; ++f) EXPECT_EQ(times[f], f % 10 == 0 ? 0 : 1) << f;
}

TEST(FeatureBlocks, FilledBlocksGiveTheCodesBack) {
  constexpr std::int64_t rows = 5001;
  const std::vector<std::int32_t> bins = {255, 3, 9, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2};
  const auto features = static_cast<std::int64_t>(bins.size());
  for (const int threads : {1, 2, 3}) {
    tree::BinnedMatrix m;
    m.rows = rows;
    m.cuts = cuts_of(bins);
    m.columns.reset(static_cast<std::size_t>(rows * features));
    Philox rng(1, "feature blocks test");
    for (std::int64_t f = 0; f < features; ++f) {
      for (std::int64_t r = 0; r < rows; ++r) {
        const bool rare = f >= 4 && !rng.bernoulli(0.02);
        m.columns[static_cast<std::size_t>(f * rows + r)] = static_cast<std::uint8_t>(
            f == 3 ? 2
            : rare
                ? 1
                : rng.integer(static_cast<std::uint64_t>(bins[static_cast<std::size_t>(f)]) + 1));
      }
    }
    build_blocks(m, {.fill = true, .bundle = false}, threads);
    const core::Buffer<std::uint8_t> columns = std::move(m.columns);
    m.columns = {};
    EXPECT_EQ(m.block_of[3], -1);
    for (std::int64_t f = 0; f < features; ++f)
      for (std::int64_t r = 0; r < rows; ++r)
        ASSERT_EQ(tree::code(m, r, static_cast<std::int32_t>(f)),
                  columns[static_cast<std::size_t>(f * rows + r)])
            << r << ", " << f;
  }
}

}  // namespace
}  // namespace quern::test::feature_blocks
