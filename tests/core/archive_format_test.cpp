// SPDX-License-Identifier: Apache-2.0

#include "quern/core/detail/archive_format.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

namespace quern::test::archive_format {
namespace {

TEST(ArchiveFormat, TypeBytesNameFamilyAndSize) {
  EXPECT_EQ(detail::archive_type<std::uint8_t>(), 0x11);
  EXPECT_EQ(detail::archive_type<std::int64_t>(), 0x28);
  EXPECT_EQ(detail::archive_type<float>(), 0x34);
  EXPECT_EQ(detail::archive_type_name(0x28), "signed integers of 64 bits");
  EXPECT_EQ(detail::archive_type_name(detail::archive_text), "texts");
  EXPECT_EQ(detail::archive_type_name(0x98), "an unknown type");
}

TEST(ArchiveFormat, NumbersAreLittleEndianBytes) {
  const std::vector<std::byte> bytes = {std::byte{0x01}, std::byte{0x02}, std::byte{0x03},
                                        std::byte{0x04}};
  EXPECT_EQ(detail::read_little_endian<std::uint32_t>(bytes.data()), 0x04030201u);
}

TEST(ArchiveFormat, EveryFlippedBitAndEveryLengthHasASumOfItsOwn) {
  std::set<std::uint64_t> sums;
  std::vector<std::byte> bytes(75, std::byte{7});
  sums.insert(detail::archive_checksum(bytes));
  for (std::byte& b : bytes) {
    for (int bit = 0; bit < 8; ++bit) {
      b ^= std::byte{1} << bit;
      EXPECT_TRUE(sums.insert(detail::archive_checksum(bytes)).second);
      b ^= std::byte{1} << bit;
    }
  }
  for (std::size_t n = 0; n < 40; ++n)
    EXPECT_TRUE(sums.insert(detail::archive_checksum(std::vector<std::byte>(n))).second) << n;
}

}  // namespace
}  // namespace quern::test::archive_format
