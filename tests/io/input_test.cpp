// SPDX-License-Identifier: Apache-2.0

/// \file
/// Files and memory, plain and gzip: limits, bombs and damage.

#include "quern/io/input.hpp"

#include "quern/io/csv.hpp"

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace quern::test::io_input {
namespace {

std::string deflate_gzip(std::string_view text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, static_cast<uLong>(text.size())) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - stream.avail_out);
  deflateEnd(&stream);
  return out;
}

io::Input input_of(std::string_view bytes, const io::Limits& limits = {}) {
  return io::Input::memory(bytes, "t", limits, "f");
}

std::string refusal(std::string_view bytes, const io::Limits& limits = {}) {
  try {
    (void)input_of(bytes, limits);
  } catch (const ParseError& error) {
    return error.what();
  }
  return "nothing";
}

TEST(Input, PlacesCountFromOne) {
  const std::string_view text = "ab\ncd\n";
  EXPECT_EQ(io::place_of(text, 0).line, 1);
  EXPECT_EQ(io::place_of(text, 1).column, 2);
  EXPECT_EQ(io::place_of(text, 3).line, 2);
  EXPECT_EQ(io::place_of(text, 3).column, 1);
  EXPECT_EQ(io::place_of(text, 99).line, 3);
}

TEST(Input, InflatesOneAndSeveralMembers) {
  std::string text;
  for (int i = 0; i < 20000; ++i) text += std::to_string(i * 7919) + ",";
  EXPECT_EQ(input_of(deflate_gzip(text)).text(), text);
  EXPECT_EQ(input_of(deflate_gzip("ab") + deflate_gzip("") + deflate_gzip("cd")).text(), "abcd");
  EXPECT_EQ(input_of(deflate_gzip("ab") + std::string(512, '\0')).text(), "ab");
  EXPECT_EQ(input_of(deflate_gzip("")).text(), "");
}

TEST(Input, RefusesDamagedGzip) {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += std::to_string(i * 7919) + ",";
  const std::string good = deflate_gzip(text);
  for (std::size_t size = 2; size < good.size(); size += 37) {
    EXPECT_NE(refusal(good.substr(0, size)).find("cut short"), std::string::npos) << size;
  }
  EXPECT_NE(refusal(good.substr(0, good.size() - 1)).find("cut short"), std::string::npos);
  std::string flipped = good;
  flipped[good.size() / 2] = static_cast<char>(flipped[good.size() / 2] ^ 0x55);
  EXPECT_NE(refusal(flipped), "nothing");
  std::string sum = good;
  sum[good.size() - 6] = static_cast<char>(sum[good.size() - 6] ^ 1);
  EXPECT_NE(refusal(sum).find("damaged"), std::string::npos);
  EXPECT_NE(refusal(good + "tail").find("expected the end or another gzip member"),
            std::string::npos);
  EXPECT_NE(refusal("\x1f\x8b").find("cut short"), std::string::npos);
}

TEST(Input, RefusesBombs) {
  const std::string bomb = deflate_gzip(std::string(1 << 20, '0'));
  io::Limits limits;
  limits.max_bytes = 100000;
  EXPECT_NE(refusal(bomb, limits).find("inflates to more than 100000 bytes"), std::string::npos);
  limits.max_bytes = 1 << 20;
  EXPECT_EQ(input_of(bomb, limits).text().size(), std::size_t{1} << 20);
}

TEST(Input, LimitsOfInflation) {
  const io::Limits limits;
  constexpr std::size_t always = std::size_t{1} << 28;
  EXPECT_EQ(limits.inflated(1000), always);
  EXPECT_EQ(limits.inflated(always), always * 64);  // max_bytes, 16 GiB
  EXPECT_EQ(limits.inflated(std::size_t{1} << 23), (std::size_t{1} << 23) * 100);
  io::Limits none;
  none.max_bytes = -1;
  EXPECT_EQ(none.inflated(1000), 0U);
}

TEST(Input, RefusesLongMemoryAndFiles) {
  io::Limits limits;
  limits.max_bytes = 3;
  EXPECT_NE(refusal("abcd", limits).find("max_bytes = 3"), std::string::npos);
  EXPECT_EQ(input_of("abc", limits).text(), "abc");
  const std::string path = (std::filesystem::temp_directory_path() / "quern_input_test").string();
  const std::string_view text = "abcd";
  write_file_atomically(path, std::as_bytes(std::span(text)));
  EXPECT_THROW((void)io::Input::file(path, limits, "f"), ParseError);
  EXPECT_EQ(io::Input::file(path, {}, "f").text(), "abcd");
  std::filesystem::remove(path);
  EXPECT_THROW((void)io::Input::file(path, {}, "f"), IoError);
  EXPECT_THROW((void)io::Input::file(std::filesystem::temp_directory_path().string(), {}, "f"),
               IoError);
}

TEST(Input, ReadersTakeGzip) {
  const auto table = io::parse_csv<float>(deflate_gzip("a,b\n1,2\n"));
  EXPECT_EQ(table.features(0, 1), 2.0F);
}

TEST(Input, ShowsTextInMessages) {
  EXPECT_EQ(io::quote_text("a\nb"), "'a?b'");
  EXPECT_EQ(io::quote_text(std::string(50, 'x')), "'" + std::string(40, 'x') + "…'");
}

}  // namespace
}  // namespace quern::test::io_input
