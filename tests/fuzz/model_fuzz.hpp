// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the fuzz targets of model files share: a file is refused with a ParseError, or it makes a
/// sound model, which predicts, is written, and is read again.

#ifndef QUERN_TESTS_FUZZ_MODEL_FUZZ_HPP
#define QUERN_TESTS_FUZZ_MODEL_FUZZ_HPP

#include "quern/boosting/predictor.hpp"
#include "quern/core/error.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace quern::test {

/// Wider models are not predicted or written: their lists of names can be longer than the file.
inline constexpr std::int64_t widest_fuzzed_model = 4096;

inline void fuzz_predict(const boosting::Model& model) {
  const boosting::Predictor predictor(model);
  std::vector<double> out(static_cast<std::size_t>(predictor.outputs()));
  for (float x : {0.5f, 0.0f, std::numeric_limits<float>::quiet_NaN()}) {
    const std::vector<float> row(static_cast<std::size_t>(model.features), x);
    predictor.margins_of_row(std::span<const float>(row), std::span<double>(out));
  }
}

/// `read()` makes a model, which predicts.
template <class Read>
void fuzz_read(const Read& read) {
  try {
    const boosting::Model model = read();
    if (model.features <= widest_fuzzed_model) fuzz_predict(model);
  } catch (const ParseError&) {
  }
}

/// `read(bytes, name)` makes a model, `write(model)` text.
template <class Read, class Write>
void fuzz_model(const std::uint8_t* data, std::size_t size, const Read& read, const Write& write) {
  try {
    const boosting::Model model =
        read(std::as_bytes(std::span<const std::uint8_t>(data, size)), "fuzz");
    if (model.features > widest_fuzzed_model) return;
    fuzz_predict(model);
    const std::string text = write(model);
    try {
      const boosting::Model back =
          read(std::as_bytes(std::span<const char>(text.data(), text.size())), "again");
      if (back.outputs != model.outputs) std::abort();
    } catch (const ParseError&) {
      // Leaves at the edge of the numbers may pass it with the rest of a base score on top.
    }
  } catch (const ParseError&) {
  } catch (const ValueError&) {  // a sound model that the format cannot hold
  }
}

}  // namespace quern::test

#endif  // QUERN_TESTS_FUZZ_MODEL_FUZZ_HPP
