// SPDX-License-Identifier: Apache-2.0

/// \file
/// YOLO's text files: what is read, what is refused and where.

#include "quern/io/yolo.hpp"

#include <string>

#include <gtest/gtest.h>

namespace quern::test::yolo {
namespace {

TEST(YoloTest, ReadsObjects) {
  const auto truths =
      io::parse_yolo("0 0.5 0.5 0.2 0.4\n\n15 .25 0.5 0.5 1\r\n", {.width = 100, .height = 50});
  ASSERT_EQ(truths.size(), 2u);
  EXPECT_DOUBLE_EQ(truths[0].box.x, 40);
  EXPECT_DOUBLE_EQ(truths[0].box.y, 15);
  EXPECT_DOUBLE_EQ(truths[0].box.w, 20);
  EXPECT_DOUBLE_EQ(truths[0].box.h, 20);
  EXPECT_EQ(truths[1].category, 15);
  EXPECT_EQ(truths[1].score, 1);
  const auto found = io::parse_yolo("3 0.5 0.5 0.2 0.4 0.75", {.scores = true});
  EXPECT_EQ(found[0].score, 0.75);
  EXPECT_TRUE(io::parse_yolo("").empty());
}

std::string refusal(const std::string& text, const io::YoloOptions& options = {}) {
  try {
    (void)io::parse_yolo(text, options, "y.txt");
  } catch (const ParseError& error) {
    return error.what();
  }
  return "nothing";
}

TEST(YoloTest, RefusesWithThePlace) {
  const auto expect = [](const std::string& text, const std::string& why,
                         const io::YoloOptions& options = {}) {
    const std::string message = refusal(text, options);
    EXPECT_NE(message.find(why), std::string::npos) << message;
  };
  expect("0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2", "y.txt:2:14: expected 5 numbers a line, got 4");
  expect("0 0.5 0.5 0.2 0.4 0.9", "y.txt:1:19: expected 5 numbers a line, got more");
  expect("0 0.5 0.5 0.2 0.4", "expected 6 numbers", {.scores = true});
  expect("0.5 0.5 0.5 0.2 0.4", "expected a class number");
  expect("0 120 0.5 0.2 0.4", "y.txt:1:3: expected a share");
  expect("0 0.5 0.5 -0.0005 0.4", "a negative size");
  expect("0 0.5 0.5 nan 0.4", "expected a number, got 'nan'");
  EXPECT_THROW((void)io::parse_yolo("", {.width = 0}), ValueError);
}

}  // namespace
}  // namespace quern::test::yolo
