// SPDX-License-Identifier: Apache-2.0

/// \file
/// LIBSVM text: what is read, how columns are counted, what is refused and where.

#include "quern/io/libsvm.hpp"

#include "quern/core/checks.hpp"
#include "quern/core/file.hpp"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::io_libsvm {
namespace {

using io::IndexBase;
using io::LibsvmOptions;
using io::parse_libsvm;
using Offsets = std::vector<std::int64_t>;
using Columns = std::vector<std::int32_t>;

template <class T>
class LibsvmTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(LibsvmTest, Scalars);

void expect_refused(std::string_view text, std::string_view place, std::string_view why,
                    const LibsvmOptions& options = {}) {
  std::string message = "nothing";
  try {
    (void)parse_libsvm<float>(text, options, "t.svm");
  } catch (const ParseError& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("t.svm" + std::string(place)), std::string::npos) << message;
  EXPECT_NE(message.find(why), std::string::npos) << message;
}

TYPED_TEST(LibsvmTest, ReadsRows) {
  const auto t = parse_libsvm<TypeParam>(
      "# made by hand\n+1 1:0.5 3:-2e3 # a note\r\n-1\n\n  2.5   2:1 \t 4:7");
  EXPECT_EQ(t.labels, (std::vector<TypeParam>{1, -1, TypeParam(2.5)}));
  EXPECT_EQ(t.row_offsets, (Offsets{0, 2, 2, 4}));
  EXPECT_EQ(t.columns, (Columns{0, 2, 1, 3}));
  EXPECT_EQ(t.values, (std::vector<TypeParam>{TypeParam(0.5), -2000, 1, 7}));
  EXPECT_EQ(t.cols, 4);
  EXPECT_EQ(t.index_base, 1);
  EXPECT_EQ(t.rows(), 3);
  EXPECT_TRUE(t.weights.empty());
  EXPECT_TRUE(t.group_offsets.empty());
}

TYPED_TEST(LibsvmTest, CountsFromZeroWhereAZeroIsSeen) {
  const auto t = parse_libsvm<TypeParam>("1 2:1\n0 0:3 5:4\n");
  EXPECT_EQ(t.columns, (Columns{2, 0, 5}));
  EXPECT_EQ(t.cols, 6);
  EXPECT_EQ(t.index_base, 0);
  const auto zero = parse_libsvm<TypeParam>("1 1:1\n", {.index_base = IndexBase::zero});
  EXPECT_EQ(zero.columns, Columns{1});
  EXPECT_EQ(zero.cols, 2);
}

TYPED_TEST(LibsvmTest, ColumnsOfTheTrainingData) {
  LibsvmOptions options;
  options.cols = 10;
  EXPECT_EQ(parse_libsvm<TypeParam>("1 2:1\n", options).cols, 10);
  EXPECT_EQ(parse_libsvm<TypeParam>("1\n0\n", options).cols, 10);
  EXPECT_EQ(parse_libsvm<TypeParam>("1\n0\n").cols, 0);
}

TYPED_TEST(LibsvmTest, WeightsAndGroups) {
  const auto t = parse_libsvm<TypeParam>("1 qid:7 1:1\n0:2.5 qid:7 1:2\n1 qid:3 1:3\n");
  EXPECT_EQ(t.weights, (std::vector<TypeParam>{1, TypeParam(2.5), 1}));
  EXPECT_EQ(t.group_offsets, (Offsets{0, 2, 3}));
}

TYPED_TEST(LibsvmTest, MissingAndInfiniteValues) {
  const auto t = parse_libsvm<TypeParam>("1 1:nan 2:NaN 3:inf\n");
  EXPECT_TRUE(is_nan_bits(t.values[0]));
  EXPECT_TRUE(is_nan_bits(t.values[1]));
  EXPECT_FALSE(is_finite_bits(t.values[2]));
}

TYPED_TEST(LibsvmTest, MakesADataset) {
  const auto t = parse_libsvm<TypeParam>("1:2 qid:1 1:1\n0:3 qid:2 2:1\n");
  const tree::Dataset data = io::dataset(t);
  EXPECT_EQ(data.rows(), 2);
  EXPECT_EQ(data.cols(), 2);
  EXPECT_EQ(data.weights, (std::vector<float>{2, 3}));
  EXPECT_EQ(data.group_offsets, (Offsets{0, 1, 2}));
}

TEST(Libsvm, RefusesMalformedRows) {
  expect_refused("1 1:1\nx 1:1\n", ":2:1:", "a number for the label, got 'x'");
  expect_refused("1 1\n", ":1:3:", "expected index:value, got '1'");
  expect_refused("1 a:1\n", ":1:3:", "expected index:value, got 'a:1'");
  expect_refused("1 -1:1\n", ":1:3:", "expected index:value");
  expect_refused("1 1:\n", ":1:5:", "a number for the value, got ''");
  expect_refused("1 1:2x\n", ":1:5:", "got '2x'");
  expect_refused("1 1:1e400\n", ":1:5:", "too large");
  expect_refused("1 2147483647:1\n", ":1:3:", "up to 2147483646");
  expect_refused("1 99999999999999999999:1\n", ":1:3:", "up to 2147483646");
  expect_refused("nan 1:1\n", ":1:1:", "a number for the label");
  expect_refused("1:-2 1:1\n", ":1:3:", "a weight of at least 0");
  expect_refused("1: 1:1\n", ":1:3:", "a number for the weight");
  expect_refused("", ":1:1:", "at least one row");
}

TEST(Libsvm, RefusesIndicesOutOfOrder) {
  expect_refused("1 1:1\n1 3:1 2:1\n", ":2:7:", "ascending indices, got 2 after 3");
  expect_refused("1 2:1 2:1\n", ":1:7:", "got 2 after 2");
  expect_refused("1 0:1\n", ":1:3:", "index 0", {.index_base = IndexBase::one});
  expect_refused("1 1:1\n1 2:1 9:1\n", ":2:7:", "index 9 is past the table's 4 columns",
                 {.cols = 4});
}

TEST(Libsvm, RefusesBrokenGroups) {
  expect_refused("1 qid:1 1:1\n1 1:1\n", ":2:3:", "expected qid:");
  expect_refused("1 1:1\n1 qid:1 1:1\n", ":2:3:", "the rows before have none");
  expect_refused("1 qid:1\n1 qid:2\n1 qid:1\n", ":3:7:", "do not follow each other");
  expect_refused("1 qid:-1\n", ":1:7:", "a whole number for qid");
}

TEST(Libsvm, RefusesBadOptions) {
  EXPECT_THROW((void)parse_libsvm<float>("1\n", {.cols = -1}), ValueError);
}

TEST(Libsvm, ReadsFiles) {
  const std::string path =
      (std::filesystem::temp_directory_path() / "quern_libsvm_test.svm").string();
  const std::string_view text = "1 1:5\n";
  write_file_atomically(path, std::as_bytes(std::span(text)));
  EXPECT_EQ(io::read_libsvm<float>(path).values, std::vector<float>{5});
  std::filesystem::remove(path);
  EXPECT_THROW((void)io::read_libsvm<float>(path), IoError);
}

}  // namespace
}  // namespace quern::test::io_libsvm
