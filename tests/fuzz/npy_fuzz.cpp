// SPDX-License-Identifier: Apache-2.0

/// \file
/// The NPY reader on anything.

#include "array_fuzz.hpp"
#include "quern/io/npy.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace quern::test::npy_fuzz {

QUERN_FUZZ_TARGET(npy) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  quern::io::NpyOptions options;
  options.limits.max_bytes = 1 << 20;
  quern::test::fuzz_array(
      [&](auto like) { return quern::io::parse_npy<decltype(like)>(bytes, options); },
      [&] { return quern::io::parse_npy<double, 2>(bytes, options); });
  return 0;
}

}  // namespace quern::test::npy_fuzz
