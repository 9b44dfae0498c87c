// SPDX-License-Identifier: Apache-2.0

/// \file
/// CatBoost's JSON on anything.

#include "model_fuzz.hpp"
#include "quern/io/catboost_json.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace quern::test::catboost_json_fuzz {

QUERN_FUZZ_TARGET(catboost_json) {
  quern::test::fuzz_read([&] {
    return quern::io::catboost_json_from_bytes(
        std::as_bytes(std::span<const std::uint8_t>(data, size)), "fuzz");
  });
  return 0;
}

}  // namespace quern::test::catboost_json_fuzz
