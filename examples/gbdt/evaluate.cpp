// SPDX-License-Identifier: Apache-2.0

#include "data.hpp"
#include "learner.hpp"
#include "model_file.hpp"
#include "scores.hpp"
#include "terminal.hpp"

#include <cstdio>

namespace gbdt {

int evaluate(const EvalSettings& settings) {
  const ModelFile file = load(settings.model_path);
  const Data data = read_data(settings.data, file.model, file.meaning);
  if (!data.has_labels())
    throw quern::ValueError(settings.data.path +
                            ": no labels: name a label column (--label) or file (--labels)");
  quern::NdArray<float, 2> predictions = predict_margins(file.model, data.set, settings.threads);
  transform_margins(file.model, predictions);
  const auto top = static_cast<float>(file.model.outputs);
  for (const float y : data.set.labels) {
    if (file.model.outputs > 1 && !(y >= 0 && y < top))
      throw quern::ValueError(quern::error_text(settings.data.path, "label",
                                                "a class of the model's", y));
  }
  const Scores scores = score(file.model, data.set, predictions);
  std::printf("%s rows\n", count_text(data.rows()).c_str());
  for (const auto& [name, value] : scores.metrics) std::printf("%-10s %.6g\n", name.c_str(), value);
  const std::string table = confusion_text(scores, file.meaning.classes);
  if (!table.empty()) std::printf("\n%s", table.c_str());
  return 0;
}

}  // namespace gbdt
