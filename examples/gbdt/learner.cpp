// SPDX-License-Identifier: Apache-2.0

#include "learner.hpp"

#include "quern/boosting/booster.hpp"
#include "quern/boosting/cross_validation.hpp"
#include "quern/boosting/explain.hpp"
#include "quern/boosting/permutation.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

namespace gbdt {

namespace boosting = quern::boosting;

TrainedRun run_training(const boosting::Options& options, const quern::tree::Dataset& train,
                        const quern::tree::Dataset* test, bool keep_when_cancelled,
                        const quern::ProgressCallback& progress) {
  boosting::FitOptions fit;
  if (test != nullptr) fit.eval_sets.push_back({"test", test});
  fit.eval_train = true;
  fit.progress = progress;
  fit.keep_when_cancelled = keep_when_cancelled;
  boosting::Booster booster(options);
  const auto start = std::chrono::steady_clock::now();
  const boosting::History& history = booster.fit(train, fit);
  TrainedRun run;
  run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  run.model = booster.model();
  for (const boosting::Curve& c : history.curves) run.curves.push_back({c.set, c.metric, c.values});
  run.binning_seconds = history.binning_seconds;
  // Not nothing, since it is divided by.
  run.round_seconds = std::accumulate(history.seconds.begin(), history.seconds.end(), 1e-9);
  run.best_round = history.best_round;
  return run;
}

std::string loss_of(const boosting::Options& options) {
  return std::string(options.make_objective((std::max)(options.num_class, 1))->default_metric());
}

FoldRun run_folds(const boosting::Options& options, const quern::tree::Dataset& data, int folds,
                  bool stratified, const quern::ProgressCallback& progress) {
  const boosting::CrossValidation cv = boosting::cross_validate(
      options, data,
      {.folds = folds, .stratified = stratified, .seed = options.seed, .progress = progress});
  FoldRun run;
  run.best_round = cv.best_round;
  for (const boosting::FoldCurve& c : cv.curves)
    run.curves.push_back({c.set, c.metric, c.mean, c.sd});
  return run;
}

quern::NdArray<float, 2> predict_margins(const boosting::Model& model,
                                         const quern::tree::Dataset& data, int threads) {
  const boosting::Predictor predictor(model);
  quern::NdArray<float, 2> out({data.rows(), predictor.outputs()});
  predictor.margins(data, out.view(), {.threads = threads});
  return out;
}

void transform_margins(const boosting::Model& model, quern::NdArray<float, 2>& margins) {
  boosting::objective_of(model)->transform(margins.data(), margins.extent(0));
}

quern::NdArray<std::int32_t, 2> predict_leaves(const boosting::Model& model,
                                               const quern::tree::Dataset& data, int threads) {
  const boosting::Predictor predictor(model);
  quern::NdArray<std::int32_t, 2> out({data.rows(), predictor.trees_of(-1)});
  predictor.leaves(data.features, out.view(), {.threads = threads});
  return out;
}

quern::NdArray<double, 3> shap_values(const boosting::Model& model,
                                      const quern::tree::Dataset& data, int threads) {
  quern::NdArray<double, 3> out({data.rows(), std::int64_t{model.outputs}, model.features + 1});
  boosting::shap_values(model, data.features, out.view(), {.threads = threads});
  return out;
}

quern::NdArray<double, 4> shap_interactions(const boosting::Model& model,
                                            const quern::tree::Dataset& data, int threads) {
  const std::int64_t n = model.features + 1;
  quern::NdArray<double, 4> out({data.rows(), std::int64_t{model.outputs}, n, n});
  boosting::shap_interactions(model, data.features, out.view(), {.threads = threads});
  return out;
}

Shuffled shuffle_features(const boosting::Model& model, const quern::tree::Dataset& data,
                          const std::string& metric, int repeats, std::uint64_t seed, int threads) {
  boosting::PermutationImportance got = boosting::permutation_importance(
      model, data, metric, {.repeats = repeats, .seed = seed, .threads = threads});
  return {got.score, std::move(got.mean), std::move(got.deviation)};
}

std::string simd_level() { return std::string(quern::simd::name(quern::simd::active_level())); }

}  // namespace gbdt
