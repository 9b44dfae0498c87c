// SPDX-License-Identifier: Apache-2.0

/// \file
/// LightGBM's text on anything.

#include "model_fuzz.hpp"
#include "quern/io/lightgbm_text.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace quern::test::lightgbm_text_fuzz {

QUERN_FUZZ_TARGET(lightgbm_text) {
  quern::test::fuzz_model(
      data, size,
      [](std::span<const std::byte> bytes, const std::string& name) {
        return quern::io::lightgbm_from_text(
            {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name);
      },
      [](const quern::boosting::Model& model) { return quern::io::lightgbm_text(model); });
  return 0;
}

}  // namespace quern::test::lightgbm_text_fuzz
