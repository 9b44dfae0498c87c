// SPDX-License-Identifier: Apache-2.0

/// \file
/// IDX: all element types, conversions, and headers that lie.

#include "quern/io/idx.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::io_idx {
namespace {

using io::parse_idx;
using namespace std::string_literals;

void append(std::string& bytes, std::uint64_t bits, std::size_t size) {
  for (std::size_t i = size; i-- > 0;) bytes += static_cast<char>(bits >> (8 * i) & 255U);
}

template <class T>
std::string idx(int code, const std::vector<std::uint32_t>& shape, const std::vector<T>& values) {
  std::string bytes{'\0', '\0', static_cast<char>(code), static_cast<char>(shape.size())};
  for (std::uint32_t extent : shape) append(bytes, extent, 4);
  for (T value : values) {
    append(bytes, std::bit_cast<io::detail::UnsignedOf<sizeof(T)>>(value), sizeof(T));
  }
  return bytes;
}

void expect_refused(const std::string& bytes, std::string_view why,
                    const io::IdxOptions& options = {}) {
  std::string message = "nothing";
  try {
    (void)parse_idx<std::uint8_t, 2>(bytes, options, "t.idx");
  } catch (const ParseError& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("t.idx: byte "), std::string::npos) << message;
  EXPECT_NE(message.find(why), std::string::npos) << message;
}

template <class T>
class IdxTest : public ::testing::Test {};
using Elements =
    ::testing::Types<std::uint8_t, std::int8_t, std::int16_t, std::int32_t, float, double>;
TYPED_TEST_SUITE(IdxTest, Elements);

template <class T>
int code_of() {
  if constexpr (std::is_same_v<T, std::uint8_t>) return 0x08;
  if constexpr (std::is_same_v<T, std::int8_t>) return 0x09;
  if constexpr (std::is_same_v<T, std::int16_t>) return 0x0B;
  if constexpr (std::is_same_v<T, std::int32_t>) return 0x0C;
  if constexpr (std::is_same_v<T, float>) return 0x0D;
  return 0x0E;
}

TYPED_TEST(IdxTest, ReadsAndConvertsAllTypes) {
  using T = TypeParam;
  const std::vector<T> values{0, 1, 2, 3, 100, 127};
  const std::string bytes = idx<T>(code_of<T>(), {2, 3}, values);
  io::IdxOptions exact;
  exact.exact_type = true;
  const auto same = parse_idx<T, 2>(bytes, exact);
  ASSERT_EQ(same.extents(), (Shape<2>{2, 3}));
  EXPECT_EQ(std::vector<T>(same.begin(), same.end()), values);
  const auto wide = parse_idx<double, 2>(bytes);
  const auto bytes_of = parse_idx<std::uint8_t, 2>(bytes);
  const auto any = parse_idx<float>(bytes);
  EXPECT_EQ(any.shape, (std::vector<Index>{2, 3}));
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(wide.data()[i], static_cast<double>(values[i]));
    EXPECT_EQ(bytes_of.data()[i], static_cast<std::uint8_t>(values[i]));
    EXPECT_EQ(any.values[i], static_cast<float>(values[i]));
  }
}

TEST(Idx, NegativeAndFractionalValues) {
  const auto shorts = parse_idx<int, 1>(idx<std::int16_t>(0x0B, {2}, {-2, 300}));
  EXPECT_EQ(shorts(0), -2);
  EXPECT_EQ(shorts(1), 300);
  EXPECT_THROW((void)(parse_idx<std::uint8_t, 1>(idx<std::int16_t>(0x0B, {1}, {-2}))), ParseError);
  EXPECT_THROW((void)(parse_idx<std::uint8_t, 1>(idx<std::int16_t>(0x0B, {1}, {256}))), ParseError);
  EXPECT_THROW((void)(parse_idx<int, 1>(idx<float>(0x0D, {1}, {0.5F}))), ParseError);
  EXPECT_THROW((void)(parse_idx<int, 1>(idx<double>(0x0E, {1}, {2147483648.0}))), ParseError);
  EXPECT_EQ((parse_idx<int, 1>(idx<double>(0x0E, {1}, {-2147483648.0}))(0)), -2147483647 - 1);
  EXPECT_THROW((void)(parse_idx<float, 1>(idx<double>(0x0E, {1}, {1e39}))), ParseError);
  EXPECT_EQ((parse_idx<float, 1>(idx<double>(0x0E, {1}, {0.1}))(0)), 0.1F);
}

TEST(Idx, RanksAndEmptyArrays) {
  EXPECT_EQ((parse_idx<int, 4>(idx<std::uint8_t>(8, {1, 1, 1, 2}, {5, 6}))(0, 0, 0, 1)), 6);
  EXPECT_EQ(parse_idx<int>(idx<std::uint8_t>(8, {0, 7}, {})).shape, (std::vector<Index>{0, 7}));
}

TEST(Idx, RefusesHeadersThatLie) {
  const std::string good = idx<std::uint8_t>(8, {2, 2}, {1, 2, 3, 4});
  for (std::size_t size = 0; size < good.size(); ++size) {
    expect_refused(good.substr(0, size), "");
  }
  expect_refused(good.substr(0, 15), "cut short: 2 x 2 elements of type uint8");
  expect_refused(good + "x", "bytes behind the last element");
  expect_refused("\x01" + good.substr(1), "two zero bytes");
  expect_refused("\0\0\x0A"s + good.substr(3), "an IDX element type");
  expect_refused("\0\0\x08\x05"s + good.substr(4), "1 to 4 dimensions, got 5");
  expect_refused("\0\0\x08\0"s + good.substr(4), "1 to 4 dimensions, got 0");
  expect_refused(idx<std::uint8_t>(8, {4}, {1, 2, 3, 4}), "expected 2 dimensions, got 4");
  expect_refused(idx<std::uint8_t>(8, {0xffffffff, 0xffffffff}, {1}), "cut short");
  expect_refused(idx<double>(0x0E, {0xffffffff, 0xffffffff, 0xffffffff, 0}, {}), "");
  io::IdxOptions exact;
  exact.exact_type = true;
  expect_refused(idx<float>(0x0D, {1, 1}, {1}), "expected elements of type uint8, got float32",
                 exact);
}

}  // namespace
}  // namespace quern::test::io_idx
