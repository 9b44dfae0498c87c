// SPDX-License-Identifier: Apache-2.0

/// \file
/// Cross-validation: metrics by round on rows that training did not see, and the round to stop at.

#ifndef QUERN_BOOSTING_CROSS_VALIDATION_HPP
#define QUERN_BOOSTING_CROSS_VALIDATION_HPP

#include "quern/boosting/evaluation.hpp"
#include "quern/boosting/history.hpp"
#include "quern/boosting/options.hpp"
#include "quern/boosting/trainer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/folds.hpp"
#include "quern/core/progress.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/row_subset.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

struct CrossValidationOptions {
  std::int64_t folds = 5;
  bool stratified = false;                ///< spread each label's rows evenly
  std::vector<std::int64_t> groups = {};  ///< (rows) rows with one number stay together; empty:
                                          ///< the data set's ranking groups, where it has some
  std::vector<Fold> given_folds = {};     ///< instead of all this: the rows that each fold tests
  std::uint64_t seed = 0;                 ///< of the folds
  EarlyStopping early_stopping = {};      ///< metric, min_delta, maximize; of the folds' means
  ProgressCallback progress = {};         ///< after each round of each fold; false cancels
  bool keep_models = false;
};

/// Mean and standard deviation over the folds of one metric on one set, by round.
struct FoldCurve {
  std::string set;  ///< "train" or "test"
  std::string metric;
  std::vector<double> mean;
  std::vector<double> sd;  ///< of the folds as a population (divided by their number)
  bool larger_is_better = false;
};

struct CrossValidation {
  std::vector<FoldCurve> curves;  ///< "train", then "test", each with every metric
  std::int64_t best_round = -1;   ///< of early stopping, counted from 0; else -1. The curves end
                                  ///< there.
  std::vector<Fold> folds;        ///< rows that each fold tested
  std::vector<Model> models;      ///< of the folds, where they are kept
};

namespace detail {

inline constexpr const char* cross_validate_name = "quern::boosting::cross_validate";

[[nodiscard]] inline std::vector<Fold> choose_folds(const tree::Dataset& data,
                                                    const CrossValidationOptions& cv) {
  const auto expect_length = [&](const char* what, std::size_t got) {
    if (static_cast<std::int64_t>(got) != data.rows())
      throw ShapeError(
          error_text(cross_validate_name, what, std::to_string(data.rows()) + " (the rows)", got));
  };
  for (std::size_t k = 0; k < cv.given_folds.size(); ++k) {
    if (cv.given_folds[k].empty())
      throw ShapeError(error_text(cross_validate_name, "given_folds[" + std::to_string(k) + "]",
                                  "at least one row", 0));
  }
  if (!cv.given_folds.empty()) return cv.given_folds;
  if (!cv.groups.empty() || !data.group_offsets.empty()) {
    std::vector<std::int64_t> groups = cv.groups;
    for (std::size_t g = 0;
         groups.size() < static_cast<std::size_t>(data.rows()) && g + 1 < data.group_offsets.size();
         ++g)
      groups.resize(static_cast<std::size_t>(data.group_offsets[g + 1]),
                    static_cast<std::int64_t>(g));
    expect_length("groups", groups.size());
    return make_grouped_folds(groups, cv.folds, cv.seed);
  }
  if (!cv.stratified) return make_folds(data.rows(), cv.folds, cv.seed);
  expect_length("labels", data.labels.size());
  return make_stratified_folds(data.labels, cv.folds, cv.seed);
}

/// Curves over the folds; all runs have the same curves and lengths.
[[nodiscard]] inline std::vector<FoldCurve> fold_curves(const std::vector<History>& runs) {
  std::vector<FoldCurve> curves;
  const auto n = static_cast<double>(runs.size());
  for (std::size_t c = 0; c < runs.front().curves.size(); ++c) {
    const Curve& like = runs.front().curves[c];
    FoldCurve curve{like.set, like.metric, {}, {}, like.larger_is_better};
    for (std::size_t r = 0; r < like.values.size(); ++r) {
      double sum = 0, squares = 0;
      for (const History& run : runs) sum += run.curves[c].values[r];
      for (const History& run : runs) {
        const double d = run.curves[c].values[r] - sum / n;
        squares += d * d;
      }
      curve.mean.push_back(sum / n);
      curve.sd.push_back(std::sqrt(squares / n));
    }
    curves.push_back(std::move(curve));
  }
  return curves;
}

/// Classes that all folds must agree on, though one may lack the last.
inline void settle_classes(Options& options, const tree::Dataset& data) {
  if (!options.objective.starts_with("multi:") || options.num_class > 0) return;
  float top = 1;
  for (const float y : data.labels) top = (std::max)(top, y);
  options.num_class = top < 65536 ? static_cast<std::int32_t>(top) + 1 : 0;
}

/// Follows the mean of the folds' test metric as one run would follow its own.
inline void stop_early(const Options& options, const CrossValidationOptions& cv,
                       CrossValidation& result) {
  if (options.early_stopping_rounds == 0 || options.num_round == 0) return;
  std::size_t followed = result.curves.size();
  for (std::size_t c = 0; c < result.curves.size(); ++c) {
    const FoldCurve& curve = result.curves[c];
    if (curve.set == "test" &&
        (cv.early_stopping.metric.empty() || curve.metric == cv.early_stopping.metric))
      followed = c;
  }
  if (followed == result.curves.size())
    throw ValueError(error_text(cross_validate_name, "early_stopping metric", "one of eval_metric",
                                cv.early_stopping.metric));
  const bool larger = cv.early_stopping.maximize.value_or(result.curves[followed].larger_is_better);
  StopWatch watch(options.early_stopping_rounds, cv.early_stopping.min_delta, larger);
  for (const double value : result.curves[followed].mean) {
    watch.take(value);
    if (watch.done()) break;
  }
  result.best_round = watch.best();
  for (FoldCurve& curve : result.curves) {
    curve.mean.resize(static_cast<std::size_t>(watch.best() + 1));
    curve.sd.resize(static_cast<std::size_t>(watch.best() + 1));
  }
}

}  // namespace detail

/// Trains once for each fold on the other rows and reports means and deviations by round. With
/// `options.early_stopping_rounds` the mean test metric decides the best round, where the curves
/// end then; the folds themselves train all rounds. Deterministic, as training is. Throws what
/// Booster::fit throws, ValueError or ShapeError for folds that do not fit the rows, and Cancelled.
template <class = void>
[[nodiscard]] inline CrossValidation cross_validate(const Options& options,
                                                    const tree::Dataset& data,
                                                    const CrossValidationOptions& cv = {}) {
  options.check(detail::cross_validate_name);
  data.check(detail::cross_validate_name);
  Options fold_options = options;
  fold_options.early_stopping_rounds = 0;
  detail::settle_classes(fold_options, data);
  CrossValidation result;
  result.folds = detail::choose_folds(data, cv);
  std::vector<History> runs;
  const auto rounds = static_cast<std::int64_t>(options.num_round);
  for (Fold& fold : result.folds) {
    std::sort(fold.begin(), fold.end());
    const tree::RowSubset train(data, other_rows(fold, data.rows()));
    const tree::RowSubset test(data, fold);
    FitOptions fit;
    fit.eval_sets = {{"test", &test.data()}};
    fit.eval_train = true;
    if (cv.progress) {
      const auto before = static_cast<std::int64_t>(runs.size()) * rounds;
      const auto total = static_cast<std::int64_t>(result.folds.size()) * rounds;
      fit.progress = [&cv, before, total](const Progress& p) {
        return cv.progress({"rounds of all folds", before + p.done, total, p.metrics});
      };
    }
    Trained trained = Trainer(fold_options, nullptr).train(train.data(), fit);
    if (trained.cancelled)
      throw Cancelled("quern::boosting::cross_validate: cancelled by the progress callback");
    if (cv.keep_models) result.models.push_back(std::move(trained.model));
    runs.push_back(std::move(trained.history));
  }
  result.curves = detail::fold_curves(runs);
  detail::stop_early(options, cv, result);
  return result;
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_CROSS_VALIDATION_HPP
