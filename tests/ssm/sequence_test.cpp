// SPDX-License-Identifier: Apache-2.0

/// \file
/// Packed sequences, unit strides, and where something is not finite.

#include "quern/ssm/sequence.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::ssm_sequence {
namespace {

using ssm::detail::Sequences;

TEST(SsmSequence, BatchesAndOffsets) {
  const Sequences batch("f", {}, 3, 7);
  EXPECT_EQ(batch.size(), 3);
  EXPECT_EQ(batch[2].batch, 2);
  EXPECT_EQ(batch[2].length, 7);
  const std::vector<std::int64_t> offsets = {0, 2, 2, 9};
  const Sequences packed("f", offsets, 1, 9);
  EXPECT_EQ(packed.size(), 3);
  EXPECT_EQ(packed[1].length, 0);
  EXPECT_EQ(packed[2].begin, 2);
  EXPECT_EQ(packed.longest(), 7);
}

TEST(SsmSequence, BadOffsets) {
  const std::vector<std::int64_t> shorter = {0, 5}, down = {0, 7, 5, 9}, late = {1, 9},
                                  good = {0, 9};
  EXPECT_THROW(Sequences("f", shorter, 1, 9), ShapeError);
  EXPECT_THROW(Sequences("f", down, 1, 9), ShapeError);
  EXPECT_THROW(Sequences("f", late, 1, 9), ShapeError);
  EXPECT_THROW(Sequences("f", good, 2, 9), ShapeError);
}

TEST(SsmSequence, FindsWhatIsNotFinite) {
  NdArray<float, 3> x({2, 3, 4});
  ssm::detail::expect_finite_values("f", "x", x.view());
  x(1, 2, 3) = std::numeric_limits<float>::infinity();
  try {
    ssm::detail::expect_finite_values("f", "x", x.view());
    FAIL();
  } catch (const ValueError& error) {
    EXPECT_STREQ(error.what(), "f: x: expected finite numbers, got NaN or infinity at (1, 2, 3)");
  }
}

TEST(SsmSequence, UnitStridesCopyOnlyWhenNeeded) {
  NdArray<double, 2> x({3, 4});
  for (Index i = 0; i < 12; ++i) x.data()[i] = static_cast<double>(i);
  const NdView<const double, 2> rows = x.view(), turned = rows.transposed();
  EXPECT_EQ((ssm::detail::UnitStride<const double, 2>(rows).view().data()), x.data());
  const ssm::detail::UnitStride<const double, 2> copy(turned);
  EXPECT_EQ(copy.view()(3, 2), x(2, 3));
  EXPECT_EQ(copy.view().stride(1), 1);
}

}  // namespace
}  // namespace quern::test::ssm_sequence
