// SPDX-License-Identifier: Apache-2.0

/// \file
/// Forests in quern's archive: as it is, and with its size and checksum put right, since hardly a
/// random change gets past those.

#include "quern/core/archive.hpp"
#include "quern/tree/compact_forest.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

namespace quern::test::forest_archive_fuzz {

namespace {

void read(std::span<const std::byte> bytes) {
  try {
    quern::tree::CompactForest forest;
    forest.load(quern::ArchiveReader(bytes, "fuzz"));
    if (forest.size() == 0 || forest.features() > 4096 || forest.outputs() > 64) return;
    std::vector<float> row(static_cast<std::size_t>(forest.features()), 0.5f);
    std::vector<float> out(static_cast<std::size_t>(forest.outputs()));
    forest.predict({row.data(), {1, forest.features()}},
                   quern::MatrixView<float>(out.data(), {1, quern::Index{forest.outputs()}}), 1);
    for (std::int64_t t = 0; t < forest.size(); ++t) {
      quern::tree::Tree tree = forest.tree(t);
      if (tree.size() != static_cast<std::int64_t>(
                             forest.compact_trees()[static_cast<std::size_t>(t)].nodes.size()))
        std::abort();
    }
  } catch (const quern::ParseError&) {
  }
}

template <class T>
void put(std::vector<std::byte>& bytes, std::size_t at, T value) {
  value = quern::detail::little_endian(value);
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

}  // namespace

QUERN_FUZZ_TARGET(forest_archive) {
  const auto given = std::as_bytes(std::span<const std::uint8_t>(data, size));
  read(given);
  if (size < 24) return 0;
  std::vector<std::byte> bytes(given.begin(), given.end());
  put(bytes, 8, static_cast<std::uint64_t>(size));
  put(bytes, size - 8,
      quern::detail::archive_checksum(std::span<const std::byte>(bytes).first(size - 8)));
  read(bytes);
  return 0;
}

}  // namespace quern::test::forest_archive_fuzz
