// SPDX-License-Identifier: Apache-2.0

/// \file
/// Views: shapes, strides, overlap.

#include "quern/core/nd_view.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

namespace quern::test::nd_view {
namespace {

constexpr Index huge = (std::numeric_limits<Index>::max)();

static_assert(std::is_trivially_copyable_v<NdView<float, 4>>);
static_assert(std::is_convertible_v<NdView<float, 2>, MatrixView<const float>>);
static_assert(!std::is_convertible_v<MatrixView<const float>, MatrixView<float>>);
static_assert(!std::is_convertible_v<MatrixView<float>, MatrixView<const double>>);

std::vector<int> counted(int n) {
  std::vector<int> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

TEST(NdView, ContiguousIsRowMajor) {
  std::vector<int> values = counted(24);
  const NdView<int, 3> v(values.data(), {2, 3, 4});
  EXPECT_EQ(v.size(), 24);
  EXPECT_EQ(v.extent(1), 3);
  EXPECT_EQ(v.stride(0), 12);
  EXPECT_EQ(v(1, 2, 3), 23);
  EXPECT_EQ(v(std::size_t{1}, 0, 2U), 14);
  EXPECT_TRUE(v.is_contiguous());
  EXPECT_TRUE(v.last_stride_is_one());
  v(0, 0, 0) = 7;
  EXPECT_EQ(values[0], 7);
}

TEST(NdView, NullAndEmpty) {
  const NdView<float, 2> null;
  EXPECT_TRUE(null.is_null());
  EXPECT_FALSE(null);
  EXPECT_EQ(null.size(), 0);
  const NdView<float, 3> empty(nullptr, {3, 0, huge});
  EXPECT_EQ(empty.size(), 0);
  EXPECT_TRUE(empty.is_contiguous());
  float x = 0;
  EXPECT_TRUE((NdView<float, 1>(&x, {1})));
}

TEST(NdView, RefusesImpossibleShapes) {
  float x = 0;
  EXPECT_THROW((NdView<float, 2>(&x, {-1, 2})), ShapeError);
  EXPECT_THROW((NdView<float, 2>(&x, {-1, 0})), ShapeError);
  EXPECT_THROW((NdView<float, 2>(&x, {huge, 2})), ShapeError);
  EXPECT_THROW((NdView<float, 2>(&x, {huge / 4 + 1, 1})), ShapeError);
  EXPECT_THROW((NdView<float, 2>(nullptr, {1, 1})), ShapeError);
  EXPECT_THROW((NdView<float, 2>(&x, {2, 2}, {huge, 1})), ShapeError);
  EXPECT_THROW((NdView<float, 2>(&x, {4, 4}, {huge / 16, -huge / 16})), ShapeError);
  EXPECT_THROW((NdView<float, 1>(&x, {2}, {(std::numeric_limits<Index>::min)()})), ShapeError);
  try {
    NdView<float, 2>(&x, {-1, 2});
    FAIL();
  } catch (const ShapeError& error) {
    EXPECT_STREQ(error.what(), "quern::NdView: extents: expected non-negative extents, got -1 x 2");
  }
}

TEST(NdView, SignedAndZeroStrides) {
  std::vector<int> values = counted(6);
  const NdView<int, 1> backwards(values.data() + 5, {6}, {-1});
  EXPECT_EQ(backwards(0), 5);
  EXPECT_EQ(backwards(5), 0);
  EXPECT_FALSE(backwards.is_contiguous());
  const NdView<int, 2> broadcast(values.data(), {1000, 3}, {0, 1});
  EXPECT_EQ(broadcast(999, 2), 2);
  EXPECT_TRUE(broadcast.last_stride_is_one());
  const NdView<int, 2> one_row(values.data(), {1, 6}, {99, 1});
  EXPECT_TRUE(one_row.is_contiguous());
}

TEST(NdView, SlicesAndSubviews) {
  std::vector<int> values = counted(24);
  const NdView<int, 3> v(values.data(), {2, 3, 4});
  EXPECT_EQ(v.subview(1)(2, 3), v(1, 2, 3));
  EXPECT_EQ(v.subview(2, 1)(1, 3), v(1, 2, 3));
  EXPECT_EQ(v.slice(2, 1, 2)(1, 2, 1), v(1, 2, 2));
  EXPECT_EQ(v.slice(1, 3, 0).size(), 0);
  EXPECT_EQ(v.permuted({2, 0, 1})(3, 1, 2), v(1, 2, 3));
  EXPECT_THROW((void)v.slice(1, 2, 2), ShapeError);
  EXPECT_THROW((void)v.slice(1, huge, huge), ShapeError);
  EXPECT_THROW((void)v.slice(3, 0, 1), ShapeError);
  EXPECT_THROW((void)v.subview(2), ShapeError);
  EXPECT_THROW((void)v.permuted({0, 0, 1}), ShapeError);
  const MatrixView<int> m = v.subview(0);
  EXPECT_EQ(m.rows(), 3);
  EXPECT_EQ(m.cols(), 4);
  EXPECT_EQ(m.row_stride(), 4);
  EXPECT_EQ(m.col_stride(), 1);
  EXPECT_EQ(m.transposed()(3, 1), m(1, 3));
  EXPECT_EQ(m.row(2)(1), m(2, 1));
  EXPECT_EQ(m.col(1)(2), m(2, 1));
  EXPECT_EQ(m.block(1, 2, 2, 2)(1, 1), m(2, 3));
  EXPECT_EQ(m.row_data(2), &m(2, 0));
}

TEST(NdView, DeductionGuides) {
  std::vector<int> values = counted(6);
  const NdView v(values.data(), Shape<2>{2, 3});
  static_assert(std::is_same_v<decltype(v), const NdView<int, 2>>);
  EXPECT_EQ(v(1, 2), 5);
}

TEST(NdView, StandardContainers) {
  std::vector<int> values = counted(4);
  const std::vector<int>& reading = values;
  EXPECT_EQ(quern::view(values)(2), 2);
  static_assert(std::is_same_v<decltype(quern::view(reading)), NdView<const int, 1>>);
  EXPECT_EQ(quern::view(quern::view(reading)).data(), values.data());
  EXPECT_EQ(quern::view(std::vector<int>{}).size(), 0);
}

TEST(NdView, OverlapByAddress) {
  std::vector<int> values = counted(40);
  const NdView<int, 1> all(values.data(), {40});
  EXPECT_TRUE(overlaps(all, all));
  EXPECT_FALSE(overlaps(all.slice(0, 0, 20), all.slice(0, 20, 20)));
  EXPECT_TRUE(overlaps(all.slice(0, 0, 21), all.slice(0, 20, 20)));
  EXPECT_FALSE(overlaps(all.slice(0, 3, 0), all));
  const NdView<int, 1> backwards(values.data() + 39, {20}, {-1});
  EXPECT_FALSE(overlaps(backwards, all.slice(0, 0, 20)));
  EXPECT_TRUE(overlaps(backwards, all.slice(0, 0, 21)));
  // Column blocks of one matrix interleave without meeting.
  const MatrixView<int> m(values.data(), {4, 10});
  EXPECT_FALSE(overlaps(m.block(0, 0, 4, 5), m.block(0, 5, 4, 5)));
  EXPECT_FALSE(overlaps(m.block(1, 5, 3, 5), m.block(0, 0, 4, 5)));
  EXPECT_TRUE(overlaps(m.block(0, 0, 4, 6), m.block(0, 5, 4, 5)));
  EXPECT_TRUE(overlaps(m.block(2, 4, 2, 2), m.block(0, 0, 4, 5)));
  EXPECT_FALSE(overlaps(m.col(3), m.col(4)));
  EXPECT_TRUE(overlaps(m.col(3), m.block(0, 0, 4, 4)));
  EXPECT_FALSE(overlaps(m.transposed().block(0, 0, 5, 4), m.block(0, 5, 4, 5)));
}

/// Against the definition: do any two elements share an address?
TEST(NdView, OverlapIsNeverMissedAndSeldomInvented) {
  std::vector<char> values(64, 0);
  const MatrixView<char> m(values.data(), {8, 8});
  int invented = 0;
  for (Index r = 0; r < 6; ++r) {
    for (Index c = 0; c < 6; ++c) {
      const auto a = m.block(r, c, 2, 2);
      const auto b = m.block(2, 2, 3, 3);
      const bool truly = r + 2 > 2 && r < 5 && c + 2 > 2 && c < 5;
      const bool said = overlaps(a, b);
      EXPECT_TRUE(said || !truly) << r << ' ' << c;
      invented += said && !truly;
    }
  }
  EXPECT_EQ(invented, 0);
}

}  // namespace
}  // namespace quern::test::nd_view
