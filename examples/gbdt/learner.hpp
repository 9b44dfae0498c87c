// SPDX-License-Identifier: Apache-2.0

/// \file
/// The calls into the library's kernels, in one source of their own: it takes longest to compile.

#ifndef QUERN_EXAMPLES_GBDT_LEARNER_HPP
#define QUERN_EXAMPLES_GBDT_LEARNER_HPP

#include "quern/boosting/model.hpp"
#include "quern/boosting/options.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/progress.hpp"
#include "quern/tree/dataset.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace gbdt {

/// Values of one metric on one set, by round.
struct MetricCurve {
  std::string set;
  std::string metric;
  std::vector<double> values;
};

/// What training left behind.
struct TrainedRun {
  quern::boosting::Model model;
  std::vector<MetricCurve> curves;
  double binning_seconds = 0;
  double round_seconds = 0;  ///< of all rounds, metrics included
  double seconds = 0;        ///< of everything
  std::int64_t best_round = -1;
};

/// Trains; \p test may be null. quern::Cancelled when \p progress cancels, unless
/// \p keep_when_cancelled.
[[nodiscard]] TrainedRun run_training(const quern::boosting::Options& options,
                                      const quern::tree::Dataset& train,
                                      const quern::tree::Dataset* test, bool keep_when_cancelled,
                                      const quern::ProgressCallback& progress);

/// Mean and deviation of one metric over folds, by round.
struct FoldCurve {
  std::string set;
  std::string metric;
  std::vector<double> mean, sd;
};
struct FoldRun {
  std::vector<FoldCurve> curves;
  std::int64_t best_round = -1;
};

/// Trains on every choice of folds but one.
[[nodiscard]] FoldRun run_folds(const quern::boosting::Options& options,
                                const quern::tree::Dataset& data, int folds, bool stratified,
                                const quern::ProgressCallback& progress);

/// Name of the metric that is the objective's own loss.
[[nodiscard]] std::string loss_of(const quern::boosting::Options& options);

/// Margins (rows, outputs).
[[nodiscard]] quern::NdArray<float, 2> predict_margins(const quern::boosting::Model& model,
                                                       const quern::tree::Dataset& data,
                                                       int threads);
/// Turns margins into values or probabilities, in place.
void transform_margins(const quern::boosting::Model& model, quern::NdArray<float, 2>& margins);

/// (rows, trees): the leaf that each row reaches.
[[nodiscard]] quern::NdArray<std::int32_t, 2> predict_leaves(const quern::boosting::Model& model,
                                                             const quern::tree::Dataset& data,
                                                             int threads);

/// Shapley values (rows, outputs, features + 1): what each feature adds to each margin.
[[nodiscard]] quern::NdArray<double, 3> shap_values(const quern::boosting::Model& model,
                                                    const quern::tree::Dataset& data, int threads);
/// Interactions (rows, outputs, features + 1, features + 1).
[[nodiscard]] quern::NdArray<double, 4> shap_interactions(const quern::boosting::Model& model,
                                                          const quern::tree::Dataset& data,
                                                          int threads);

/// By how much a metric gets worse when a feature is shuffled.
struct Shuffled {
  double score = 0;  ///< the metric on the data as they are
  std::vector<double> mean;
  std::vector<double> deviation;
};
[[nodiscard]] Shuffled shuffle_features(const quern::boosting::Model& model,
                                        const quern::tree::Dataset& data, const std::string& metric,
                                        int repeats, std::uint64_t seed, int threads);

/// SIMD level in use, by name.
[[nodiscard]] std::string simd_level();

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_LEARNER_HPP
