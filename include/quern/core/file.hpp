// SPDX-License-Identifier: Apache-2.0

/// \file
/// Whole files, read with a limit and written so that nothing is ever lost.

#ifndef QUERN_CORE_FILE_HPP
#define QUERN_CORE_FILE_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#define QUERN_DETAIL_POSIX_FILES 1
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

QUERN_NAMESPACE_BEGIN

/// Bytes that read_file() takes unless told otherwise: 16 GiB.
inline constexpr std::uint64_t default_max_file_bytes = std::uint64_t{1} << 34;

namespace detail {

[[noreturn]] inline void io_failure(std::string_view function, std::string_view step,
                                    const std::string& path, int error) {
  std::string text(function);
  text += ": path: ";
  text += step;
  text += " '" + path + "': " + std::generic_category().message(error);
  throw IoError(text);
}

#if defined(QUERN_DETAIL_POSIX_FILES)

/// The calls that saving makes, so that tests can play a full disk.
struct FileCalls {
  ssize_t (*write)(int, const void*, std::size_t) = ::write;
  int (*sync)(int) = ::fsync;
  int (*close)(int) = ::close;
  int (*rename)(const char*, const char*) = std::rename;
};

/// A descriptor that is closed, and a temporary that is removed, whatever happens.
class FileInWriting {
 public:
  FileInWriting(int descriptor, std::string temporary, const FileCalls& calls)
      : descriptor_(descriptor), temporary_(std::move(temporary)), calls_(calls) {}
  FileInWriting(const FileInWriting&) = delete;
  FileInWriting& operator=(const FileInWriting&) = delete;
  ~FileInWriting() {
    if (descriptor_ >= 0) calls_.close(descriptor_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  /// Errno, or 0.
  [[nodiscard]] int write_all(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      // Linux writes at most 2 GiB at once, other systems refuse more than INT_MAX.
      const std::size_t part = (std::min)(bytes.size(), std::size_t{1} << 30);
      const ssize_t wrote = calls_.write(descriptor_, bytes.data(), part);
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) return errno;
      if (wrote == 0) return ENOSPC;
      bytes = bytes.subspan(static_cast<std::size_t>(wrote));
    }
    return 0;
  }
  [[nodiscard]] int sync() {
    // Pipes and terminals have nothing to sync.
    if (calls_.sync(descriptor_) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS) {
      return 0;
    }
    return errno;
  }
  [[nodiscard]] int close() {
    const int descriptor = std::exchange(descriptor_, -1);
    return calls_.close(descriptor) == 0 || errno == EINTR ? 0 : errno;
  }
  [[nodiscard]] int rename_to(const std::string& path) {
    if (calls_.rename(temporary_.c_str(), path.c_str()) != 0) return errno;
    temporary_.clear();
    return 0;
  }
  [[nodiscard]] int descriptor() const { return descriptor_; }
  [[nodiscard]] const std::string& temporary() const { return temporary_; }

 private:
  int descriptor_;
  std::string temporary_;
  const FileCalls& calls_;
};

inline std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// The file behind a symbolic link, so that saving replaces the file and not the link.
inline std::string link_target(const std::string& path) {
  char* const resolved = ::realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return path;
  std::string target(resolved);
  std::free(resolved);
  return target;
}

/// A new file beside `path`: same directory, so the same file system, and a name nobody has.
inline std::string open_beside(const std::string& path, int& descriptor) {
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::string name = path + ".tmp-" + std::to_string(::getpid()) + "-" +
                       std::to_string(counter.fetch_add(1, std::memory_order_relaxed));
    descriptor = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0) return name;
    if (errno != EEXIST) break;
  }
  return {};
}

/// The rename itself is safe on disk only once the directory is; best effort, as not every file
/// system can.
inline void sync_directory(const std::string& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

inline void write_file(const std::string& path, std::span<const std::byte> bytes,
                       const FileCalls& calls) {
  static constexpr std::string_view function = "quern::write_file_atomically";
  struct stat before {};
  const bool exists = ::stat(path.c_str(), &before) == 0;
  if (exists && S_ISDIR(before.st_mode)) io_failure(function, "cannot write", path, EISDIR);
  // A device or a pipe holds nothing to lose, and replacing it by a file is not what was asked for.
  const bool in_place = exists && !S_ISREG(before.st_mode);
  const std::string target = exists && !in_place ? link_target(path) : path;
  int descriptor = -1;
  std::string temporary;
  if (in_place) {
    descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    temporary = open_beside(target, descriptor);
  }
  if (descriptor < 0) io_failure(function, "cannot create a file beside", path, errno);
  FileInWriting file(descriptor, temporary, calls);
  if (exists && !in_place) {
    // Keeps the permissions of the file that is replaced; where that is not allowed, the default.
    [[maybe_unused]] const int ignored = ::fchmod(descriptor, before.st_mode & 07777);
  }
  int error = file.write_all(bytes);
  if (error == 0) error = file.sync();
  const int close_error = file.close();
  if (error == 0) error = close_error;
  if (error != 0) io_failure(function, "cannot write", path, error);
  if (in_place) return;
  if ((error = file.rename_to(target)) != 0) io_failure(function, "cannot replace", path, error);
  sync_directory(directory_of(target));
}

#endif  // QUERN_DETAIL_POSIX_FILES

/// Closes what std::fopen opened.
class StdioFile {
 public:
  StdioFile(const std::string& path, const char* mode) : file_(std::fopen(path.c_str(), mode)) {}
  StdioFile(const StdioFile&) = delete;
  StdioFile& operator=(const StdioFile&) = delete;
  ~StdioFile() {
    if (file_ != nullptr) std::fclose(file_);
  }
  [[nodiscard]] std::FILE* get() const { return file_; }
  [[nodiscard]] bool close() { return std::fclose(std::exchange(file_, nullptr)) == 0; }

 private:
  std::FILE* file_;
};

/// How much to read first: all of a regular file and one byte more, which tells that it ends.
inline std::size_t first_part([[maybe_unused]] std::FILE* file,
                              [[maybe_unused]] std::uint64_t max_bytes) {
#if defined(QUERN_DETAIL_POSIX_FILES)
  struct stat about {};
  if (::fstat(::fileno(file), &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0) {
    const auto size = static_cast<std::uint64_t>(about.st_size);
    return static_cast<std::size_t>((std::min)(size, max_bytes)) + 1;
  }
#endif
  return std::size_t{1} << 16;
}

}  // namespace detail

/// Makes `path` hold exactly these bytes, or throws IoError and leaves what was there untouched:
/// the bytes go to a new file in the same directory, are synced to the disk, and the file is then
/// renamed over `path` (behind a symbolic link: over its target). Devices and pipes are written in
/// place. Keeps an existing file's permissions.
inline void write_file_atomically(const std::string& path, std::span<const std::byte> bytes) {
#if defined(QUERN_DETAIL_POSIX_FILES)
  detail::write_file(path, bytes, detail::FileCalls{});
#else
  const std::string temporary = path + ".tmp";
  bool good = false;
  {
    detail::StdioFile file(temporary, "wb");
    good = file.get() != nullptr &&
           std::fwrite(bytes.data(), 1, bytes.size(), file.get()) == bytes.size() &&
           std::fflush(file.get()) == 0 && file.close();
  }
  const int error = errno;
  if (good) {
    std::remove(path.c_str());  // std::rename does not replace everywhere
    if (std::rename(temporary.c_str(), path.c_str()) == 0) return;
  }
  std::remove(temporary.c_str());
  detail::io_failure("quern::write_file_atomically", "cannot write", path, error);
#endif
}

/// The whole file. IoError when it cannot be read; ParseError, naming the limit, when it holds more
/// than `max_bytes`. Memory grows with what is there, not with what the file claims to hold.
[[nodiscard]] inline std::vector<std::byte> read_file(
    const std::string& path, std::uint64_t max_bytes = default_max_file_bytes) {
  static constexpr std::string_view function = "quern::read_file";
  detail::StdioFile file(path, "rb");
  if (file.get() == nullptr) detail::io_failure(function, "cannot open", path, errno);
  std::setvbuf(file.get(), nullptr, _IONBF, 0);
  std::vector<std::byte> bytes;
  std::size_t used = 0;
  for (std::size_t part = detail::first_part(file.get(), max_bytes);;
       part = (std::min)(part * 2, std::size_t{1} << 26)) {
    bytes.resize(used + part);
    errno = 0;
    const std::size_t got = std::fread(bytes.data() + used, 1, part, file.get());
    const int error = errno;
    used += got;
    if (used > max_bytes) {
      throw ParseError(
          error_text(function, "path",
                     "at most " + std::to_string(max_bytes) + " bytes in '" + path + "'", "more"));
    }
    if (got < part && std::ferror(file.get()) != 0) {
      detail::io_failure(function, "cannot read", path, error != 0 ? error : EIO);
    }
    if (got < part) break;
  }
  bytes.resize(used);
  return bytes;
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_FILE_HPP
