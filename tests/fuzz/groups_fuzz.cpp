// SPDX-License-Identifier: Apache-2.0

/// \file
/// The reader of group sizes on anything; what it accepts must be ascending offsets.

#include "quern/io/groups.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace quern::test::groups_fuzz {

QUERN_FUZZ_TARGET(groups) {
  try {
    const auto offsets = quern::io::parse_groups({reinterpret_cast<const char*>(data), size});
    if (offsets.size() < 2 || offsets[0] != 0) std::abort();
    for (std::size_t i = 1; i < offsets.size(); ++i) {
      if (offsets[i] < offsets[i - 1]) std::abort();
    }
  } catch (const quern::ParseError&) {
  }
  return 0;
}

}  // namespace quern::test::groups_fuzz
