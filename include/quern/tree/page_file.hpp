// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pages of bytes in a temporary file: for data that is larger than memory.

#ifndef QUERN_TREE_PAGE_FILE_HPP
#define QUERN_TREE_PAGE_FILE_HPP

#include "quern/core/archive.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Pages that are written once, one after the other, and read back in any order. The file has no
/// name any more once it is open (on POSIX systems), so nothing is left behind even by a crash.
/// Every page is read with its checksum. Not for several threads at once.
class PageFile {
 public:
  /// A new file in \p directory; empty: the one of the environment's TMPDIR, else /tmp. Mind that
  /// this may lie in memory. IoError where none can be made there.
  explicit PageFile(const std::string& directory = {}) : file_(open_in(directory)) { prepare(); }
  /// Takes \p file, open for reading and writing.
  explicit PageFile(std::FILE* file) : file_(file) { prepare(); }
  PageFile(const PageFile&) = delete;
  PageFile& operator=(const PageFile&) = delete;
  ~PageFile() { std::fclose(file_); }

  /// Adds a page. IoError when the disk is full, or failing.
  void append(std::span<const std::byte> bytes) {
    const std::uint64_t at = pages_.empty() ? 0 : pages_.back().at + pages_.back().size;
    errno = 0;
    if (!seek(at) || std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size() ||
        std::fflush(file_) != 0)
      fail("append", "write", pages_.size());
    pages_.push_back({at, bytes.size(), quern::detail::archive_checksum(bytes)});
  }

  /// Reads page \p page into \p out, size(page) bytes. IoError when that fails, ParseError when the
  /// page is not what was written.
  void read(std::size_t page, std::span<std::byte> out) {
    const Page& p = pages_.at(page);
    errno = 0;
    if (!seek(p.at)) fail("read", "find", page);
    const std::size_t got = std::fread(out.data(), 1, p.size, file_);
    if (got != p.size && std::ferror(file_) != 0) fail("read", "read", page);
    const bool whole = got == p.size;
    if (!whole || quern::detail::archive_checksum(out.first(p.size)) != p.checksum)
      throw ParseError(error_text("quern::tree::PageFile::read", "page " + std::to_string(page),
                                  "the " + std::to_string(p.size) + " bytes that were written",
                                  whole ? "others: the temporary file is damaged"
                                        : std::to_string(got) + " bytes: the file was cut short"));
  }

  [[nodiscard]] std::size_t pages() const noexcept { return pages_.size(); }
  [[nodiscard]] std::size_t size(std::size_t page) const { return pages_.at(page).size; }
  [[nodiscard]] std::FILE* file() const noexcept { return file_; }

 private:
  struct Page {
    std::uint64_t at;
    std::size_t size;
    std::uint64_t checksum;
  };

  static std::FILE* open_in(std::string directory) {
#if defined(QUERN_DETAIL_POSIX_FILES)
    if (directory.empty()) {
      const char* const given = std::getenv("TMPDIR");
      directory = given != nullptr && *given != '\0' ? given : "/tmp";
    }
    std::string path = directory + "/quern-pages-XXXXXX";
    const int descriptor = ::mkstemp(path.data());
    if (descriptor < 0)
      quern::detail::io_failure("quern::tree::PageFile", "cannot create a file in", directory,
                                errno);
    ::unlink(path.c_str());
    std::FILE* const file = ::fdopen(descriptor, "w+b");
    if (file == nullptr) ::close(descriptor);
#else
    std::FILE* const file = std::tmpfile();
#endif
    if (file == nullptr)
      quern::detail::io_failure("quern::tree::PageFile", "cannot open a file in", directory, errno);
    return file;
  }

  /// Pages are far larger than a stream's buffer.
  void prepare() { std::setvbuf(file_, nullptr, _IONBF, 0); }

  bool seek(std::uint64_t at) {
#if defined(QUERN_DETAIL_POSIX_FILES)
    return ::fseeko(file_, static_cast<off_t>(at), SEEK_SET) == 0;
#elif defined(_WIN32)
    return ::_fseeki64(file_, static_cast<long long>(at), SEEK_SET) == 0;
#else
    return std::fseek(file_, static_cast<long>(at), SEEK_SET) == 0;
#endif
  }

  [[noreturn]] static void fail(const char* function, const char* step, std::size_t page) {
    const int error = errno != 0 ? errno : EIO;
    throw IoError("quern::tree::PageFile::" + std::string(function) + ": cannot " + step +
                  " page " + std::to_string(page) +
                  " of the temporary file: " + std::generic_category().message(error));
  }

  std::FILE* file_;
  std::vector<Page> pages_;
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_PAGE_FILE_HPP
