// SPDX-License-Identifier: Apache-2.0

/// \file
/// The archive reader on anything, and on the same bytes with a size and a checksum that fit, since
/// whoever means harm can compute those too.

#include "quern/core/archive.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace quern::test::archive_fuzz {

namespace {

void read(const std::vector<std::byte>& bytes) {
  try {
    const quern::ArchiveReader in(bytes);
    for (const char* name : {"a", "b", ""}) {
      try {
        (void)in.texts(name);
      } catch (const quern::Error&) {
      }
      try {
        (void)in.array<float>(name);
      } catch (const quern::Error&) {
      }
      try {
        (void)in.scalar<std::int64_t>(name);
      } catch (const quern::Error&) {
      }
      try {
        (void)in.text(name);
      } catch (const quern::Error&) {
      }
    }
  } catch (const quern::Error&) {
  }
}

}  // namespace

QUERN_FUZZ_TARGET(archive) {
  const std::span<const std::byte> input = std::as_bytes(std::span(data, size));
  std::vector<std::byte> bytes(input.begin(), input.end());
  read(bytes);
  // The frame of an empty archive, with the input in place of what stands behind its size.
  std::vector<std::byte> framed = quern::ArchiveWriter("k", 1).bytes();
  framed.resize(16);
  framed.insert(framed.end(), bytes.begin(), bytes.end());
  const std::uint64_t total = quern::detail::little_endian(std::uint64_t{framed.size() + 8});
  std::memcpy(framed.data() + 8, &total, sizeof(total));
  const std::uint64_t sum = quern::detail::little_endian(quern::detail::archive_checksum(framed));
  const auto raw = std::as_bytes(std::span(&sum, 1));
  framed.insert(framed.end(), raw.begin(), raw.end());
  read(framed);
  return 0;
}

}  // namespace quern::test::archive_fuzz
