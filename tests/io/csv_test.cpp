// SPDX-License-Identifier: Apache-2.0

/// \file
/// CSV: what is read, what is guessed, what is refused and where.

#include "quern/io/csv.hpp"

#include "quern/core/checks.hpp"
#include "quern/core/file.hpp"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::io_csv {
namespace {

using io::CsvHeader;
using io::CsvOptions;
using io::parse_csv;
using Texts = std::vector<std::string>;

template <class T>
class CsvTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(CsvTest, Scalars);

/// The features in row-major order with −99 for missing.
template <class T>
std::vector<double> cells(const io::Table<T>& table) {
  std::vector<double> all;
  for (T x : table.features) all.push_back(is_nan_bits(x) ? -99.0 : static_cast<double>(x));
  return all;
}

/// The message that the text is refused with.
std::string refusal(std::string_view text, const CsvOptions& options = {}) {
  try {
    const auto table = parse_csv<float>(text, options, "t.csv");
    return "read " + std::to_string(table.rows()) + " rows";
  } catch (const ParseError& error) {
    return error.what();
  } catch (const ValueError& error) {
    return std::string("value: ") + error.what();
  }
}

void expect_refused(std::string_view text, std::string_view place, std::string_view why,
                    const CsvOptions& options = {}) {
  const std::string message = refusal(text, options);
  EXPECT_NE(message.find("t.csv" + std::string(place)), std::string::npos) << message;
  EXPECT_NE(message.find(why), std::string::npos) << message;
}

TYPED_TEST(CsvTest, ReadsNumbersBelowAHeader) {
  const auto t = parse_csv<TypeParam>("x,y,z\n1,2.5,-3e2\n4,.5,6\n", {.label = "y"});
  EXPECT_EQ(cells(t), (std::vector<double>{1, -300, 4, 6}));
  EXPECT_EQ(t.labels, (std::vector<TypeParam>{TypeParam(2.5), TypeParam(0.5)}));
  EXPECT_EQ(t.schema.feature_names, (Texts{"x", "z"}));
  EXPECT_EQ(t.schema.label_name, "y");
  EXPECT_TRUE(t.weights.empty());
}

TYPED_TEST(CsvTest, LabelFirstWeightLastNoHeaderTabs) {
  const CsvOptions options{.label = 0, .weight = -1};
  const auto t = parse_csv<TypeParam>("1\t0.5\t\t2\r\n0\t1.5\t7\t3\r\n", options);
  EXPECT_EQ(cells(t), (std::vector<double>{0.5, -99, 1.5, 7}));
  EXPECT_EQ(t.labels, (std::vector<TypeParam>{1, 0}));
  EXPECT_EQ(t.weights, (std::vector<TypeParam>{2, 3}));
  EXPECT_TRUE(t.schema.feature_names.empty());
  EXPECT_TRUE(t.schema.label_name.empty());
}

TYPED_TEST(CsvTest, MixedColumnsAndTextLabels) {
  constexpr std::string_view text =
      "39, State-gov, 13, <=50K\n50, ?, 9, >50K\n28, Private, ?, <=50K\n\n31, Private, 7, <=50K\n";
  const auto t = parse_csv<TypeParam>(text, {.label = -1});
  EXPECT_EQ(cells(t), (std::vector<double>{39, 1, 13, 50, -99, 9, 28, 0, -99, 31, 0, 7}));
  EXPECT_EQ(t.schema.categories[1], (Texts{"Private", "State-gov"}));
  EXPECT_TRUE(t.schema.categories[0].empty());
  EXPECT_EQ(t.schema.feature_kinds[1], tree::FeatureKind::categorical);
  EXPECT_EQ(t.schema.feature_kinds[2], tree::FeatureKind::numeric);
  EXPECT_EQ(t.schema.label_categories, (Texts{"<=50K", ">50K"}));
  EXPECT_EQ(t.labels, (std::vector<TypeParam>{0, 1, 0, 0}));
}

TYPED_TEST(CsvTest, AColumnThatTurnsOutToBeTextLate) {
  // "01" and "1" are one number and two categories; the rows before the text are read again.
  const auto t = parse_csv<TypeParam>("01,a\n1,b\n,a\nx1,b\n01,c\n", {});
  EXPECT_EQ(t.schema.categories[0], (Texts{"01", "1", "x1"}));
  EXPECT_EQ(cells(t), (std::vector<double>{0, 0, 1, 1, -99, 0, 2, 1, 0, 2}));
}

TYPED_TEST(CsvTest, QuotesNewlinesAndDelimitersInside) {
  constexpr std::string_view text =
      "name,\"the \"\"x\"\"\"\r\n\"a,\nb\",1\r\n \"c\"\"d\" , \"2.5\"\r\nplain \"5\" ,3";
  const auto t = parse_csv<TypeParam>(text);
  EXPECT_EQ(t.schema.feature_names, (Texts{"name", "the \"x\""}));
  EXPECT_EQ(t.schema.categories[0], (Texts{"a,\nb", "c\"d", "plain \"5\""}));
  EXPECT_EQ(cells(t), (std::vector<double>{0, 1, 1, 2.5, 2, 3}));
}

TYPED_TEST(CsvTest, MissingTokens) {
  const auto t = parse_csv<TypeParam>("1,2\n,NA\n nan , ?\n\"\",NULL\nN/A,\"NaN\"\n");
  EXPECT_EQ(cells(t), (std::vector<double>{1, 2, -99, -99, -99, -99, -99, -99, -99, -99}));
  CsvOptions own;
  own.missing = {"-"};
  own.header = CsvHeader::absent;
  const auto u = parse_csv<TypeParam>("1,-\n-,NA\n", own);
  EXPECT_EQ(u.schema.categories[1], (Texts{"NA"}));
  EXPECT_EQ(cells(u), (std::vector<double>{1, -99, -99, 0}));
}

TYPED_TEST(CsvTest, BlanksAsDelimiter) {
  EXPECT_EQ(parse_csv<TypeParam>(" 1  2.5 3 \n4 5   6\n").cols(), 3);
  CsvOptions blanks;
  blanks.delimiter = ' ';
  const auto t = parse_csv<TypeParam>("  1  2.5\t3 \r\n4 5   6\n \n7 8 9   ", blanks);
  EXPECT_EQ(cells(t), (std::vector<double>{1, 2.5, 3, 4, 5, 6, 7, 8, 9}));
}

TYPED_TEST(CsvTest, GuessesDelimiters) {
  EXPECT_EQ(parse_csv<TypeParam>("1;2;3\n4;5;6\n").cols(), 3);
  EXPECT_EQ(parse_csv<TypeParam>("\"a;b\",2\n\"c;;d\",5\n").cols(), 2);
  EXPECT_EQ(parse_csv<TypeParam>("1\n2\n3\n").cols(), 1);
  EXPECT_EQ(parse_csv<TypeParam>("a,b c,d;e\n1,2,3\n").cols(), 3);
  CsvOptions bar;
  bar.delimiter = '|';
  EXPECT_EQ(parse_csv<TypeParam>("1|2\n3|4", bar).cols(), 2);
}

TYPED_TEST(CsvTest, GuessesHeaders) {
  const auto names = [](std::string_view text, CsvHeader header = CsvHeader::automatic) {
    CsvOptions options;
    options.header = header;
    return parse_csv<TypeParam>(text, options).schema.feature_names;
  };
  EXPECT_EQ(names("a,b\n1,2\n"), (Texts{"a", "b"}));
  EXPECT_EQ(names("a,b\n"), (Texts{"a", "b"}));
  EXPECT_EQ(names(",b\n1,x\n"), (Texts{"unnamed_1", "b"}));
  EXPECT_EQ(names("a,b\nc,d\n"), Texts{});  // all text: data, unless told otherwise
  EXPECT_EQ(names("a,a\n1,2\n"), Texts{});  // names differ
  EXPECT_EQ(names("a,1\nb,2\n"), Texts{});
  EXPECT_EQ(names("0,1\n5,2\n", CsvHeader::present), (Texts{"0", "1"}));
  EXPECT_EQ(names("a,b\nc,d\n", CsvHeader::present), (Texts{"a", "b"}));
  EXPECT_EQ(names("a,b\n1,2\n", CsvHeader::absent), Texts{});
}

TYPED_TEST(CsvTest, HeaderOnlyIsATableWithoutRows) {
  const auto t = parse_csv<TypeParam>("a,b\n", {.label = "b"});
  EXPECT_EQ(t.rows(), 0);
  EXPECT_EQ(t.cols(), 1);
  EXPECT_TRUE(t.labels.empty());
}

TYPED_TEST(CsvTest, ByteOrderMarkAndNoNewlineAtTheEnd) {
  const auto t = parse_csv<TypeParam>(
      "\xef\xbb\xbf"
      "a,b\n1,2");
  EXPECT_EQ(t.schema.feature_names[0], "a");
  EXPECT_EQ(cells(t), (std::vector<double>{1, 2}));
}

TYPED_TEST(CsvTest, ForcedKindsAndIgnoredColumns) {
  CsvOptions options;
  options.ignore = {"id", -1};
  options.categorical = {"zip"};
  options.numeric = {"x"};
  const auto t = parse_csv<TypeParam>("id,zip,x,note\nr1,10,1,\"a\"\nr2,9,NA,b\n", options);
  EXPECT_EQ(t.schema.feature_names, (Texts{"zip", "x"}));
  EXPECT_EQ(t.schema.categories[0], (Texts{"10", "9"}));
  EXPECT_EQ(cells(t), (std::vector<double>{0, 1, 1, -99}));
}

TYPED_TEST(CsvTest, SchemaKeepsTheCodes) {
  const auto train =
      parse_csv<TypeParam>("c,n,y\nred,1,no\nblue,2,yes\ngreen,3,no\n", {.label = "y"});
  CsvOptions options;
  options.schema = &train.schema;
  // Another order, another column, no label, a new colour.
  const auto t = parse_csv<TypeParam>("n,extra,c\n7,q,red\n8,w,pink\n9,e,green\n", options);
  EXPECT_EQ(cells(t), (std::vector<double>{2, 7, -99, 8, 1, 9}));
  EXPECT_EQ(t.unseen_categories, 1);
  EXPECT_TRUE(t.labels.empty());
  EXPECT_EQ(t.schema.categories, train.schema.categories);
  // The label is found by its name.
  EXPECT_EQ(parse_csv<TypeParam>("y,c,n\nyes,red,1\n", options).labels,
            (std::vector<TypeParam>{1}));
  // Numbers that all look alike do not make a category numeric.
  EXPECT_EQ(cells(parse_csv<TypeParam>("c,n\n5,1\n", options)), (std::vector<double>{-99, 1}));
}

TYPED_TEST(CsvTest, SchemaWithoutNamesGoesByPosition) {
  const auto train = parse_csv<TypeParam>("1,a,5\n0,b,6\n", {.label = 0});
  CsvOptions options{.label = 0};
  options.schema = &train.schema;
  EXPECT_EQ(parse_csv<TypeParam>("1,b,5\n", options).labels.size(), 1U);
  const auto t = parse_csv<TypeParam>("b,5\na,6\n", options);
  EXPECT_TRUE(t.labels.empty());
  EXPECT_EQ(cells(t), (std::vector<double>{1, 5, 0, 6}));
}

TYPED_TEST(CsvTest, MakesADataset) {
  const auto t = parse_csv<TypeParam>("a,b,y\n1,u,0\n2,v,1\n", {.label = "y"});
  const tree::Dataset data = io::dataset(t);
  EXPECT_EQ(data.rows(), 2);
  EXPECT_EQ(data.cols(), 2);
  EXPECT_EQ(data.labels, (std::vector<float>{0, 1}));
  EXPECT_EQ(data.categories[1], (Texts{"u", "v"}));
}

TEST(Csv, RefusesRaggedRows) {
  expect_refused("1,2,3\n4,5\n", ":2:4:", "expected 3 fields as in the first record, got 2");
  expect_refused("1,2\n3,4,5\n", ":2:4:", "got more");
  expect_refused("1,2\n\n3,4\n\"a\nb\"\n", ":5:3:", "got 1");
}

TEST(Csv, RefusesBrokenQuotes) {
  expect_refused("a,b\n1,\"x\n2,3\n", ":2:3:", "never closed");
  expect_refused("1,\"2\"x\n", ":1:6:", "after the closing quote");
}

TEST(Csv, RefusesTextWhereNumbersMustBe) {
  CsvOptions numeric;
  numeric.numeric = {1};
  expect_refused("1,2\n3,x\n", ":2:3:", "expected a number in column 2, got 'x'", numeric);
  CsvOptions weight;
  weight.weight = "w";
  expect_refused("x,w\n3,heavy\n", ":2:3:", "expected a number in column 2 ('w')", weight);
  expect_refused("x,y\n3,1\n4,\n", ":3:3:", "the label is missing", {.label = "y"});
}

TEST(Csv, NumbersTooLargeAreRefusedUnlessTheyAreText) {
  expect_refused("1,2\n3,1e400\n", ":2:3:", "too large");
  expect_refused("1,2\n3,1e39\n", ":2:3:", "too large");
  const auto t = parse_csv<double>("1,2\n3,1e39\n");
  EXPECT_EQ(t.features(1, 1), 1e39);
  EXPECT_EQ(parse_csv<float>("12e400,1\nabc,2\n").schema.categories[0], (Texts{"12e400", "abc"}));
  EXPECT_EQ(parse_csv<float>("1e-60,1\n").features(0, 0), 0.0F);
}

TEST(Csv, RefusesEndlessCategories) {
  CsvOptions options;
  options.max_categories = 2;
  options.header = CsvHeader::absent;
  expect_refused("a\nb\na\nc\n", ":4:1:", "column 1 is neither numeric nor a category", options);
}

TEST(Csv, RefusesEmptyAndForeignText) {
  expect_refused("", ":1:1:", "at least one record");
  expect_refused("\n \r\n\n", ":1:1:", "at least one record");
  expect_refused(
      "\xff\xfe"
      "a",
      ":1:1:", "UTF-16");
  expect_refused("a,b,a\n1,2,3\n", "", "same name 'a'", {.header = CsvHeader::present});
}

TEST(Csv, RefusesOptionsThatDoNotFit) {
  expect_refused("a,b\n1,2\n", "", "label: expected a name in the header, got 'c'", {.label = "c"});
  expect_refused("1,2\n", "", "an index, since the file has no header", {.label = "c"});
  expect_refused("1,2\n", "", "a column of the 2 in the file, got 2", {.label = 2});
  expect_refused("1,2\n", "", "without another role", {.label = 0, .weight = -2});
  EXPECT_NE(refusal("1,2\n", {.delimiter = '"'}).find("delimiter"), std::string::npos);
  CsvOptions narrow;
  narrow.max_columns = 2;
  expect_refused("1,2,3\n", "", "max_columns = 2", narrow);
}

TEST(Csv, RefusesWhatDiffersFromTheSchema) {
  const auto named = parse_csv<float>("a,b,y\n1,u,p\n2,v,q\n", {.label = "y"});
  CsvOptions options;
  options.schema = &named.schema;
  expect_refused("a,c\n1,2\n", "", "lacks feature 'b'", options);
  expect_refused("1,2,3,4\n", "", "expected 2 features as in the schema, got 4", options);
  expect_refused("a,b\nx,u\n", ":2:1:", "expected a number", options);
  expect_refused("a,b,y\n1,u,r\n", ":2:5:", "'r' is none of the schema's classes", options);
}

TEST(Csv, MemoryStaysInProportion) {
  // One long line and many short ones would make a table of 10^10 cells if both were believed.
  std::string text(100000, ',');
  text += '\n';
  for (int i = 0; i < 100000; ++i) text += "1\n";
  expect_refused(text, ":2:2:", "expected 100001 fields", {.delimiter = ','});
}

TEST(Csv, ReadsFiles) {
  const std::string path = (std::filesystem::temp_directory_path() / "quern_csv_test.csv").string();
  const std::string_view text = "a,b\n1,2\n";
  write_file_atomically(path, std::as_bytes(std::span(text)));
  EXPECT_EQ(cells(io::read_csv<float>(path)), (std::vector<double>{1, 2}));
  std::filesystem::remove(path);
  EXPECT_THROW((void)io::read_csv<float>(path), IoError);
}

TEST(Csv, ColumnsOfACommandLine) {
  EXPECT_EQ(io::Column::parse("-1").index, -1);
  EXPECT_EQ(io::Column::parse("12").index, 12);
  EXPECT_EQ(io::Column::parse("f12").name, "f12");
  EXPECT_FALSE(io::Column::parse("f12").index.has_value());
}

}  // namespace
}  // namespace quern::test::io_csv
