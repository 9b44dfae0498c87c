// SPDX-License-Identifier: Apache-2.0

/// \file
/// Permutation importance: how much worse a metric gets when a feature's column is shuffled.
///
/// L. Breiman, "Random forests", Machine Learning 45 (2001), section 10, with any model and metric:
/// A. Fisher, C. Rudin, F. Dominici, "All models are wrong, but many are useful", JMLR 20 (2019).

#ifndef QUERN_BOOSTING_PERMUTATION_HPP
#define QUERN_BOOSTING_PERMUTATION_HPP

#include "quern/boosting/metric.hpp"
#include "quern/boosting/model.hpp"
#include "quern/boosting/objective.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/boosting/transform.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/progress.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/detail/copy_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

struct PermutationOptions {
  std::int32_t repeats = 5;  ///< shuffles of each feature
  std::uint64_t seed = 0;    ///< of the shuffles
  int threads = 0;           ///< 0: the default number; never changes a result
  std::int64_t rounds = -1;  ///< only the first so many rounds of the model; -1: the best, else all
  ProgressCallback progress = {};  ///< told after each feature; false cancels (Cancelled)
};

/// What shuffling did. Positive: the feature was useful.
struct PermutationImportance {
  double score = 0;               ///< the metric on the data as they are
  std::vector<double> mean;       ///< (features): mean by which the metric got worse
  std::vector<double> deviation;  ///< (features): its standard deviation over the repeats
  NdArray<double, 2> drops;       ///< (features, repeats)
};

namespace detail {

/// Rows that are predicted together; a block's copy of the features stays in the cache.
inline constexpr std::int64_t permutation_block = 512;

template <class T>
T value_at(const MatrixView<const T>& x, std::int64_t r, std::int64_t f) {
  return x(r, f);
}
template <class T>
T value_at(const tree::CsrView<T>& x, std::int64_t r, std::int64_t f) {
  const auto first = x.columns.begin() + x.row_offsets[static_cast<std::size_t>(r)];
  const auto last = x.columns.begin() + x.row_offsets[static_cast<std::size_t>(r) + 1];
  const auto at = std::lower_bound(first, last, static_cast<std::int32_t>(f));
  if (at == last || *at != f) return std::numeric_limits<T>::quiet_NaN();
  return x.values[static_cast<std::size_t>(at - x.columns.begin())];
}

inline bool uses_feature(const Model& model, std::int64_t feature) {
  for (std::int32_t k = 0; model.is_linear() && k < model.outputs; ++k) {
    const std::int64_t at = feature * model.outputs + k;
    if (model.linear_weights[static_cast<std::size_t>(at)] != 0) return true;
  }
  for (const tree::Tree& tree : model.trees) {
    for (const tree::Node& n : tree.nodes)
      if (!n.is_leaf() && n.feature == feature) return true;
    const std::vector<std::int32_t>& linear = tree.linear.features;
    if (std::find(linear.begin(), linear.end(), static_cast<std::int32_t>(feature)) != linear.end())
      return true;
  }
  return false;
}

/// Predicts and judges with one feature's column in another order.
template <class View, class Score>
class Shuffler {
 public:
  Shuffler(const Model& model, const View& x, const tree::Dataset& data, const Score& score,
           const PermutationOptions& options)
      : model_(model),
        predictor_(model),
        x_(x),
        data_(data),
        score_(score),
        options_(options),
        rows_(tree::detail::rows_of(x)),
        link_(link_of(model.objective).value_or(Link::identity)) {
    if (link_ == Link::argmax) link_ = Link::softmax;  // metrics judge probabilities
  }

  /// Scores of the feature's repeats; -1: one, of the data as they are.
  std::vector<double> scores(std::int64_t feature) const {
    const auto repeats = static_cast<std::size_t>(feature < 0 ? 1 : options_.repeats);
    std::vector<std::vector<std::int64_t>> orders(repeats);
    std::vector<std::vector<float>> predictions(repeats);
    parallel_for(
        static_cast<std::int64_t>(repeats),
        [&](std::int64_t i) {
          const auto repeat = static_cast<std::size_t>(i);
          predictions[repeat].resize(static_cast<std::size_t>(rows_ * model_.outputs));
          if (feature < 0) return;
          orders[repeat].resize(static_cast<std::size_t>(rows_));
          std::iota(orders[repeat].begin(), orders[repeat].end(), std::int64_t{0});
          Philox(options_.seed, "permutation importance",
                 static_cast<std::uint64_t>(feature * options_.repeats + i))
              .shuffle(orders[repeat]);
        },
        options_.threads);
    const std::int64_t blocks = block_count(rows_, permutation_block);
    parallel_for(
        blocks * static_cast<std::int64_t>(repeats),
        [&](std::int64_t i) {
          const auto repeat = static_cast<std::size_t>(i / blocks);
          predict(feature, orders[repeat], block_range(rows_, permutation_block, i % blocks),
                  predictions[repeat].data());
        },
        options_.threads);
    std::vector<double> result(repeats);
    Targets targets;
    targets.labels = data_.labels;
    targets.weights = data_.weights;
    parallel_for(
        static_cast<std::int64_t>(repeats),
        [&](std::int64_t i) {
          const auto repeat = static_cast<std::size_t>(i);
          result[repeat] =
              score_(std::span<const float>(predictions[repeat]), model_.outputs, targets);
        },
        options_.threads);
    return result;
  }

 private:
  void predict(std::int64_t feature, const std::vector<std::int64_t>& order, BlockRange range,
               float* predictions) const {
    using T = decltype(value_at(x_, 0, 0));
    const std::int64_t cols = tree::detail::cols_of(x_), k = model_.outputs;
    std::vector<T> copy(static_cast<std::size_t>(range.size() * cols));
    tree::detail::copy_rows(x_, range, copy.data());
    for (std::int64_t r = range.begin; feature >= 0 && r < range.end; ++r) {
      copy[static_cast<std::size_t>((r - range.begin) * cols + feature)] =
          value_at(x_, order[static_cast<std::size_t>(r)], feature);
    }
    float* out = predictions + range.begin * k;
    predictor_.margins(tree::FeatureView(MatrixView<const T>(copy.data(), {range.size(), cols})),
                       MatrixView<float>(out, {range.size(), k}),
                       {.rounds = options_.rounds, .threads = 1});
    if (!data_.base_margin.empty()) use_base_margin(range, out);
    apply_link(link_, out, range.size(), k);
  }

  /// The rows' own base margins take the place of the model's.
  void use_base_margin(BlockRange range, float* margins) const {
    const std::size_t k = model_.base_margin.size();
    const std::size_t first = static_cast<std::size_t>(range.begin) * k;
    for (std::size_t i = 0; i < static_cast<std::size_t>(range.size()) * k; ++i) {
      margins[i] = static_cast<float>(static_cast<double>(margins[i]) - model_.base_margin[i % k] +
                                      static_cast<double>(data_.base_margin[first + i]));
    }
  }

  const Model& model_;
  Predictor predictor_;
  const View& x_;
  const tree::Dataset& data_;
  const Score& score_;
  const PermutationOptions& options_;
  std::int64_t rows_;
  Link link_;
};

inline void keep_drops(PermutationImportance& result, std::int64_t feature,
                       const std::vector<double>& drops) {
  const auto f = static_cast<std::size_t>(feature);
  const auto n = static_cast<double>(drops.size());
  for (std::size_t i = 0; i < drops.size(); ++i) {
    result.drops(feature, static_cast<Index>(i)) = drops[i];
    result.mean[f] += drops[i] / n;
  }
  double squares = 0;
  for (const double d : drops) squares += (d - result.mean[f]) * (d - result.mean[f]);
  result.deviation[f] = std::sqrt(squares / n);
}

inline void check_permutation(const Model& model, const tree::Dataset& data,
                              const PermutationOptions& options) {
  static constexpr const char* function = "quern::boosting::permutation_importance";
  data.check(function);
  if (data.cols() != model.features)
    throw ShapeError(
        error_text(function, "features", std::to_string(model.features) + " columns", data.cols()));
  if (static_cast<std::int64_t>(data.labels.size()) != data.rows())
    throw ShapeError(error_text(function, "labels", "one a row", data.labels.size()));
  tree::detail::check_base_margin(function, "base_margin", data, model.outputs);
  if (options.repeats < 1)
    throw ValueError(error_text(function, "repeats", "at least 1", options.repeats));
}

}  // namespace detail

/// How much worse `score` gets when each feature is shuffled over the rows of \p data (best: rows
/// that the model was not trained on). `score(predictions, outputs, targets)` is any callable with
/// the signature of EvalMetric::Function, safe to call from several threads: predictions are
/// (rows, outputs), transformed (probabilities of classes for multi:softmax too). Features that the
/// model does not use get exactly 0. The same bits for any number of threads.
template <class Score>
[[nodiscard]] PermutationImportance permutation_importance(const Model& model,
                                                           const tree::Dataset& data,
                                                           const Score& score,
                                                           bool larger_is_better,
                                                           const PermutationOptions& options = {}) {
  detail::check_permutation(model, data, options);
  const auto features = static_cast<std::size_t>(model.features);
  PermutationImportance result;
  result.mean.assign(features, 0.0);
  result.deviation.assign(features, 0.0);
  result.drops = NdArray<double, 2>({model.features, std::int64_t{options.repeats}});
  std::visit(
      [&](const auto& x) {
        const detail::Shuffler shuffler(model, x, data, score, options);
        result.score = shuffler.scores(-1).front();
        for (std::int64_t f = 0; f < model.features; ++f) {
          report(options.progress, "quern::boosting::permutation_importance",
                 {.what = "shuffling features", .done = f, .total = model.features});
          if (!detail::uses_feature(model, f)) continue;
          std::vector<double> drops = shuffler.scores(f);
          for (double& d : drops) d = larger_is_better ? result.score - d : d - result.score;
          detail::keep_drops(result, f, drops);
        }
      },
      data.features);
  return result;
}

/// The same with a metric of make_metric(): "rmse", "logloss", "auc", …
template <class = void>
[[nodiscard]] inline PermutationImportance permutation_importance(
    const Model& model, const tree::Dataset& data, std::string_view metric,
    const PermutationOptions& options = {}) {
  const EvalMetric chosen = make_metric(metric, model.outputs);
  return permutation_importance(model, data, chosen.value, chosen.larger_is_better, options);
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_PERMUTATION_HPP
