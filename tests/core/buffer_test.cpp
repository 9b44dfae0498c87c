// SPDX-License-Identifier: Apache-2.0

/// \file
/// Buffers: alignment, zeros, moves, sizes that cannot be.

#include "quern/core/buffer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

namespace quern::test::buffer {
namespace {

using core::Buffer;
using core::Fill;

static_assert(!std::is_copy_constructible_v<Buffer<int>>);
static_assert(std::is_nothrow_move_constructible_v<Buffer<int>>);

template <class T>
class BufferOf : public ::testing::Test {};
using Elements = ::testing::Types<std::uint8_t, float, double, std::int64_t>;
TYPED_TEST_SUITE(BufferOf, Elements);

TYPED_TEST(BufferOf, IsAlignedAtEverySize) {
  for (std::size_t n : {1U, 2U, 63U, 64U, 65U, 1000U, 100000U}) {
    Buffer<TypeParam> b(n);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.data()) % core::buffer_alignment, 0U);
    EXPECT_EQ(b.size(), n);
    EXPECT_EQ(b.bytes(), n * sizeof(TypeParam));
    std::fill(b.begin(), b.end(), TypeParam{3});
    EXPECT_EQ(b[n - 1], TypeParam{3});
  }
}

TYPED_TEST(BufferOf, ZeroedIsZeroAlsoAfterReuse) {
  for (int round = 0; round < 3; ++round) {
    for (std::size_t n : {1U, 100U, 300000U, 2000000U}) {
      Buffer<TypeParam> b(n, Fill::zero);
      EXPECT_TRUE(std::all_of(b.begin(), b.end(), [](TypeParam v) { return v == TypeParam{0}; }));
      std::fill(b.begin(), b.end(), TypeParam{9});
    }
  }
}

TEST(Buffer, EmptyHoldsNothing) {
  const Buffer<float> b;
  EXPECT_EQ(b.data(), nullptr);
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(Buffer<float>(0, Fill::zero).size(), 0U);
  EXPECT_TRUE(b.clone().empty());
}

TEST(Buffer, MovesAndClones) {
  Buffer<int> a(3);
  a[0] = 1;
  a[1] = 2;
  a[2] = 3;
  const int* at = a.data();
  Buffer<int> b = std::move(a);
  EXPECT_EQ(b.data(), at);
  EXPECT_EQ(a.size(), 0U);  // NOLINT: moved-from is empty, and says so
  Buffer<int> c = b.clone();
  EXPECT_NE(c.data(), b.data());
  EXPECT_TRUE(std::equal(c.begin(), c.end(), b.begin(), b.end()));
  b = std::move(c);
  EXPECT_EQ(b.span().back(), 3);
  Buffer<int>& same = b;
  b = std::move(same);
  EXPECT_EQ(b.size(), 3U);
}

TEST(Buffer, Reset) {
  Buffer<int> b(10, Fill::zero);
  b[0] = 5;
  b.reset(10);
  EXPECT_EQ(b.size(), 10U);
  b.reset(10, Fill::zero);
  EXPECT_EQ(b[0], 0);
  b.reset(0);
  EXPECT_TRUE(b.empty());
}

TEST(Buffer, RefusesSizesThatOverflow) {
  const std::size_t most = (std::numeric_limits<std::size_t>::max)();
  EXPECT_THROW(Buffer<double>{most}, std::bad_alloc);
  EXPECT_THROW(Buffer<double>{most / 8 + 1}, std::bad_alloc);
  EXPECT_THROW(Buffer<char>{most - 10}, std::bad_alloc);
  EXPECT_THROW((Buffer<char>{most / 2, Fill::zero}), std::bad_alloc);
  Buffer<double> b(4);
  EXPECT_THROW(b.reset(most), std::bad_alloc);
  EXPECT_TRUE(b.empty());
}

}  // namespace
}  // namespace quern::test::buffer
