// SPDX-License-Identifier: Apache-2.0

/// \file
/// XGBoost's UBJ on anything.

#include "model_fuzz.hpp"
#include "quern/io/xgboost_ubj.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  quern::test::fuzz_model(
      data, size,
      [](std::span<const std::byte> bytes, const std::string& name) {
        return quern::io::xgboost_ubj_from_bytes(bytes, name);
      },
      [](const quern::boosting::Model& model) { return quern::io::xgboost_ubj_bytes(model); });
  return 0;
}
