// SPDX-License-Identifier: Apache-2.0

#include "parts.hpp"

#include "labels.hpp"
#include "model_file.hpp"
#include "terminal.hpp"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

namespace gbdt {
namespace {

using Clock = std::chrono::steady_clock;

void print_data(const char* what, const Data& data, double seconds) {
  std::printf("%-8s %s rows x %s features (%s), read in %s\n", what,
              count_text(data.rows()).c_str(), count_text(data.set.cols()).c_str(),
              data.format.c_str(), time_text(seconds).c_str());
  if (!data.comment.empty()) std::printf("         %s\n", data.comment.c_str());
  if (data.unseen_categories > 0)
    std::printf("         %s cells hold categories that training did not see: read as missing\n",
                count_text(data.unseen_categories).c_str());
}

/// A test file is read as the training data were: by their columns and categories.
Data read_test(const DataSettings& settings, const Data& train) {
  quern::boosting::Model like;
  like.features = train.set.cols();
  like.feature_names = train.set.feature_names;
  like.feature_kinds = train.set.feature_kinds;
  like.categories = train.set.categories;
  Data test = read_data(settings, like, train.meaning);
  if (!test.has_labels()) throw quern::ValueError(settings.path + ": no labels to test with");
  return test;
}

}  // namespace

void choose_metrics(quern::boosting::Options& options) {
  if (!options.eval_metric.empty()) return;
  // The last one is what early stopping looks at.
  if (options.objective.starts_with("multi:")) options.eval_metric = {"merror", "mlogloss"};
  if (options.objective == "binary:logistic") options.eval_metric = {"error", "logloss"};
  if (options.objective == "reg:squarederror") options.eval_metric = {"mae", "rmse"};
}

Parts read_parts(TrainSettings& settings) {
  Parts parts;
  auto start = Clock::now();
  parts.train = read_data(settings.data);
  print_data("train", parts.train, seconds_since(start));
  quern::boosting::Options& options = settings.options;
  options.objective =
      settle_labels(parts.train, settings.objective_given ? options.objective : std::string(),
                    settings.class_names);
  if (options.objective.starts_with("multi:") && options.num_class == 0)
    options.num_class = static_cast<std::int32_t>(parts.train.meaning.classes.size());
  if (!settings.test.path.empty()) {
    start = Clock::now();
    parts.test = read_test(settings.test, parts.train);
    print_data("test", parts.test, seconds_since(start));
    parts.has_test = true;
  } else if (settings.holdout > 0) {
    auto [rest, out] = hold_out(parts.train, settings.holdout, options.seed);
    parts.train = std::move(rest);
    parts.test = std::move(out);
    parts.has_test = true;
    std::printf("test     %s rows held out\n", count_text(parts.test.rows()).c_str());
  }
  return parts;
}

void check_settings(const TrainSettings& settings, bool needs_test) {
  try {
    settings.options.check("train");
  } catch (const quern::ValueError& error) {
    throw UsageError(error.what());
  }
  if (settings.options.early_stopping_rounds > 0 && needs_test && settings.test.path.empty() &&
      settings.holdout <= 0)
    throw UsageError("--early_stopping_rounds " +
                     std::to_string(settings.options.early_stopping_rounds) +
                     " needs rows that training does not see: --test FILE or --holdout SHARE");
  if (!settings.model_path.empty()) check_writable(settings.model_path);
  if (!settings.report_path.empty()) check_writable(settings.report_path);
}

}  // namespace gbdt
