// SPDX-License-Identifier: Apache-2.0

/// \file
/// Errors: the family and the wording.

#include "quern/core/error.hpp"

#include <gtest/gtest.h>

#include <stdexcept>
#include <type_traits>

namespace quern::test::error {
namespace {

static_assert(std::is_base_of_v<std::runtime_error, Error>);
static_assert(std::is_base_of_v<Error, ShapeError>);
static_assert(std::is_base_of_v<Error, ValueError>);
static_assert(std::is_base_of_v<Error, ParseError>);
static_assert(std::is_base_of_v<Error, IoError>);
static_assert(std::is_base_of_v<Error, Cancelled>);

TEST(Error, NamesFunctionArgumentExpectedAndGot) {
  EXPECT_EQ(error_text("quern::tree::bin", "max_bin", "2..255", 300),
            "quern::tree::bin: max_bin: expected 2..255, got 300");
}

}  // namespace
}  // namespace quern::test::error
