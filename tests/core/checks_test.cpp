// SPDX-License-Identifier: Apache-2.0

/// \file
/// Argument checks: what passes, what is thrown, how it reads.

#include "quern/core/checks.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::checks {
namespace {

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing thrown";
}

template <class T>
class ChecksOf : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ChecksOf, Scalars);

TYPED_TEST(ChecksOf, BitTests) {
  using Limits = std::numeric_limits<TypeParam>;
  for (TypeParam x : {TypeParam{0}, TypeParam{-1}, (Limits::max)(), Limits::denorm_min()}) {
    EXPECT_TRUE(is_finite_bits(x));
    EXPECT_FALSE(is_nan_bits(x));
    EXPECT_NO_THROW(expect_finite("f", "x", x));
  }
  for (TypeParam x : {Limits::infinity(), -Limits::infinity()}) {
    EXPECT_FALSE(is_finite_bits(x));
    EXPECT_FALSE(is_nan_bits(x));
    EXPECT_THROW(expect_finite("f", "x", x), ValueError);
  }
  EXPECT_TRUE(is_nan_bits(Limits::quiet_NaN()));
  EXPECT_TRUE(is_nan_bits(-Limits::quiet_NaN()));
  EXPECT_THROW(expect_finite("f", "x", Limits::quiet_NaN()), ValueError);
  EXPECT_THROW(expect_in_range("f", "x", Limits::quiet_NaN(), 0, 1), ValueError);
  EXPECT_NO_THROW(expect_in_range("f", "x", TypeParam{1}, 0, 1));
}

TEST(Checks, Ranges) {
  EXPECT_NO_THROW(expect_in_range("f", "n", 255, 2, 255));
  EXPECT_EQ(message_of([] { expect_in_range("quern::bin", "max_bin", 300, 2, 255); }),
            "quern::bin: max_bin: expected 2..255, got 300");
  EXPECT_EQ(message_of([] { expect_in_range<std::uint8_t>("f", "n", 7, 1, 5); }),
            "f: n: expected 1..5, got 7");
}

TEST(Checks, Shapes) {
  std::vector<float> values(12);
  const MatrixView<float> m(values.data(), {3, 4});
  EXPECT_NO_THROW(expect_shape("f", "m", m, {3, 4}));
  EXPECT_EQ(message_of([&] {
              expect_shape("f", "m", m, {4, 3});
            }),
            "f: m: expected 4 x 3, got 3 x 4");
  EXPECT_NO_THROW(expect_size("f", "y", 3, 3, "labels"));
  EXPECT_EQ(message_of([] { expect_size("f", "y", 2, 3, "labels, one a row"); }),
            "f: y: expected 3 labels, one a row, got 2");
  EXPECT_NO_THROW(expect_apart("f", "out", m.row(0), "in", m.row(1)));
  EXPECT_EQ(message_of([&] { expect_apart("f", "out", m.row(0), "in", m); }),
            "f: out: expected memory apart from the inputs, got overlap with in");
}

}  // namespace
}  // namespace quern::test::checks
