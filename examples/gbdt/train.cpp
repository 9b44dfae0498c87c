// SPDX-License-Identifier: Apache-2.0

#include "data.hpp"
#include "labels.hpp"
#include "learner.hpp"
#include "model_file.hpp"
#include "parts.hpp"
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

}  // namespace

int train(TrainSettings settings) {
  check_settings(settings, true);
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
