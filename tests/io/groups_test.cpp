// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sizes of groups become offsets of rows.

#include "quern/io/groups.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::groups {
namespace {

TEST(Groups, SizesAddUp) {
  EXPECT_EQ(io::parse_groups("3\n1\r\n\n5"), (std::vector<std::int64_t>{0, 3, 4, 9}));
  EXPECT_EQ(io::parse_groups(" 2 0\t7 "), (std::vector<std::int64_t>{0, 2, 2, 9}));
  EXPECT_THROW((void)io::read_groups("/nowhere/at/all"), IoError);
}

TEST(Groups, RefusesWhatIsNoSize) {
  for (const char* text :
       {"", "\n", "-1", "x", "1.5", "1,2", "99999999999999999999", "9223372036854775807 1"}) {
    EXPECT_THROW((void)io::parse_groups(text), ParseError) << text;
  }
  try {
    (void)io::parse_groups("1\n2 x", "a.query");
    FAIL();
  } catch (const ParseError& error) {
    EXPECT_NE(std::string(error.what()).find("a.query:2:3"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace quern::test::groups
