// SPDX-License-Identifier: Apache-2.0

/// \file
/// The IDX reader on anything, also where it has to convert or turn the elements around.

#include "quern/io/idx.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace {

template <class T>
void read(std::string_view bytes, const quern::io::IdxOptions& options) {
  try {
    const auto array = quern::io::parse_idx<T>(bytes, options);
    std::size_t count = 1;
    for (quern::Index extent : array.shape) count *= static_cast<std::size_t>(extent);
    if (count != array.values.size()) std::abort();
  } catch (const quern::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  quern::io::IdxOptions options;
  options.limits.max_bytes = 1 << 20;
  read<float>(bytes, options);
  read<std::int8_t>(bytes, options);
  read<std::uint64_t>(bytes, options);
  read<bool>(bytes, options);
  try {
    const auto matrix = quern::io::parse_idx<double, 2>(bytes, options);
    if (matrix.size() != matrix.extent(0) * matrix.extent(1)) std::abort();
  } catch (const quern::Error&) {
  }
  return 0;
}
