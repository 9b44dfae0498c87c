// SPDX-License-Identifier: Apache-2.0

/// \file
/// Models in quern's archive: as it is, and with its size and checksum put right, since hardly a
/// random change gets past those.

#include "quern/boosting/model_io.hpp"
#include "quern/boosting/predictor.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

namespace quern::test::model_archive_fuzz {

namespace {

void read(std::span<const std::byte> bytes) {
  try {
    const quern::boosting::Model model = quern::boosting::model_from_bytes(bytes, "fuzz");
    if (quern::boosting::model_to_bytes(quern::boosting::model_from_bytes(
            quern::boosting::model_to_bytes(model))) != quern::boosting::model_to_bytes(model)) {
      std::abort();
    }
    if (model.features > 4096) return;
    const quern::boosting::Predictor predictor(model);
    std::vector<float> row(static_cast<std::size_t>(model.features), 0.5f);
    std::vector<float> out(static_cast<std::size_t>(predictor.outputs()));
    predictor.margins_of_row(std::span<const float>(row), std::span<float>(out));
  } catch (const quern::ParseError&) {
  }
}

template <class T>
void put(std::vector<std::byte>& bytes, std::size_t at, T value) {
  value = quern::detail::little_endian(value);
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

}  // namespace

QUERN_FUZZ_TARGET(model_archive) {
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

}  // namespace quern::test::model_archive_fuzz
