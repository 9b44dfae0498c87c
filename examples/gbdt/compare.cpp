// SPDX-License-Identifier: Apache-2.0

#include "learner.hpp"
#include "parts.hpp"
#include "settings.hpp"
#include "terminal.hpp"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace gbdt {
namespace {

using quern::boosting::Options;

struct Way {
  std::string name;
  Options options;
  TrainedRun run = {};
};

/// The steps from Friedman's boosting to XGBoost's, all else equal.
std::vector<Way> ways_of(const Options& options) {
  Options bare = options;
  bare.reg_lambda = bare.reg_alpha = bare.gamma = 0;
  Options first = bare;
  first.gradient_order = 1;
  bare.gradient_order = 2;
  Options regular = options;
  regular.gradient_order = 2;
  return {{"first order", first}, {"second order", bare}, {"regularised", regular}};
}

const MetricCurve& curve(const Way& way, const char* set) {
  for (const MetricCurve& c : way.run.curves) {
    if (c.set == set) return c;
  }
  return way.run.curves.front();
}

void print_table(const std::vector<Way>& ways, const char* set) {
  std::printf("\n%-5s %-8s", set, curve(ways[0], set).metric.c_str());
  for (const Way& way : ways) std::printf("  %14s", way.name.c_str());
  std::printf("\n");
  const std::size_t rounds = curve(ways[0], set).values.size();
  const std::size_t step = (std::max)(rounds / 20, std::size_t{1});
  for (std::size_t r = 0; r < rounds; ++r) {
    if ((r + 1) % step != 0 && r != 0 && r + 1 != rounds) continue;
    std::printf("round %-8zu", r + 1);
    for (const Way& way : ways) std::printf("  %14.6g", curve(way, set).values[r]);
    std::printf("\n");
  }
  std::printf("best          ");
  for (const Way& way : ways) {
    const std::vector<double>& values = curve(way, set).values;
    const auto best = std::min_element(values.begin(), values.end());
    std::printf("  %14s", format("%.6g (%td)", *best, best - values.begin() + 1).c_str());
  }
  std::printf("\n");
}

}  // namespace

int compare(TrainSettings settings) {
  check_settings(settings, true);
  Parts parts = read_parts(settings);
  settings.options.early_stopping_rounds = 0;  // curves of one length
  if (settings.options.num_round < 1) throw UsageError("--rounds: expected at least 1");
  settings.options.eval_metric = {loss_of(settings.options)};
  std::vector<Way> ways = ways_of(settings.options);
  for (Way& way : ways) {
    ProgressBar bar(settings.log_every, settings.quiet);
    watch_interrupts();
    way.run = run_training(way.options, parts.train.set, parts.has_test ? &parts.test.set : nullptr,
                           false, [&](const quern::Progress& p) { return bar.update(p); });
  }
  print_table(ways, "train");
  if (parts.has_test) print_table(ways, "test");
  std::printf("\nregularised: lambda %g, alpha %g, gamma %g; the others have none\n",
              double{settings.options.reg_lambda}, settings.options.reg_alpha,
              settings.options.gamma);
  return 0;
}

int cross_validate(CrossValidationSettings settings) {
  TrainSettings& train = settings.train;
  check_settings(train, false);
  if (settings.folds < 2) throw UsageError("--folds: expected at least 2");
  const Parts parts = read_parts(train);
  choose_metrics(train.options);
  ProgressBar bar(train.log_every, train.quiet);
  watch_interrupts();
  const FoldRun run = run_folds(train.options, parts.train.set, settings.folds, settings.stratified,
                                [&](const quern::Progress& p) { return bar.update(p); });
  bar.finish();
  std::printf("round   ");
  for (const FoldCurve& c : run.curves) std::printf("  %22s", (c.set + " " + c.metric).c_str());
  std::printf("\n");
  const std::size_t rounds = run.curves.empty() ? 0 : run.curves[0].mean.size();
  const std::size_t step = (std::max)(rounds / 20, std::size_t{1});
  for (std::size_t r = 0; r < rounds; ++r) {
    if ((r + 1) % step != 0 && r != 0 && r + 1 != rounds) continue;
    std::printf("%-8zu", r + 1);
    for (const FoldCurve& c : run.curves)
      std::printf("  %22s", format("%.6g +- %.2g", c.mean[r], c.sd[r]).c_str());
    std::printf("\n");
  }
  if (run.best_round >= 0)
    std::printf("best round: %lld of %d, by the last metric\n",
                static_cast<long long>(run.best_round + 1), train.options.num_round);
  return 0;
}

}  // namespace gbdt
