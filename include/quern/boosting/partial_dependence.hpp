// SPDX-License-Identifier: Apache-2.0

/// \file
/// How a model's output depends on one or a few features, the others being as in some data.
///
/// J. H. Friedman, Greedy function approximation: a gradient boosting machine, Annals of Statistics
/// 29 (2001), section 8.2: the mean over the rows of what the model gives for them with the chosen
/// features set to a value.

#ifndef QUERN_BOOSTING_PARTIAL_DEPENDENCE_HPP
#define QUERN_BOOSTING_PARTIAL_DEPENDENCE_HPP

#include "quern/boosting/model.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/detail/copy_rows.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

struct PartialDependenceOptions {
  bool predictions = false;  ///< the mean of predictions (probabilities and such), not of margins
  std::int64_t rounds = -1;  ///< only the first so many rounds; -1: the best, else all
  int threads = 0;           ///< 0: the default number; never changes results
};

namespace detail {

inline constexpr std::int64_t dependence_block = 512;

/// Sums of one block's outputs, by weight, with \p columns set to \p values.
template <class View>
void add_dependence(const Predictor& predictor, const View& x, const std::vector<float>& weights,
                    BlockRange rows, std::span<const std::int32_t> columns,
                    MatrixView<const double> grid, Index point,
                    const PartialDependenceOptions& options, std::span<double> sums) {
  using T = typename tree::detail::SourceValue<View>::type;
  const std::int64_t features = predictor.features(), n = rows.size();
  const auto k = static_cast<std::int64_t>(sums.size());
  std::vector<T> values(static_cast<std::size_t>(n * features));
  std::vector<double> out(static_cast<std::size_t>(n * k));
  tree::detail::copy_rows(x, rows, values.data());
  for (std::size_t c = 0; c < columns.size(); ++c)
    for (std::int64_t r = 0; r < n; ++r)
      values[static_cast<std::size_t>(r * features + columns[c])] =
          static_cast<T>(grid(point, static_cast<Index>(c)));
  const PredictOptions how{.rounds = options.rounds, .threads = 1};
  if (options.predictions) {
    predictor.predict(std::span<const T>(values), n, std::span<double>(out), how);
  } else {
    predictor.margins(std::span<const T>(values), n, std::span<double>(out), how);
  }
  for (std::int64_t r = 0; r < n; ++r) {
    const double w = weights.empty()
                         ? 1
                         : static_cast<double>(weights[static_cast<std::size_t>(rows.begin + r)]);
    for (std::int64_t c = 0; c < k; ++c)
      sums[static_cast<std::size_t>(c)] += w * out[static_cast<std::size_t>(r * k + c)];
  }
}

inline void check_dependence(const Predictor& predictor, const tree::Dataset& data,
                             std::span<const std::int32_t> columns,
                             const MatrixView<const double>& grid) {
  static constexpr const char* function = "quern::boosting::partial_dependence";
  data.check(function);
  if (data.cols() != predictor.features())
    throw ShapeError(error_text(function, "features",
                                std::to_string(predictor.features()) + " columns", data.cols()));
  if (data.rows() == 0) throw ShapeError(error_text(function, "features", "at least one row", 0));
  if (columns.empty()) throw ShapeError(error_text(function, "columns", "at least one", 0));
  for (const std::int32_t c : columns)
    if (c < 0 || c >= predictor.features())
      throw ValueError(error_text(function, "columns",
                                  "features below " + std::to_string(predictor.features()), c));
  if (grid.cols() != static_cast<Index>(columns.size()))
    throw ShapeError(error_text(function, "grid",
                                std::to_string(columns.size()) + " columns, a feature each",
                                grid.cols()));
}

}  // namespace detail

/// (points, outputs): the mean over the rows of \p data, by their weights, of the model's margins
/// (or predictions) when the features \p columns are \p grid(point, ·) in every row. NaN in the
/// grid is a missing value. The labels and base margins of the data are not used.
///
///     const std::int32_t feature = 3;
///     const std::vector<double> values = {0, 1, 2};
///     auto curve = partial_dependence(model, data, {&feature, 1},
///                                     MatrixView<const double>(values.data(), {3, 1}));
///
/// Sums are over fixed blocks of rows: the same bits for any number of threads. Time is that of
/// predicting points times rows. ShapeError and ValueError where shapes, columns or rounds do not
/// fit the model, and where no row has weight.
template <class = void>
[[nodiscard]] inline NdArray<double, 2> partial_dependence(
    const Model& model, const tree::Dataset& data, std::span<const std::int32_t> columns,
    MatrixView<const double> grid, const PartialDependenceOptions& options = {}) {
  const Predictor predictor(model);
  detail::check_dependence(predictor, data, columns, grid);
  double weight = static_cast<double>(data.rows());
  if (!data.weights.empty()) {
    weight = 0;
    for (const float w : data.weights) weight += static_cast<double>(w);
  }
  if (!(weight > 0))
    throw ValueError(error_text("quern::boosting::partial_dependence", "weights",
                                "one above 0 at least", "zeros only"));
  const std::int64_t k = options.predictions ? predictor.prediction_outputs() : predictor.outputs();
  const std::int64_t blocks = block_count(data.rows(), detail::dependence_block);
  std::vector<double> parts(static_cast<std::size_t>(grid.rows() * blocks * k), 0.0);
  std::visit(
      [&](const auto& x) {
        parallel_for(
            grid.rows() * blocks,
            [&](std::int64_t task) {
              detail::add_dependence(
                  predictor, x, data.weights,
                  block_range(data.rows(), detail::dependence_block, task % blocks), columns, grid,
                  task / blocks, options,
                  std::span<double>(parts).subspan(static_cast<std::size_t>(task * k),
                                                   static_cast<std::size_t>(k)));
            },
            options.threads);
      },
      data.features);
  NdArray<double, 2> means({grid.rows(), k});
  for (Index p = 0; p < grid.rows(); ++p) {
    for (Index c = 0; c < k; ++c) {
      double sum = 0;
      for (std::int64_t b = 0; b < blocks; ++b)
        sum += parts[static_cast<std::size_t>((p * blocks + b) * k + c)];
      means(p, c) = sum / weight;
    }
  }
  return means;
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_PARTIAL_DEPENDENCE_HPP
