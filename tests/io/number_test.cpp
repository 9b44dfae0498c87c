// SPDX-License-Identifier: Apache-2.0

/// \file
/// Numbers in text: exactly rounded, and the same as std::from_chars wherever both read.

#include "quern/io/number.hpp"

#include "quern/core/checks.hpp"
#include "quern/core/random.hpp"

#include <bit>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace quern::test::io_number {
namespace {

template <class T>
class NumberTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(NumberTest, Scalars);

template <class T>
auto bits(T x) {
  if constexpr (sizeof(T) == 4) {
    return std::bit_cast<std::uint32_t>(x);
  } else {
    return std::bit_cast<std::uint64_t>(x);
  }
}

template <class T>
void expect_as_from_chars(const std::string& text) {
  T wanted{};
  const auto read = std::from_chars(text.data(), text.data() + text.size(), wanted);
  ASSERT_EQ(read.ec, std::errc()) << text;
  const io::Number<T> got = io::parse_number<T>(text.data(), text.data() + text.size());
  ASSERT_EQ(got.status, io::NumberStatus::ok) << text;
  ASSERT_EQ(got.end, text.data() + text.size()) << text;
  ASSERT_EQ(bits(got.value), bits(wanted)) << text;
}

TYPED_TEST(NumberTest, RoundsAsFromChars) {
  Philox rng(7, "io number", 0);
  char text[64];
  for (int i = 0; i < 20000; ++i) {
    const double x = (rng.uniform() - 0.5) * (i % 3 == 0 ? 1e-6 : i % 3 == 1 ? 1.0 : 1e9);
    for (const char* format : {"%.3f", "%.6g", "%.9g", "%.17g", "%.18e"}) {
      std::snprintf(text, sizeof(text), format, x);
      expect_as_from_chars<TypeParam>(text);
    }
  }
}

TYPED_TEST(NumberTest, RoundsHardCases) {
  // Half way between floats, between doubles, at the edges of the fast path, and past 19 digits.
  for (const char* text : {"1.00000005960464477539",
                           "1.000000059604644775390625",
                           "1.0000000596046448",
                           "16777217",
                           "16777219",
                           "9007199254740993",
                           "9007199254740992",
                           "9007199254740991e22",
                           "9007199254740991e-22",
                           "1e22",
                           "1e23",
                           "0.1",
                           "123456789012345678901234567890",
                           "0.000000000000000000000000000001",
                           "1.17549435e-38",
                           "7e-45",
                           "00000000000000000000001",
                           "5.",
                           ".5",
                           "0",
                           "-0.0",
                           "-12.5e+3",
                           "3E-2"}) {
    expect_as_from_chars<TypeParam>(text);
  }
}

TYPED_TEST(NumberTest, EdgesOfTheRange) {
  using Limits = std::numeric_limits<TypeParam>;
  const auto read = [](std::string_view text) { return io::parse_whole_number<TypeParam>(text); };
  EXPECT_EQ(read("1e400").status, io::NumberStatus::too_large);
  EXPECT_EQ(read("-1e400").status, io::NumberStatus::too_large);
  EXPECT_EQ(read("1e99999999999999999999").status, io::NumberStatus::too_large);
  EXPECT_EQ(read("1" + std::string(400, '0')).status, io::NumberStatus::too_large);
  for (const std::string text :
       {"1e-400", "0.0000001e-99999999999999999999", "0e99999999999999999999", "-1e-400"}) {
    EXPECT_EQ(read(text).status, io::NumberStatus::ok) << text;
    EXPECT_EQ(read(text).value, TypeParam(0)) << text;
  }
  EXPECT_EQ(read("0." + std::string(400, '0') + "1").value, TypeParam(0));
  EXPECT_EQ(bits(read("Infinity").value), bits((Limits::infinity)()));
  EXPECT_EQ(bits(read("-inf").value), bits(-(Limits::infinity)()));
  EXPECT_EQ(read("+7").value, TypeParam(7));
}

TYPED_TEST(NumberTest, WhatIsNoNumber) {
  for (const char* text : {"", "-", "+", ".", "e5", "-.e1", "abc", "nan", "0x10", "1,5", "1 ",
                           "--1", "1e", "1e+", "1.2.3", "1_000", "infinit", "in"}) {
    EXPECT_EQ(io::parse_whole_number<TypeParam>(text).status, io::NumberStatus::not_a_number)
        << text;
  }
}

TYPED_TEST(NumberTest, StopsBehindTheNumber) {
  const std::string_view text = "12e,";
  const auto number = io::parse_number<TypeParam>(text.data(), text.data() + text.size());
  EXPECT_EQ(number.value, TypeParam(12));
  EXPECT_EQ(number.end, text.data() + 2);
}

}  // namespace
}  // namespace quern::test::io_number
