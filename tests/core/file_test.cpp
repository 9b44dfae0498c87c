// SPDX-License-Identifier: Apache-2.0

/// \file
/// Files: read with a limit, written aside and renamed, nothing lost when the disk is full.

#include "quern/core/file.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace quern::test::file {
namespace {

namespace fs = std::filesystem;

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

/// A folder of its own for each test, removed afterwards.
class File : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(::testing::TempDir()) /
              ("quern_file_" + std::string(test->name()) + "_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  [[nodiscard]] std::string path(const std::string& name) const {
    return (folder_ / name).string();
  }
  [[nodiscard]] std::size_t entries() const {
    std::size_t n = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder_)) ++n;
    return n;
  }

  fs::path folder_;
};

TEST_F(File, RoundTripOfAnySize) {
  for (std::size_t size : {0U, 1U, 65536U, 200001U}) {
    const std::vector<std::byte> bytes(size, std::byte{42});
    write_file_atomically(path("a"), bytes);
    EXPECT_EQ(read_file(path("a")), bytes);
  }
  EXPECT_EQ(entries(), 1U);
}

TEST_F(File, ReadHasALimit) {
  write_file_atomically(path("a"), bytes_of("0123456789"));
  EXPECT_EQ(read_file(path("a"), 10).size(), 10U);
  EXPECT_THROW((void)read_file(path("a"), 9), ParseError);
  EXPECT_THROW((void)read_file(path("a"), 0), ParseError);
}

TEST_F(File, MissingFilesAndFoldersAreNamed) {
  try {
    (void)read_file(path("none"));
    FAIL();
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find(path("none")), std::string::npos);
  }
  EXPECT_THROW((void)read_file(folder_.string()), IoError);
  EXPECT_THROW(write_file_atomically(path("no/such/folder"), {}), IoError);
  EXPECT_THROW(write_file_atomically(folder_.string(), {}), IoError);
}

#if defined(QUERN_DETAIL_POSIX_FILES)

ssize_t write_no_space(int, const void*, std::size_t) {
  errno = ENOSPC;
  return -1;
}
/// Writes a few bytes, then is interrupted once, as a slow disk may be.
ssize_t write_in_pieces(int descriptor, const void* data, std::size_t size) {
  static bool interrupt = false;
  interrupt = !interrupt;
  if (interrupt) {
    errno = EINTR;
    return -1;
  }
  return ::write(descriptor, data, size < 3 ? size : 3);
}
ssize_t write_nothing(int, const void*, std::size_t) { return 0; }
int sync_fails(int) {
  errno = EIO;
  return -1;
}
int close_fails(int descriptor) {
  ::close(descriptor);
  errno = ENOSPC;
  return -1;
}
int rename_fails(const char*, const char*) {
  errno = EACCES;
  return -1;
}

TEST_F(File, AFailedSaveLosesNothing) {
  const std::vector<detail::FileCalls> failing = {{.write = write_no_space},
                                                  {.write = write_nothing},
                                                  {.sync = sync_fails},
                                                  {.close = close_fails},
                                                  {.rename = rename_fails}};
  write_file_atomically(path("model"), bytes_of("the old model"));
  for (const detail::FileCalls& calls : failing) {
    EXPECT_THROW(detail::write_file(path("model"), bytes_of("new"), calls), IoError);
    EXPECT_EQ(read_file(path("model")), bytes_of("the old model"));
    EXPECT_EQ(entries(), 1U);
    EXPECT_THROW(detail::write_file(path("other"), bytes_of("new"), calls), IoError);
    EXPECT_FALSE(fs::exists(path("other")));
  }
}

TEST_F(File, ShortAndInterruptedWritesGoOn) {
  detail::write_file(path("a"), bytes_of("more than three bytes"), {.write = write_in_pieces});
  EXPECT_EQ(read_file(path("a")), bytes_of("more than three bytes"));
}

TEST_F(File, KeepsPermissionsAndFollowsLinks) {
  write_file_atomically(path("a"), bytes_of("old"));
  fs::permissions(path("a"), fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("a", path("link"));
  write_file_atomically(path("link"), bytes_of("new"));
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(read_file(path("a")), bytes_of("new"));
  EXPECT_EQ(fs::status(path("a")).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

#if defined(__linux__)
TEST_F(File, FullDevice) {
  try {
    write_file_atomically("/dev/full", bytes_of("x"));
    FAIL();
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos) << error.what();
  }
  EXPECT_NO_THROW(write_file_atomically("/dev/null", bytes_of("x")));
  EXPECT_THROW((void)read_file("/dev/zero", 100000), ParseError);
}
#endif

#endif  // QUERN_DETAIL_POSIX_FILES

}  // namespace
}  // namespace quern::test::file
