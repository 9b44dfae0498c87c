// SPDX-License-Identifier: Apache-2.0

#include "csv_text.hpp"
#include "data.hpp"
#include "learner.hpp"
#include "model_file.hpp"
#include "scores.hpp"
#include "terminal.hpp"

#include <cstdio>

namespace gbdt {
namespace {

using quern::NdArray;

template <class T>
void append_rows(std::string& text, const NdArray<T, 2>& values) {
  for (std::int64_t i = 0; i < values.extent(0); ++i) {
    for (std::int64_t k = 0; k < values.extent(1); ++k) {
      if (k > 0) text += ',';
      append_number(text, values(i, k));
    }
    text += '\n';
  }
}

/// "p_Sandal,p_Bag" with classes, "margin_0,margin_1" without.
std::string header(const std::string& prefix, std::int64_t columns,
                   const std::vector<std::string>& names) {
  std::string text;
  for (std::int64_t k = 0; k < columns; ++k) {
    const auto i = static_cast<std::size_t>(k);
    text += k > 0 ? "," : "";
    text += quoted(prefix + "_" + (i < names.size() ? names[i] : std::to_string(k)));
  }
  return text + "\n";
}

std::string probabilities(const ModelFile& file, NdArray<float, 2>& margins) {
  transform_margins(file.model, margins);
  const std::vector<std::string>& names = file.meaning.classes;
  std::string text = "prediction\n";
  if (margins.extent(1) > 1) text = header("p", margins.extent(1), names);
  if (margins.extent(1) == 1 && names.size() == 2) text = quoted("p_" + names[1]) + "\n";
  append_rows(text, margins);
  return text;
}

std::string classes(const ModelFile& file, NdArray<float, 2>& margins) {
  const std::vector<std::string>& names = file.meaning.classes;
  if (names.empty())
    throw quern::ValueError("--what class: the model's objective is " + file.model.objective +
                            ", which has no classes");
  transform_margins(file.model, margins);
  std::string text = "class\n";
  for (const std::int32_t k : classes_of(margins))
    text += quoted(names[static_cast<std::size_t>(k)]) + "\n";
  return text;
}

std::string csv_of(const PredictSettings& settings, const ModelFile& file, const Data& data) {
  std::string text;
  if (settings.what == "leaf") {
    const auto leaves = predict_leaves(file.model, data.set, settings.threads);
    text = header("tree", leaves.extent(1), {});
    append_rows(text, leaves);
    return text;
  }
  NdArray<float, 2> margins = predict_margins(file.model, data.set, settings.threads);
  if (settings.what == "class") return classes(file, margins);
  if (settings.what == "probability") return probabilities(file, margins);
  const bool one = margins.extent(1) == 1;
  text = one ? "margin\n" : header("margin", margins.extent(1), file.meaning.classes);
  append_rows(text, margins);
  return text;
}

}  // namespace

int predict(const PredictSettings& settings) {
  const bool to_file = settings.out_path != "-";
  if (to_file) check_writable(settings.out_path);
  const ModelFile file = load(settings.model_path);
  const Data data = read_data(settings.data, file.model, file.meaning);
  if (data.unseen_categories > 0)
    std::fprintf(stderr, "gbdt: %s cells hold categories that training did not see: missing\n",
                 count_text(data.unseen_categories).c_str());
  const std::string text = csv_of(settings, file, data);
  write_text(settings.out_path, text);
  if (to_file)
    std::fprintf(stderr, "%s: %s rows\n", settings.out_path.c_str(),
                 count_text(data.rows()).c_str());
  return 0;
}

}  // namespace gbdt
