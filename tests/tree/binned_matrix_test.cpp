// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/binned_matrix.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace quern::test::binned_matrix {
namespace {

template <class T>
core::Buffer<T> buffer(const std::vector<T>& values) {
  core::Buffer<T> result(values.size());
  std::copy(values.begin(), values.end(), result.begin());
  return result;
}

/// Three rows: feature 0 constant with code 1, feature 1 dense, features 2 and 3 sparse.
tree::BinnedMatrix small() {
  tree::BinnedMatrix m;
  m.rows = 3;
  m.cuts.offsets = {0, 0, 2, 3, 5};
  m.cuts.values = {0.5, 1.5, 7, -1, 1};
  m.cuts.has_missing = {0, 0, 1, 1};
  m.block_of = {-1, 0, 1, 1};
  m.place_in_block = {0, 0, 0, 1};
  m.constant_codes = {1, 0, 0, 0};
  m.blocks.resize(2);
  m.blocks[0].features = {1};
  m.blocks[0].cell_offsets = {0, 4};
  m.blocks[0].stride = 8;
  m.blocks[0].codes = core::Buffer<std::uint8_t>(24, core::Fill::zero);
  m.blocks[0].codes[0] = 3;
  m.blocks[0].codes[8] = 1;
  m.blocks[0].codes[16] = 2;
  m.blocks[1].layout = tree::BlockLayout::sparse;
  m.blocks[1].features = {2, 3};
  m.blocks[1].cell_offsets = {0, 3, 7};
  m.blocks[1].default_codes = {0, 2};
  m.blocks[1].row_offsets = buffer<std::int64_t>({0, 2, 2, 3});
  m.blocks[1].entries = buffer<std::uint16_t>({2, 3 + 3, 3 + 0});
  return m;
}

TEST(BinnedMatrixTest, CutsKnowTheirBins) {
  const tree::BinnedMatrix m = small();
  EXPECT_EQ(m.features(), 4);
  EXPECT_EQ(m.cuts.bins(0), 1);
  EXPECT_EQ(m.cuts.bins(1), 3);
  EXPECT_EQ(m.cuts.cut(1, 2), 1.5);
  EXPECT_EQ(m.cuts.cut(3, 1), -1);
  EXPECT_EQ(tree::Cuts().features(), 0);
}

TEST(BinnedMatrixTest, CodeReadsEveryLayout) {
  tree::BinnedMatrix m = small();
  const std::vector<std::vector<int>> expected = {{1, 1, 1}, {3, 1, 2}, {2, 0, 0}, {3, 2, 0}};
  for (std::int32_t f = 0; f < 4; ++f)
    for (std::int64_t r = 0; r < 3; ++r)
      EXPECT_EQ(tree::code(m, r, f),
                expected[static_cast<std::size_t>(f)][static_cast<std::size_t>(r)])
          << r << ", " << f;
  EXPECT_EQ(m.column(1), nullptr);
  m.columns = buffer<std::uint8_t>({9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2});
  EXPECT_EQ(tree::code(m, 1, 2), 2);
  EXPECT_EQ(m.column(1)[2], 4);
}

}  // namespace
}  // namespace quern::test::binned_matrix
