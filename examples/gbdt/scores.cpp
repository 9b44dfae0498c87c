// SPDX-License-Identifier: Apache-2.0

#include "scores.hpp"

#include "terminal.hpp"

#include "quern/boosting/metric.hpp"

#include <algorithm>

namespace gbdt {

namespace boosting = quern::boosting;

namespace {

/// More classes make a table that nobody can read.
constexpr std::size_t most_shown_classes = 30;

std::vector<std::string> metric_names(const boosting::Model& model) {
  if (model.objective.starts_with("multi:")) return {"mlogloss", "merror"};
  if (model.objective == "binary:logistic") return {"logloss", "error", "auc"};
  if (model.objective == "binary:logitraw") return {"auc"};
  if (model.objective == "reg:squarederror") return {"rmse", "mae"};
  const auto objective =
      boosting::make_objective(model.objective, model.outputs, model.objective_params);
  return {std::string(objective->default_metric())};
}

void count_confusion(const std::vector<float>& labels, std::size_t classes, Scores& scores) {
  scores.confusion.assign(classes, std::vector<std::int64_t>(classes, 0));
  for (std::size_t i = 0; i < labels.size(); ++i)
    ++scores.confusion[static_cast<std::size_t>(labels[i])]
                      [static_cast<std::size_t>(scores.predicted[i])];
}

}  // namespace

std::int32_t class_count(const boosting::Model& model) {
  if (model.objective.starts_with("multi:")) return model.outputs;
  return model.objective == "binary:logistic" ? 2 : 0;
}

double Scores::accuracy() const {
  std::int64_t right = 0, all = 0;
  for (std::size_t i = 0; i < confusion.size(); ++i) {
    right += confusion[i][i];
    for (const std::int64_t n : confusion[i]) all += n;
  }
  return all > 0 ? static_cast<double>(right) / static_cast<double>(all) : -1;
}

std::vector<std::int32_t> classes_of(const quern::NdArray<float, 2>& predictions) {
  const auto k = predictions.extent(1);
  std::vector<std::int32_t> classes;
  for (std::int64_t i = 0; i < predictions.extent(0); ++i) {
    const float* row = predictions.data() + i * k;
    const auto best = k == 1 ? (row[0] > 0.5f ? 1 : 0) : std::max_element(row, row + k) - row;
    classes.push_back(static_cast<std::int32_t>(best));
  }
  return classes;
}

Scores score(const boosting::Model& model, const quern::tree::Dataset& set,
             const quern::NdArray<float, 2>& predictions) {
  Scores scores;
  const boosting::Targets targets{set.labels, set.weights};
  const std::span<const float> p(
      predictions.data(), static_cast<std::size_t>(predictions.extent(0) * predictions.extent(1)));
  const std::int32_t classes = class_count(model);
  if (classes > 0) {
    scores.predicted = classes_of(predictions);
    count_confusion(set.labels, static_cast<std::size_t>(classes), scores);
    scores.metrics.emplace_back("accuracy", scores.accuracy());
  }
  for (const std::string& name : metric_names(model))
    scores.metrics.emplace_back(name,
                                boosting::make_metric(name, model.outputs, model.objective_params)
                                    .value(p, model.outputs, targets));
  return scores;
}

std::string metrics_text(const Scores& scores) {
  std::string text;
  for (const auto& [name, value] : scores.metrics)
    text += (text.empty() ? "" : "  ") + name + format(" %.5g", value);
  return text;
}

std::string confusion_text(const Scores& scores, const std::vector<std::string>& classes) {
  const std::size_t k = scores.confusion.size();
  if (k == 0 || k > most_shown_classes || classes.size() != k) return {};
  std::size_t name_width = 4;
  std::size_t cell = 5;
  for (const std::string& name : classes)
    name_width = (std::max)(name_width, (std::min)(width_of(name), std::size_t{16}));
  for (const auto& row : scores.confusion)
    for (const std::int64_t n : row) cell = (std::max)(cell, count_text(n).size() + 1);
  const std::size_t head = (std::max)(cell, std::size_t{7});
  std::string text = fit("true \\ predicted", (std::max)(name_width, std::size_t{16}));
  for (const std::string& name : classes) text += " " + fit(name, head - 1, true);
  text += "  recall\n";
  for (std::size_t i = 0; i < k; ++i) {
    std::int64_t all = 0;
    text += fit(classes[i], (std::max)(name_width, std::size_t{16}));
    for (const std::int64_t n : scores.confusion[i]) {
      text += fit(n == 0 ? "·" : count_text(n), head, true);
      all += n;
    }
    const auto right = static_cast<double>(scores.confusion[i][i]);
    text += all > 0 ? format("   %5.1f%%\n", 100 * right / static_cast<double>(all)) : "       -\n";
  }
  return text;
}

}  // namespace gbdt
