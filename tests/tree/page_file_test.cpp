// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/page_file.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace quern::test::page_file {
namespace {

std::vector<std::byte> page(std::size_t size, int start) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>(start + 7 * static_cast<int>(i));
  return bytes;
}

template <class E, class F>
void expect_thrown(F&& f, const std::string& text) {
  try {
    f();
    FAIL() << "nothing was thrown";
  } catch (const E& error) {
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(PageFile, GivesPagesBackInAnyOrder) {
  tree::PageFile file;
  const std::size_t sizes[] = {100000, 1, 70001};
  for (int p = 0; p < 3; ++p) file.append(page(sizes[p], p));
  ASSERT_EQ(file.pages(), 3u);
  for (const std::size_t p : {2u, 0u, 1u, 0u}) {
    ASSERT_EQ(file.size(p), sizes[p]);
    std::vector<std::byte> got(sizes[p]);
    file.read(p, got);
    EXPECT_EQ(got, page(sizes[p], static_cast<int>(p)));
  }
}

TEST(PageFile, ADamagedPageIsRefused) {
  tree::PageFile file;
  file.append(page(1000, 1));
  file.append(page(1000, 2));
  std::fseek(file.file(), 1500, SEEK_SET);
  std::fputc(0, file.file());
  std::vector<std::byte> got(1000);
  file.read(0, got);
  expect_thrown<ParseError>([&] { file.read(1, got); }, "page 1: expected the 1000 bytes");
}

TEST(PageFile, AFullDiskIsAnError) {
  std::FILE* const full = std::fopen("/dev/full", "w+b");
  if (full == nullptr) return;  // not every system has one
  tree::PageFile file(full);
  expect_thrown<IoError>([&] { file.append(page(1000, 1)); }, "cannot write page 0");
}

TEST(PageFile, NoSuchDirectory) {
  expect_thrown<IoError>([] { tree::PageFile file("/no/such/place"); },
                         "cannot create a file in '/no/such/place'");
}

}  // namespace
}  // namespace quern::test::page_file
