// SPDX-License-Identifier: Apache-2.0

#include "data.hpp"
#include "labels.hpp"
#include "learner.hpp"
#include "model_file.hpp"
#include "report.hpp"
#include "scores.hpp"
#include "terminal.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <utility>

namespace gbdt {
namespace {

using Clock = std::chrono::steady_clock;
using quern::NdArray;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

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

void choose_metrics(quern::boosting::Options& options) {
  if (!options.eval_metric.empty()) return;
  // The last one is what early stopping looks at.
  if (options.objective.starts_with("multi:")) options.eval_metric = {"merror", "mlogloss"};
  if (options.objective == "binary:logistic") options.eval_metric = {"error", "logloss"};
  if (options.objective == "reg:squarederror") options.eval_metric = {"mae", "rmse"};
}

TrainedRun run(const TrainSettings& settings, const Data& train, const Data* test) {
  ProgressBar bar(settings.log_every, settings.quiet);
  watch_interrupts();
  return run_training(settings.options, train.set, test != nullptr ? &test->set : nullptr,
                      settings.keep_when_cancelled,
                      [&](const quern::Progress& progress) { return bar.update(progress); });
}

void print_run(const TrainSettings& settings, const Data& train, const TrainedRun& run) {
  const auto rounds = run.model.rounds();
  const double cells = static_cast<double>(train.rows()) * static_cast<double>(rounds);
  std::printf("binned   in %s\n", time_text(run.binning_seconds).c_str());
  std::printf("trained  %lld rounds (%zu trees) in %s: %.3g rounds/s, %s rows/s (rows x rounds)\n",
              static_cast<long long>(rounds), run.model.trees.size(),
              time_text(run.round_seconds).c_str(), static_cast<double>(rounds) / run.round_seconds,
              count_text(std::llround(cells / run.round_seconds)).c_str());
  if (rounds < settings.options.num_round)
    std::printf("         stopped before round %d%s\n", settings.options.num_round,
                interrupted() ? ": interrupted" : "");
  if (run.best_round >= 0)
    std::printf("         best round: %lld; prediction uses the rounds up to it\n",
                static_cast<long long>(run.best_round + 1));
}

bool same_bits(const NdArray<float, 2>& a, const NdArray<float, 2>& b) {
  for (std::int64_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a.data()[i]) != std::bit_cast<std::uint32_t>(b.data()[i]))
      return false;
  }
  return true;
}

double largest_difference(const NdArray<float, 2>& a, const NdArray<float, 2>& b) {
  double most = 0;
  for (std::int64_t i = 0; i < a.size(); ++i)
    most = (std::max)(most, static_cast<double>(std::fabs(a.data()[i] - b.data()[i])));
  return most;
}

/// Saves, loads back and predicts again. Only XGBoost's format may round (leaves are floats there).
bool save_and_check(const TrainSettings& settings, const ModelFile& file, const Data& data,
                    const NdArray<float, 2>& margins) {
  const std::string& path = settings.model_path;
  save(file, path);
  const ModelFile back = load(path);
  const NdArray<float, 2> again = predict_margins(back.model, data.set, settings.options.nthread);
  const bool same = same_bits(margins, again);
  std::printf("saved    %s (%s); loaded back: ", path.c_str(), size_text(file_bytes(path)).c_str());
  const std::string rows = count_text(data.rows());
  if (same) {
    std::printf("%s rows predicted, the same bits\n", rows.c_str());
  } else {
    std::printf("%s rows predicted, margins differ by at most %.2g\n", rows.c_str(),
                largest_difference(margins, again));
  }
  return same || is_foreign_path(path);
}

/// Reads and prepares the data: training rows, and test rows where there are some.
struct Parts {
  Data train;
  Data test;
  bool has_test = false;
};

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

void check_settings(const TrainSettings& settings) {
  try {
    settings.options.check("train");
  } catch (const quern::ValueError& error) {
    throw UsageError(error.what());
  }
  if (settings.options.early_stopping_rounds > 0 && settings.test.path.empty() &&
      settings.holdout <= 0)
    throw UsageError("--early_stopping_rounds needs rows to judge by: --test or --holdout");
  if (!settings.model_path.empty()) check_writable(settings.model_path);
  if (!settings.report_path.empty()) check_writable(settings.report_path);
}

}  // namespace

int train(TrainSettings settings) {
  check_settings(settings);
  const Parts parts = read_parts(settings);
  choose_metrics(settings.options);
  std::printf("learning %s, SIMD %s\n", settings.options.objective.c_str(), simd_level().c_str());
  std::fflush(stdout);
  const TrainedRun result = run(settings, parts.train, parts.has_test ? &parts.test : nullptr);
  print_run(settings, parts.train, result);

  const Data& judged = parts.has_test ? parts.test : parts.train;
  const auto start = Clock::now();
  const NdArray<float, 2> margins =
      predict_margins(result.model, judged.set, settings.options.nthread);
  const double seconds = seconds_since(start);
  NdArray<float, 2> predictions = margins;
  transform_margins(result.model, predictions);
  const Scores scores = score(result.model, judged.set, predictions);
  std::printf("predict  %s rows in %s: %s rows/s\n", count_text(judged.rows()).c_str(),
              time_text(seconds).c_str(),
              count_text(std::llround(static_cast<double>(judged.rows()) / seconds)).c_str());
  std::printf("%-8s %s\n", parts.has_test ? "test" : "train", metrics_text(scores).c_str());
  const std::string table = confusion_text(scores, parts.train.meaning.classes);
  if (!table.empty()) std::printf("\n%s\n", table.c_str());

  bool good = true;
  if (!settings.model_path.empty())
    good = save_and_check(settings, {result.model, parts.train.meaning}, judged, margins);
  if (!settings.report_path.empty()) {
    write_report(
        {settings, parts.train, judged, parts.has_test, result, scores, predictions, seconds});
    std::printf("report   %s (%s)\n", settings.report_path.c_str(),
                size_text(file_bytes(settings.report_path)).c_str());
  }
  if (!good) std::fprintf(stderr, "gbdt: the saved model predicts something else\n");
  return good ? 0 : 1;
}

}  // namespace gbdt
