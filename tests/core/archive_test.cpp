// SPDX-License-Identifier: Apache-2.0

/// \file
/// The archive: round trips, a golden file, and every kind of damage.

#include "quern/core/archive.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quern::test::archive {
namespace {

using Bytes = std::vector<std::byte>;

ArchiveWriter small_archive() {
  ArchiveWriter out("gbtree", 3);
  out.scalar("rate", 0.25);
  out.scalar<std::uint8_t>("flag", 1);
  out.array("left", std::vector<std::int32_t>{-1, 2, 3});
  out.array("empty", std::vector<float>{});
  out.text("objective", "squared error");
  out.texts("names", std::vector<std::string>{"age", "", "größe"});
  return out;
}

/// Reads everything there is, as a learner would.
void read_all(const ArchiveReader& in) {
  in.expect("gbtree", 3);
  (void)in.scalar<double>("rate");
  (void)in.scalar<std::uint8_t>("flag");
  (void)in.array<std::int32_t>("left");
  (void)in.array<float>("empty");
  (void)in.text("objective");
  (void)in.texts("names");
}

/// True when reading throws ParseError that names a byte; any other exception escapes.
bool refused(const Bytes& bytes) {
  try {
    read_all(ArchiveReader(bytes));
  } catch (const ParseError& error) {
    return std::string_view(error.what()).find(": byte ") != std::string_view::npos;
  }
  return false;
}

/// Makes the frame right again, so that damage inside reaches the section parser.
void repair(Bytes& bytes) {
  if (bytes.size() < 24) return;
  const std::uint64_t size = detail::little_endian(std::uint64_t{bytes.size()});
  std::memcpy(bytes.data() + 8, &size, 8);
  const std::uint64_t sum =
      detail::little_endian(detail::archive_checksum(std::span(bytes).first(bytes.size() - 8)));
  std::memcpy(bytes.data() + bytes.size() - 8, &sum, 8);
}

TEST(Archive, RoundTrip) {
  const ArchiveReader in(small_archive().bytes());
  EXPECT_EQ(in.kind(), "gbtree");
  EXPECT_EQ(in.version(), 3U);
  EXPECT_EQ(in.scalar<double>("rate"), 0.25);
  EXPECT_EQ(in.scalar<std::uint8_t>("flag"), 1);
  EXPECT_EQ(in.array<std::int32_t>("left"), (std::vector<std::int32_t>{-1, 2, 3}));
  EXPECT_TRUE(in.array<float>("empty").empty());
  EXPECT_EQ(in.text("objective"), "squared error");
  EXPECT_EQ(in.texts("names"), (std::vector<std::string>{"age", "", "größe"}));
  EXPECT_EQ(in.count("names"), 3U);
  EXPECT_EQ(in.count("no such"), 0U);
  EXPECT_EQ(in.scalar_or("no such", 7.5), 7.5);
  std::vector<std::int32_t> into(3);
  in.array_into("left", std::span(into));
  EXPECT_EQ(into[2], 3);
}

template <class T>
class ArchiveOf : public ::testing::Test {};
using Numbers =
    ::testing::Types<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t,
                     std::int32_t, std::uint64_t, std::int64_t, float, double>;
TYPED_TEST_SUITE(ArchiveOf, Numbers);

TYPED_TEST(ArchiveOf, KeepsEveryBit) {
  using Limits = std::numeric_limits<TypeParam>;
  const std::vector<TypeParam> values = {Limits::lowest(), (Limits::max)(), (Limits::min)(),
                                         TypeParam{0}, TypeParam{1}};
  ArchiveWriter out("x");
  out.array("values", values);
  const ArchiveReader in(out.bytes());
  EXPECT_EQ(in.array<TypeParam>("values", 5), values);
  EXPECT_THROW((void)in.array<TypeParam>("values", 4), ParseError);
  EXPECT_THROW((void)in.scalar<TypeParam>("values"), ParseError);
  EXPECT_THROW((void)in.text("values"), ParseError);
}

/// The format is a promise: these bytes must stay readable, and be what is written.
TEST(Archive, GoldenBytes) {
  ArchiveWriter out("k", 2);
  out.array("a", std::vector<std::uint16_t>{1, 0x0203});
  const unsigned char golden[] = {
      'Q', 'U',  'E', 'R', 'N', 0, 1, 0, 59, 0, 0, 0, 0, 0, 0, 0, 1, 0, 'k', 2, 0, 0, 0, 1, 0, 0,
      0,   0x12, 1,   0,   'a', 2, 0, 0, 0,  0, 0, 0, 0, 4, 0, 0, 0, 0, 0,   0, 0, 1, 0, 3, 2};
  const Bytes bytes = out.bytes();
  ASSERT_EQ(bytes.size(), sizeof(golden) + 8);
  EXPECT_EQ(std::memcmp(bytes.data(), golden, sizeof(golden)), 0);
  EXPECT_EQ(detail::read_little_endian<std::uint64_t>(bytes.data() + sizeof(golden)),
            0xc407f19f14522a0dULL);
}

TEST(Archive, EveryTruncationIsRefused) {
  const Bytes whole = small_archive().bytes();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_TRUE(refused(cut)) << size;
    repair(cut);
    EXPECT_TRUE(refused(cut)) << size << " repaired";
  }
  Bytes longer = whole;
  longer.push_back(std::byte{0});
  EXPECT_TRUE(refused(longer));
  repair(longer);
  EXPECT_TRUE(refused(longer));
}

TEST(Archive, EveryFlippedBitIsRefused) {
  const Bytes whole = small_archive().bytes();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes damaged = whole;
      damaged[at] ^= static_cast<std::byte>(1 << bit);
      EXPECT_TRUE(refused(damaged)) << at;
    }
  }
}

/// With a right checksum the damage is a hostile archive: read or refused, never a crash, never
/// memory beyond the archive's own size.
TEST(Archive, HostileArchivesNeverCrash) {
  const Bytes whole = small_archive().bytes();
  for (std::size_t at = 16; at + 8 < whole.size(); ++at) {
    for (int value : {0, 1, 2, 3, 4, 8, 0x10, 0x14, 0x30, 0x40, 0x4f, 0x7f, 0x80, 0xfe, 0xff}) {
      Bytes damaged = whole;
      damaged[at] = static_cast<std::byte>(value);
      repair(damaged);
      try {
        read_all(ArchiveReader(damaged));
      } catch (const ParseError&) {
      }
    }
  }
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    Bytes damaged = whole;
    for (int i = 0; i < 4; ++i) {
      damaged[16 + random() % (damaged.size() - 24)] = static_cast<std::byte>(random());
    }
    repair(damaged);
    try {
      read_all(ArchiveReader(damaged));
    } catch (const ParseError&) {
    }
  }
}

TEST(Archive, MessagesNameSourceByteAndSection) {
  const ArchiveReader in(small_archive().bytes(), "model.quern");
  const auto message = [&](auto&& f) -> std::string {
    try {
      f();
    } catch (const ParseError& error) {
      return error.what();
    }
    return "nothing thrown";
  };
  EXPECT_EQ(message([&] { in.expect("forest", 3); }),
            "quern::ArchiveReader: model.quern: byte 16: expected a learner of kind 'forest', got "
            "'gbtree'");
  EXPECT_EQ(message([&] { in.expect("gbtree", 2); }),
            "quern::ArchiveReader: model.quern: byte 24: expected version 1..2 of 'gbtree', got 3");
  EXPECT_NE(message([&] { (void)in.text("nothing"); }).find("a section 'nothing'"),
            std::string::npos);
  EXPECT_NE(message([&] { (void)in.array<float>("left"); }).find("floating-point"),
            std::string::npos);
  EXPECT_NE(message([&] {
              in.fail_section("left", "children below 3", "3");
            }).find("section 'left' with children below 3, got 3"),
            std::string::npos);
  Bytes cut = small_archive().bytes();
  cut.resize(cut.size() - 1);
  EXPECT_NE(message([&] { ArchiveReader reader(cut); }).find("cut short"), std::string::npos);
  EXPECT_NE(message([] { ArchiveReader reader(Bytes(100), "x"); }).find("a quern archive"),
            std::string::npos);
}

TEST(Archive, WriterRefusesWhatItCannotKeep) {
  ArchiveWriter out("x");
  out.scalar("a", 1);
  EXPECT_THROW(out.scalar("a", 2), ValueError);
  EXPECT_THROW(out.scalar(std::string(70000, 'n'), 2), ValueError);
  EXPECT_EQ(ArchiveReader(out.bytes()).scalar<int>("a"), 1);
  EXPECT_THROW(ArchiveWriter(std::string(70000, 'k')), ValueError);
}

TEST(Archive, SaveAndLoad) {
  const std::string path =
      ::testing::TempDir() + "quern_archive_" + std::to_string(::getpid()) + ".quern";
  ArchiveWriter out = small_archive();
  const Bytes before = out.bytes();
  out.save(path);
  EXPECT_EQ(out.bytes(), before);
  EXPECT_NO_THROW(read_all(ArchiveReader::load(path)));
  EXPECT_THROW((void)ArchiveReader::load(path, 20), ParseError);
  EXPECT_THROW(out.save(path + "/below/a/file"), IoError);
  EXPECT_EQ(out.bytes(), before);
  EXPECT_NO_THROW(read_all(ArchiveReader::load(path)));
  std::filesystem::remove(path);
  EXPECT_THROW((void)ArchiveReader::load(path), IoError);
}

}  // namespace
}  // namespace quern::test::archive
