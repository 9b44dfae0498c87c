// SPDX-License-Identifier: Apache-2.0

/// \file
/// Owning arrays: copies, moves, views, resizing.

#include "quern/core/nd_array.hpp"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace quern::test::nd_array {
namespace {

Index rows_of(MatrixView<const float> m) { return m.rows(); }

template <class T>
class NdArrayOf : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(NdArrayOf, Scalars);

TYPED_TEST(NdArrayOf, StartsAsZerosRowMajor) {
  NdArray<TypeParam, 3> a({2, 3, 4});
  EXPECT_EQ(a.size(), 24);
  for (TypeParam x : a) EXPECT_EQ(x, TypeParam{0});
  a(1, 2, 3) = 5;
  EXPECT_EQ(a.data()[23], TypeParam{5});
  EXPECT_EQ(std::as_const(a)(1, 2, 3), TypeParam{5});
  EXPECT_EQ(a.view()(1, 2, 3), TypeParam{5});
}

TYPED_TEST(NdArrayOf, CopiesAnyView) {
  std::vector<TypeParam> values(60);
  for (std::size_t i = 0; i < 60; ++i) values[i] = static_cast<TypeParam>(i);
  const NdView<TypeParam, 3> v(values.data(), {3, 4, 5});
  const auto turned = v.permuted({2, 0, 1}).slice(0, 1, 3);
  const NdArray<TypeParam, 3> copy{NdView<const TypeParam, 3>(turned)};
  for (Index i = 0; i < 3; ++i) {
    for (Index j = 0; j < 3; ++j) {
      for (Index k = 0; k < 4; ++k) EXPECT_EQ(copy(i, j, k), turned(i, j, k));
    }
  }
  const NdArray<TypeParam, 3> plain{NdView<const TypeParam, 3>(v)};
  EXPECT_EQ(plain(2, 3, 4), TypeParam{59});
}

TEST(NdArray, ValueSemantics) {
  NdArray<float, 2> a({2, 2});
  a.fill(1);
  NdArray<float, 2> b = a;
  b(0, 0) = 9;
  EXPECT_EQ(a(0, 0), 1);
  const float* at = b.data();
  NdArray<float, 2> c = std::move(b);
  EXPECT_EQ(c.data(), at);
  EXPECT_EQ(b.size(), 0);  // NOLINT: moved-from is empty, and says so
  EXPECT_EQ(b.extent(0), 0);
  a = c;
  EXPECT_EQ(a(0, 0), 9);
  EXPECT_EQ(rows_of(a), 2);
  EXPECT_EQ(rows_of(view(std::as_const(a))), 2);
  view(a)(1, 1) = 4;
  EXPECT_EQ(a(1, 1), 4);
}

TEST(NdArray, ResizeAndBadShapes) {
  NdArray<double, 2> a({2, 2});
  a.fill(3);
  a.resize({3, 1});
  EXPECT_EQ(a.size(), 3);
  EXPECT_EQ(a(2, 0), 0);
  EXPECT_THROW(a.resize({-1, 1}), ShapeError);
  EXPECT_EQ(a.size(), 3);
  EXPECT_THROW((NdArray<double, 2>({Index{1} << 40, Index{1} << 40})), ShapeError);
  NdArray<double, 2> empty({0, 5});
  EXPECT_TRUE(empty.empty());
  EXPECT_EQ(empty.view().cols(), 5);
  const NdArray<double, 2> copy = empty;
  EXPECT_EQ(copy.extent(1), 5);
}

}  // namespace
}  // namespace quern::test::nd_array
