// SPDX-License-Identifier: Apache-2.0

/// \file
/// NPY: files that NumPy wrote (tests/reference/io/make_npy.py), files written here, and headers
/// that lie.

#include "quern/io/npy.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::io_npy {
namespace {

using io::parse_npy;
using namespace std::string_literals;

std::string reference(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/io/" + name + ".npy";
}

std::string npy(const std::string& dictionary, const std::string& data) {
  const std::string head = dictionary + "\n";
  return "\x93NUMPY\x01\x00"s + static_cast<char>(head.size() & 255U) +
         static_cast<char>(head.size() >> 8) + head + data;
}

void expect_refused(const std::string& bytes, std::string_view why,
                    const io::NpyOptions& options = {}) {
  std::string message = "nothing";
  try {
    (void)parse_npy<float, 1>(bytes, options, "t.npy");
  } catch (const ParseError& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("t.npy: byte "), std::string::npos) << message << " for " << bytes;
  EXPECT_NE(message.find(why), std::string::npos) << message << " for " << bytes;
}

template <class T>
class NpyTest : public ::testing::Test {};
using Elements = ::testing::Types<float, double, std::int8_t, std::int64_t>;
TYPED_TEST_SUITE(NpyTest, Elements);

TYPED_TEST(NpyTest, ReadsWhatNumPyWrites) {
  for (const char* name : {"i1", "le_i2", "be_i4", "le_i8", "le_f4", "be_f8", "le_f2", "fortran",
                           "version2", "version3"}) {
    SCOPED_TRACE(name);
    const auto a = io::read_npy<TypeParam, 2>(reference(name));
    ASSERT_EQ(a.extents(), (Shape<2>{2, 3}));
    for (int i = 0; i < 6; ++i) EXPECT_EQ(a.data()[i], static_cast<TypeParam>(i - 2));
  }
}

TYPED_TEST(NpyTest, RoundTrips) {
  const std::string path = (std::filesystem::temp_directory_path() / "quern_npy_test.npy").string();
  NdArray<TypeParam, 3> a({2, 3, 4});
  for (Index i = 0; i < a.size(); ++i) a.data()[i] = static_cast<TypeParam>(i);
  io::write_npy(path, a);
  io::NpyOptions exact;
  exact.exact_type = true;
  const auto b = io::read_npy<TypeParam, 3>(path, exact);
  ASSERT_EQ(b.extents(), a.extents());
  EXPECT_EQ(std::vector<TypeParam>(b.begin(), b.end()), std::vector<TypeParam>(a.begin(), a.end()));
  // A view with other strides is written as what it shows.
  io::write_npy(path, a.view().subview(1, 0).transposed());
  const auto c = io::read_npy<TypeParam, 2>(path);
  ASSERT_EQ(c.extents(), (Shape<2>{4, 3}));
  EXPECT_EQ(c(3, 1), a(1, 1, 3));
  std::filesystem::remove(path);
}

TEST(Npy, FortranOrderOfHigherRank) {
  const auto a = io::read_npy<int, 3>(reference("cube_fortran"));
  for (int i = 0; i < 24; ++i) EXPECT_EQ(a.data()[i], i);
}

TEST(Npy, BoolsScalarsAndEmptyArrays) {
  const auto b = io::read_npy<bool, 1>(reference("bool"));
  EXPECT_TRUE(b(0) && !b(1) && b(2));
  const auto scalar = io::read_npy<double>(reference("scalar"));
  EXPECT_TRUE(scalar.shape.empty());
  EXPECT_EQ(scalar.values[0], 2.5);
  EXPECT_EQ((io::read_npy<float, 2>(reference("empty")).extents()), (Shape<2>{0, 5}));
  EXPECT_THROW((void)(io::read_npy<float, 1>(reference("structured"))), ParseError);
  EXPECT_THROW((void)(io::read_npy<float, 1>(reference("there is none"))), IoError);
}

TEST(Npy, HalfPrecision) {
  const auto halves = [](std::string_view bits) {
    return parse_npy<float>(
               npy("{'descr': '<f2', 'fortran_order': False, 'shape': (1,)}", std::string(bits)))
        .values[0];
  };
  EXPECT_EQ(halves("\x01\x00"s), 0x1p-24F);
  EXPECT_EQ(halves("\xff\x03"s), 1023 * 0x1p-24F);
  EXPECT_EQ(halves("\x00\x04"s), 0x1p-14F);
  EXPECT_EQ(halves("\xff\x7b"s), 65504.0F);
  EXPECT_EQ(halves("\x00\xc0"s), -2.0F);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(halves("\x00\xfc"s)), 0xff800000U);
}

TEST(Npy, WritesTheBytesOfNumPy) {
  const auto a = io::read_npy<float, 2>(reference("le_f4"));
  const auto bytes = io::npy_bytes(a.view());
  EXPECT_TRUE(bytes == read_file(reference("le_f4")));
  const auto b = io::read_npy<bool, 1>(reference("bool"));
  EXPECT_TRUE(io::npy_bytes(b.view()) == read_file(reference("bool")));
}

TEST(Npy, HeadersInOtherSpellings) {
  const std::string data(8, '\0');
  EXPECT_EQ(
      (parse_npy<float, 1>(npy("{ \"shape\":(2,),'fortran_order' : True,'descr':'=f4'}  ", data)))
          .extent(0),
      2);
  EXPECT_EQ(
      (parse_npy<float, 2>(npy("{'shape': (1, 2), 'fortran_order': False, 'descr': 'f4'}", data)))
          .extent(1),
      2);
}

TEST(Npy, RefusesBrokenFiles) {
  const std::string good =
      npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", std::string(8, 'x'));
  ASSERT_NO_THROW((void)(parse_npy<float, 1>(good)));
  for (std::size_t size = 0; size < good.size(); ++size) expect_refused(good.substr(0, size), "");
  expect_refused(good + "x", "bytes behind the last element");
  expect_refused("\x94" + good.substr(1), "an NPY file");
  std::string version = good;
  version[6] = 4;
  expect_refused(version, "version 1.0, 2.0 or 3.0");
  expect_refused("\x93NUMPY\x02\x00\xff\xff\xff\xff{}"s, "up to 10000 bytes");
  io::NpyOptions exact;
  exact.exact_type = true;
  expect_refused(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", "12345678"),
                 "expected elements of type float32, got float64", exact);
}

TEST(Npy, RefusesHeadersThatLie) {
  const auto with = [](const std::string& type, const std::string& order,
                       const std::string& shape) {
    return npy("{'descr': " + type + ", 'fortran_order': " + order + ", 'shape': " + shape + "}",
               "12345678");
  };
  expect_refused(with("'<f4'", "False", "(3,)"), "cut short: 3 elements of type float32");
  expect_refused(with("'<f4'", "False", "(-1,)"), "an extent");
  expect_refused(with("'<f4'", "False", "(99999999999999999999,)"), "an extent");
  expect_refused(with("'<f4'", "False", "(2)"), "a tuple");
  expect_refused(with("'<f4'", "False", "(2 2)"), "',' or ')'");
  expect_refused(with("'<f4'", "False", "(,)"), "an extent");
  expect_refused(with("'<f4'", "False", "((2,),)"), "an extent");
  expect_refused(with("'<f4'", "False", "(2, 1)"), "expected 1 dimensions, got 2 x 1");
  expect_refused(with("'<f4'", "False", "(4611686018427387904, 4611686018427387904, 0)"), "");
  expect_refused(with("'<f4'", "Maybe", "(2,)"), "True or False");
  expect_refused(with("'<c8'", "False", "(1,)"), "an element type");
  expect_refused(with("'|O'", "False", "(1,)"), "an element type");
  expect_refused(with("[('a', '<f4')]", "False", "(1,)"), "structured");
  expect_refused(with("'<f4", "False", "(2,)"), "");
  expect_refused(npy("{'descr': '<f4', 'shape': (2,)}", "12345678"), "the keys");
  expect_refused(npy("{'descr': '<f4', 'descr': '<f4'}", ""), "each key once");
  expect_refused(npy("{'descr': '<f4', 'size': 3}", ""), "got 'size'");
  expect_refused(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", "12345678"),
                 "spaces up to the end");
  std::string many = "(";
  for (int i = 0; i < 65; ++i) many += "1,";
  expect_refused(with("'<f4'", "False", many + ")"), "more than 64 dimensions");
  expect_refused(npy(std::string(5000, '{'), ""), "");
}

}  // namespace
}  // namespace quern::test::io_npy
