// SPDX-License-Identifier: Apache-2.0

/// \file
/// The IDX reader on anything.

#include "array_fuzz.hpp"
#include "quern/io/idx.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace quern::test::idx_fuzz {

QUERN_FUZZ_TARGET(idx) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  quern::io::IdxOptions options;
  options.limits.max_bytes = 1 << 20;
  quern::test::fuzz_array(
      [&](auto like) { return quern::io::parse_idx<decltype(like)>(bytes, options); },
      [&] { return quern::io::parse_idx<double, 2>(bytes, options); });
  return 0;
}

}  // namespace quern::test::idx_fuzz
