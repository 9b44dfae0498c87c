// SPDX-License-Identifier: Apache-2.0

#include "quern/io/safetensors.hpp"

#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace quern::test::io_safetensors {
namespace {

using namespace quern::io;

std::vector<std::byte> file(const std::string& header, std::size_t data,
                            std::uint64_t length_more = 0) {
  std::vector<std::byte> out(8 + header.size() + data);
  const std::uint64_t length = header.size() + length_more;
  std::memcpy(out.data(), &length, 8);
  std::memcpy(out.data() + 8, header.data(), header.size());
  return out;
}
std::string error_of(const std::vector<std::byte>& bytes) {
  try {
    (void)Safetensors::from_bytes(bytes, "f");
  } catch (const ParseError& e) {
    return e.what();
  }
  return "none";
}
std::string entry(const std::string& shape, const std::string& offsets,
                  const std::string& type = "F32") {
  return "{\"a\":{\"dtype\":\"" + type + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
         offsets + "]}}";
}

TEST(Safetensors, RoundTripOfEveryType) {
  SafetensorsWriter writer;
  const std::vector<float> f = {1, -0.0F, 3e38F};
  const std::vector<double> d = {1e300};
  const std::vector<std::int64_t> i = {-5, 7};
  const std::vector<std::uint8_t> u = {1, 2, 255};
  const std::vector<BFloat16> b = {BFloat16(1.5F)};
  writer.set_metadata("why", "quotes \" \\ and \n lines");
  writer.add("bytes", view(u));
  writer.add("w \"x\"", NdView<const float, 2>(f.data(), {1, 3}));
  writer.add("d", view(d));
  writer.add("i", view(i));
  writer.add("b", view(b));
  writer.add("none", NdView<const float, 2>(nullptr, {0, 5}));
  writer.add("one", SafetensorType::f32, {}, std::as_bytes(std::span(f).first(1)));
  EXPECT_THROW(writer.add("d", view(d)), ValueError);
  EXPECT_THROW(writer.add("__metadata__", view(d)), ValueError);
  EXPECT_THROW(writer.add("short", SafetensorType::f32, {4}, std::as_bytes(std::span(f))),
               ShapeError);

  const Safetensors back = Safetensors::from_bytes(writer.bytes());
  EXPECT_EQ(back.tensors().size(), 7U);
  EXPECT_EQ(back.metadata().at("why"), "quotes \" \\ and \n lines");
  EXPECT_EQ(back.values<std::uint8_t>("bytes"), u);
  EXPECT_EQ(back.values<std::int64_t>("i"), i);
  EXPECT_EQ(back.values<double>("d"), d);
  EXPECT_EQ(back.values<BFloat16>("b")[0], b[0]);
  EXPECT_EQ(back.tensor("none").shape, (std::vector<Index>{0, 5}));
  EXPECT_TRUE(back.tensor("one").shape.empty());
  NdArray<float, 2> w({1, 3});
  back.copy_to("w \"x\"", w.view());
  EXPECT_EQ(std::memcmp(w.data(), f.data(), 12), 0);
  NdArray<float, 2> turned({3, 1});
  EXPECT_THROW(back.copy_to("w \"x\"", turned.view()), ParseError);
  EXPECT_THROW((void)back.values<float>("d"), ParseError);
  EXPECT_THROW((void)back.tensor("absent"), ParseError);
  EXPECT_FALSE(back.has("absent"));
}

/// What PyTorch's package wrote (tests/reference/io/make_safetensors.py).
TEST(Safetensors, ReadsTheReference) {
  const Safetensors back =
      Safetensors::read(std::string(QUERN_TEST_REFERENCE_DIR) + "/io/torch.safetensors");
  EXPECT_EQ(back.metadata().at("format"), "pt");
  EXPECT_EQ(back.tensor("weight").shape, (std::vector<Index>{2, 3}));
  EXPECT_EQ(back.values<float>("weight"), (std::vector<float>{0, 0.5F, 1, 1.5F, 2, 2.5F}));
  EXPECT_EQ(static_cast<float>(back.values<BFloat16>("half")[1]), -2.5F);
  EXPECT_EQ(back.values<std::int64_t>("count"), std::vector<std::int64_t>{42});
  EXPECT_EQ(back.tensor("flags").type, SafetensorType::boolean);
}

TEST(Safetensors, HostileFilesAreRefusedWithThePlace) {
  EXPECT_EQ(
      error_of({}),
      "quern::io::Safetensors::from_bytes: f: byte 0: cut short: expected the header's length");
  EXPECT_EQ(error_of(file("{}", 0)), "none");
  EXPECT_NE(error_of(file("{}", 0, 1)).find("byte 10: cut short in the header"), std::string::npos);
  EXPECT_NE(error_of(file("{}", 0, ~std::uint64_t{7})).find("up to 100000000"), std::string::npos);
  EXPECT_NE(error_of(file("[]", 0)).find("expected '{'"), std::string::npos);
  EXPECT_NE(error_of(file("{}", 4)).find("4 bytes behind the last tensor"), std::string::npos);
  EXPECT_EQ(error_of(file(entry("2", "0,8"), 8)), "none");
  EXPECT_NE(error_of(file(entry("2", "0,8"), 7)).find("outside of the 7 bytes"), std::string::npos);
  EXPECT_NE(error_of(file(entry("2", "8,0"), 8)).find("outside"), std::string::npos);
  EXPECT_NE(error_of(file(entry("3", "0,8"), 8)).find("do not make 8 bytes"), std::string::npos);
  EXPECT_NE(error_of(file(entry("-2", "0,8"), 8)).find("at least 0"), std::string::npos);
  EXPECT_NE(error_of(file(entry("1.5", "0,8"), 8)).find("integer"), std::string::npos);
  EXPECT_NE(error_of(file(entry("2", "0,8", "F31"), 8)).find("'F31'"), std::string::npos);
  EXPECT_NE(error_of(file(entry("2", "0,8,8"), 8)).find("two offsets"), std::string::npos);
  EXPECT_NE(error_of(file(entry("2", "4,12"), 12)).find("byte 0 is next"), std::string::npos);
  EXPECT_NE(error_of(file(entry("4294967296,4294967296,4", "0,0"), 0)).find("do not make"),
            std::string::npos);
  EXPECT_NE(error_of(file(entry("2", "0,8") + "x", 8)).find("f: header:1:"), std::string::npos);
  const std::string two = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},";
  EXPECT_NE(
      error_of(file(two + "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2))
          .find("'a' twice"),
      std::string::npos);
  EXPECT_NE(
      error_of(file(two + "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1))
          .find("is next"),
      std::string::npos);
  EXPECT_NE(
      error_of(file(two + "\"b\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1)).find("expected 'dtype'"),
      std::string::npos);
  EXPECT_NE(error_of(file("{\"__metadata__\":{\"a\":1}}", 0)).find("a string"), std::string::npos);
}

}  // namespace
}  // namespace quern::test::io_safetensors
