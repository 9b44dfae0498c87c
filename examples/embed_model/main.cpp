// SPDX-License-Identifier: Apache-2.0

/// \file
/// Serves a model that Python's XGBoost trained (or LightGBM, CatBoost, quern): a line of numbers
/// in, a line of predictions out.

#include "quern/io/model_formats.hpp"
#include "quern/io/number.hpp"
#include "quern/io/quote.hpp"
#include "quern/predict.hpp"

#include <cstddef>
#include <exception>
#include <fstream>
#include <iostream>
#include <limits>
#include <span>
#include <sstream>
#include <string>
#include <vector>

int main(int argc, char** argv) try {
  if (argc < 2 || argv[1][0] == '-') {
    std::cout
        << "embed_model MODEL [ROWS.csv]   predicts each row of the file, or of stdin: numbers\n"
           "with commas between, in the training columns' order; nothing or nan is missing\n";
    return argc < 2 ? 2 : 0;
  }
  const quern::boosting::Predictor predictor(quern::io::load_any_model(argv[1]));
  std::ifstream rows(argc > 2 ? argv[2] : "/dev/stdin");
  if (!rows)
    throw quern::IoError(std::string("cannot read '") + (argc > 2 ? argv[2] : "stdin") + "'");
  std::vector<float> row, out(static_cast<std::size_t>(predictor.prediction_outputs()));
  for (std::string line, field; std::getline(rows, line);) {
    row.clear();
    for (std::istringstream fields(line + ","); std::getline(fields, field, ',');) {
      const auto number = quern::io::parse_whole_number<float>(field);
      const bool given = number.status == quern::io::NumberStatus::ok;
      if (!given && !field.empty() && field != "nan")
        throw quern::ParseError("expected a number, got " + quern::io::quote_text(field));
      row.push_back(given ? number.value : std::numeric_limits<float>::quiet_NaN());
    }
    predictor.predict_row(std::span<const float>(row), std::span<float>(out));
    for (std::size_t k = 0; k < out.size(); ++k) std::cout << (k > 0 ? "," : "") << out[k];
    std::cout << std::endl;  // flushed: somebody may wait for it
  }
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
