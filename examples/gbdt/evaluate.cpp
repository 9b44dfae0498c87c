// SPDX-License-Identifier: Apache-2.0

#include "data.hpp"
#include "learner.hpp"
#include "model_file.hpp"
#include "scores.hpp"
#include "terminal.hpp"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace gbdt {
namespace {

/// XGBoost's format does not hold what labels meant: these may be anybody's.
void check_classes(const quern::boosting::Model& model, const std::vector<float>& labels,
                   const std::string& path) {
  const std::int32_t classes = class_count(model);
  if (classes == 0) return;
  const auto top = static_cast<float>(classes - 1);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const float y = labels[i];
    if (y >= 0 && y <= top && y == std::floor(y)) continue;
    throw quern::ValueError(quern::error_text(path, "label of row " + std::to_string(i),
                                              "a class 0.." + std::to_string(classes - 1), y));
  }
}

}  // namespace

int evaluate(const EvalSettings& settings) {
  const ModelFile file = load(settings.model_path);
  const Data data = read_data(settings.data, file.model, file.meaning);
  if (!data.has_labels())
    throw quern::ValueError(settings.data.path +
                            ": no labels: name a label column (--label) or file (--labels)");
  quern::NdArray<float, 2> predictions = predict_margins(file.model, data.set, settings.threads);
  transform_margins(file.model, predictions);
  check_classes(file.model, data.set.labels, settings.data.path);
  const Scores scores = score(file.model, data.set, predictions);
  std::printf("%s rows\n", count_text(data.rows()).c_str());
  for (const auto& [name, value] : scores.metrics) std::printf("%-10s %.6g\n", name.c_str(), value);
  const std::string table = confusion_text(scores, file.meaning.classes);
  if (!table.empty()) std::printf("\n%s", table.c_str());
  return 0;
}

}  // namespace gbdt
