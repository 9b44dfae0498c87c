// SPDX-License-Identifier: Apache-2.0

/// \file
/// XGBoost's JSON on anything.

#include "model_fuzz.hpp"
#include "quern/io/xgboost_json.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace quern::test::xgboost_json_fuzz {

QUERN_FUZZ_TARGET(xgboost_json) {
  quern::test::fuzz_model(
      data, size,
      [](std::span<const std::byte> bytes, const std::string& name) {
        return quern::io::xgboost_json_from_bytes(bytes, name);
      },
      [](const quern::boosting::Model& model) { return quern::io::xgboost_json_text(model); });
  return 0;
}

}  // namespace quern::test::xgboost_json_fuzz
