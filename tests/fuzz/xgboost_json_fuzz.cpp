// SPDX-License-Identifier: Apache-2.0

/// \file
/// XGBoost's JSON on anything.

#include "model_fuzz.hpp"
#include "quern/io/xgboost_json.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  quern::test::fuzz_model(
      data, size,
      [](std::span<const std::byte> bytes, const std::string& name) {
        return quern::io::xgboost_json_from_bytes(bytes, name);
      },
      [](const quern::boosting::Model& model) { return quern::io::xgboost_json_text(model); });
  return 0;
}
