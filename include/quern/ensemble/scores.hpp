// SPDX-License-Identifier: Apache-2.0

/// \file
/// How good predictions are: the share of right classes, the share of variance that is explained;
/// and how much of that each feature is worth, by shuffling it.
///
/// L. Breiman, "Random forests", Machine Learning 45 (2001), section 10; with any learner: A.
/// Fisher, C. Rudin, F. Dominici, "All models are wrong, but many are useful", JMLR 20 (2019).

#ifndef QUERN_ENSEMBLE_SCORES_HPP
#define QUERN_ENSEMBLE_SCORES_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/ensemble/any_learner.hpp"
#include "quern/ensemble/learner.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

namespace detail {

inline void check_score_weights(std::string_view function, std::span<const float> weights,
                                Index rows) {
  if (!weights.empty())
    expect_size(function, "weights", static_cast<Index>(weights.size()), rows, "(the rows)");
}

}  // namespace detail

/// Weighted share of rows whose class is the most likely one; 0 where no row has a weight. \p
/// scores: (rows, classes); \p weights: (rows) or none.
[[nodiscard]] inline double accuracy(MatrixView<const float> scores,
                                     std::span<const std::int32_t> truth,
                                     std::span<const float> weights = {}) {
  expect_size("quern::ensemble::accuracy", "truth", static_cast<Index>(truth.size()), scores.rows(),
              "(the rows)");
  detail::check_score_weights("quern::ensemble::accuracy", weights, scores.rows());
  std::vector<std::int32_t> classes(truth.size());
  most_likely(scores, classes);
  double right = 0, all = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const double w = detail::weight_of(weights, i);
    right += classes[i] == truth[i] ? w : 0;
    all += w;
  }
  return all > 0 ? right / all : 0;
}

/// 1 - (squared errors) / (squares about the mean), weighted; of a constant truth 1 where it is met
/// and else 0; 0 where no row has a weight. \p values: (rows, 1); \p weights: (rows) or none.
[[nodiscard]] inline double r_squared(MatrixView<const float> values, std::span<const float> truth,
                                      std::span<const float> weights = {}) {
  expect_size("quern::ensemble::r_squared", "truth", static_cast<Index>(truth.size()),
              values.rows(), "(the rows)");
  expect_shape("quern::ensemble::r_squared", "values", values, {values.rows(), 1});
  detail::check_score_weights("quern::ensemble::r_squared", weights, values.rows());
  double mean = 0, all = 0, errors = 0, squares = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    mean += detail::weight_of(weights, i) * static_cast<double>(truth[i]);
    all += detail::weight_of(weights, i);
  }
  if (!(all > 0)) return 0;
  mean /= all;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const auto y = static_cast<double>(truth[i]);
    const double e = y - static_cast<double>(values(static_cast<Index>(i), 0));
    errors += detail::weight_of(weights, i) * e * e;
    squares += detail::weight_of(weights, i) * (y - mean) * (y - mean);
  }
  if (squares > 0) return 1 - errors / squares;
  return errors == 0 ? 1 : 0;
}

namespace detail {

inline double score_of(Classification, MatrixView<const float> scores, Classes y,
                       std::span<const float> weights) {
  return accuracy(scores, y.codes, weights);
}
inline double score_of(Regression, MatrixView<const float> scores, std::span<const float> y,
                       std::span<const float> weights) {
  return r_squared(scores, y, weights);
}

}  // namespace detail

struct ImportanceOptions {
  std::int32_t repeats = 5;  ///< shuffles of each feature, >= 1
  std::uint64_t seed = 0;    ///< of the shuffles
};

/// What shuffling did. Positive: the feature was useful.
struct FeatureImportance {
  double score = 0;               ///< on the rows as they are
  std::vector<double> mean;       ///< (features): mean loss of score
  std::vector<double> deviation;  ///< (features): its standard deviation over the repeats
};

/// How much accuracy (of numbers: r_squared) any fitted learner loses on rows (best: rows that it
/// was not fitted to) when a feature's column is shuffled. The same bits for any number of threads.
template <class Task, class L>
[[nodiscard]] FeatureImportance shuffle_importance(const L& learner, Features x,
                                                   typename Task::Targets y,
                                                   const ImportanceOptions& options = {}) {
  constexpr const char* function = "quern::ensemble::shuffle_importance";
  detail::check_rows(function, x, y.size(), {});
  expect_in_range(function, "repeats", options.repeats, 1, 1 << 20);
  const auto score = [&](Features rows) {
    NdArray<float, 2> scores({x.rows(), Task::outputs(y)});
    Task::scores(learner, rows, scores.view());
    return detail::score_of(Task{}, scores.view(), y, {});
  };
  FeatureImportance result{score(x), std::vector<double>(static_cast<std::size_t>(x.cols())),
                           std::vector<double>(static_cast<std::size_t>(x.cols()))};
  parallel_for(x.cols(), [&](std::int64_t f) {
    NdArray<float, 2> copy(x);
    double sum = 0, squares = 0;
    for (std::int32_t r = 0; r < options.repeats; ++r) {
      std::vector<std::int64_t> order(static_cast<std::size_t>(x.rows()));
      std::iota(order.begin(), order.end(), std::int64_t{0});
      const auto stream = static_cast<std::uint64_t>(f * options.repeats + r);
      Philox(options.seed, "shuffle importance", stream).shuffle(order);
      for (Index i = 0; i < x.rows(); ++i) copy(i, f) = x(order[static_cast<std::size_t>(i)], f);
      const double drop = result.score - score(copy.view());
      sum += drop;
      squares += drop * drop;
    }
    const double mean = sum / options.repeats;
    result.mean[static_cast<std::size_t>(f)] = mean;
    result.deviation[static_cast<std::size_t>(f)] =
        std::sqrt((std::max)(0.0, squares / options.repeats - mean * mean));
  });
  return result;
}

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_SCORES_HPP
