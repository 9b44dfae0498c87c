// SPDX-License-Identifier: Apache-2.0

/// \file
/// Inflating gzip (RFC 1952) in memory, with bounds that stop bombs: small files that inflate to
/// more than a machine holds.

#ifndef QUERN_IO_GZIP_HPP
#define QUERN_IO_GZIP_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <string_view>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace io {

/// How much a reader takes in before it gives up with a ParseError.
struct Limits {
  /// Bytes of a file, and what a gzip file may inflate to. 16 GiB.
  std::int64_t max_bytes = std::int64_t{1} << 34;
  /// A gzip file may inflate to this many times its size, and always to 256 MiB. Real tables reach
  /// 3 to 20; the format's own limit is about 1000.
  std::int64_t max_inflation = 100;

  [[nodiscard]] std::size_t bytes() const {
    return max_bytes < 0 ? 0 : static_cast<std::size_t>(max_bytes);
  }
  /// What `compressed` bytes may inflate to.
  [[nodiscard]] std::size_t inflated(std::size_t compressed) const {
    const std::size_t factor = max_inflation < 1 ? 1 : static_cast<std::size_t>(max_inflation);
    constexpr std::size_t always = std::size_t{1} << 28;
    const std::size_t most = bytes();
    return (std::min)(most,
                      compressed > most / factor ? most : (std::max)(always, compressed * factor));
  }
};

/// Bytes that grow at the end.
class Bytes {
 public:
  [[nodiscard]] std::string_view text() const noexcept { return {memory_.data(), size_}; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] char* free_data() noexcept { return memory_.data() + size_; }
  [[nodiscard]] std::size_t free_size() const noexcept { return memory_.size() - size_; }
  void add(std::size_t count) noexcept { size_ += count; }
  /// Room for `capacity` bytes in all; what is there stays.
  void reserve(std::size_t capacity) {
    if (capacity <= memory_.size()) return;
    core::Buffer<char> larger(capacity);
    if (size_ > 0) std::memcpy(larger.data(), memory_.data(), size_);
    memory_ = std::move(larger);
  }

 private:
  core::Buffer<char> memory_;
  std::size_t size_ = 0;
};

/// Whether the bytes start as every gzip file does.
[[nodiscard]] inline bool is_gzip(std::string_view bytes) noexcept {
  return bytes.size() >= 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b';
}

namespace detail {

/// zlib's state; freed whatever happens.
class Inflater {
 public:
  Inflater() {
    // 16: gzip framing only, no zlib or raw streams.
    if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) throw std::bad_alloc();
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater() { inflateEnd(&stream); }

  z_stream stream{};
};

/// A piece small enough for zlib's 32-bit counters.
inline uInt piece(std::size_t bytes) {
  return static_cast<uInt>((std::min)(bytes, std::size_t{1} << 30));
}

/// The size that the file says it has (modulo 2^32), as far as it can be believed: a first guess.
inline std::size_t inflated_size_hint(std::string_view bytes, std::size_t most) {
  std::size_t said = 0;
  for (std::size_t i = 0; i < 4 && bytes.size() >= 18; ++i) {
    said = said << 8 | static_cast<unsigned char>(bytes[bytes.size() - 1 - i]);
  }
  constexpr std::size_t floor = std::size_t{1} << 12;
  // Believed up to a common ratio only: memory is taken before the contents are seen.
  return (std::min)({(std::max)(said, floor), most, bytes.size() * 8 + floor}) + 1;
}

/// Padding with zeros after the last member is common (tapes) and harmless.
inline bool only_zeros(std::string_view bytes) {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

}  // namespace detail

/// Inflates one gzip file, also one of several members. ParseError ("where: byte n: …") when it is
/// damaged, cut short, followed by something else, or inflates past the limits.
[[nodiscard]] inline Bytes inflate_gzip(std::string_view bytes, const Limits& limits,
                                        const std::string& where = "quern::io::inflate_gzip") {
  std::size_t used = 0;
  const auto fail = [&](const std::string& message) {
    throw ParseError(where + ": byte " + std::to_string(used) + " of the gzip file: " + message);
  };
  const std::size_t most = limits.inflated(bytes.size());
  Bytes out;
  out.reserve(detail::inflated_size_hint(bytes, most));
  detail::Inflater inflater;
  z_stream& stream = inflater.stream;
  for (;;) {
    if (out.free_size() == 0) out.reserve((std::min)(2 * out.size(), most + 1));
    // zlib promises not to write to next_in; its type lacks the const.
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data() + used));
    const uInt in = stream.avail_in = detail::piece(bytes.size() - used);
    stream.next_out = reinterpret_cast<Bytef*>(out.free_data());
    const uInt room = stream.avail_out = detail::piece(out.free_size());
    const int result = inflate(&stream, Z_NO_FLUSH);
    used += in - stream.avail_in;
    out.add(room - stream.avail_out);
    if (out.size() > most) {
      fail("inflates to more than " + std::to_string(most) +
           " bytes (limits: max_bytes, max_inflation)");
    }
    if (result == Z_STREAM_END) {
      const std::string_view rest = bytes.substr(used);
      if (detail::only_zeros(rest)) return out;
      if (!is_gzip(rest)) fail("expected the end or another gzip member");
      if (inflateReset(&stream) != Z_OK) fail("zlib could not go on");
    } else if (result == Z_MEM_ERROR) {
      throw std::bad_alloc();
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      fail(std::string("damaged: ") + (stream.msg != nullptr ? stream.msg : "unknown reason"));
    } else if (stream.avail_out != 0 && used == bytes.size()) {
      fail("cut short");
    }
  }
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_GZIP_HPP
