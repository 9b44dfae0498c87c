// SPDX-License-Identifier: Apache-2.0

/// \file
/// quern's side of roundtrip.py: trains, converts models between formats, writes margins.

#include "quern/boosting/booster.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/io/model_formats.hpp"
#include "quern/io/npy.hpp"
#include "quern/tree/dataset.hpp"

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::string_view usage =
    "formats train X.npy Y.npy MODEL OBJECTIVE CLASSES BOOSTER [COLUMN]  trains 12 rounds; COLUMN "
    "is\n"
    "                                                                    categorical\n"
    "formats convert MODEL MODEL           by content to what the second name's ending says\n"
    "formats margins MODEL X.npy OUT.npy   doubles (rows, outputs)\n";

int train(const std::vector<std::string>& a) {
  using quern::boosting::Booster;
  const auto x = quern::io::read_npy<float, 2>(a[0]);
  const auto y = quern::io::read_npy<float>(a[1]);
  Booster booster({.objective = a[3],
                   .booster = a[5],
                   .num_class = std::atoi(a[4].c_str()),
                   .num_round = 12,
                   .learning_rate = 0.3,
                   .max_depth = 5});
  quern::tree::Dataset data;
  data.features = quern::MatrixView<const float>(x.data(), {x.extent(0), x.extent(1)});
  data.labels.assign(y.values.begin(), y.values.end());
  if (a.size() > 6) {
    data.feature_kinds.resize(static_cast<std::size_t>(x.extent(1)));
    data.feature_kinds.at(static_cast<std::size_t>(std::atoi(a[6].c_str()))) =
        quern::tree::FeatureKind::categorical;
  }
  booster.fit(data);
  booster.save(a[2]);
  return 0;
}

int margins(const std::vector<std::string>& a) {
  const quern::boosting::Predictor predictor(quern::io::load_any_model(a[0]));
  const auto x = quern::io::read_npy<double, 2>(a[1]);
  quern::NdArray<double, 2> out({x.extent(0), predictor.outputs()});
  predictor.margins(quern::MatrixView<const double>(x.data(), {x.extent(0), x.extent(1)}),
                    out.view());
  quern::io::write_npy(a[2], out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::vector<std::string> rest(words.begin() + (words.empty() ? 0 : 1), words.end());
  try {
    if (rest.size() >= 6 && words[0] == "train") return train(rest);
    if (rest.size() == 3 && words[0] == "margins") return margins(rest);
    if (rest.size() == 2 && words[0] == "convert") {
      quern::io::save_model_as(quern::io::load_any_model(rest[0]), rest[1]);
      return 0;
    }
  } catch (const quern::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  std::cerr << usage;
  return 2;
}
