// SPDX-License-Identifier: Apache-2.0

/// \file
/// A model compiled for prediction: const, thread-safe, fast for batches and for single rows.

#ifndef QUERN_BOOSTING_PREDICTOR_HPP
#define QUERN_BOOSTING_PREDICTOR_HPP

#include "quern/boosting/linear_predict.hpp"
#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/packed_forest.hpp"
#include "quern/tree/predict.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

struct PredictOptions {
  std::int64_t rounds = -1;  ///< only the first so many rounds; -1: the best, else all
  int threads = 0;           ///< 0: the default number
};

/// Predicts with a model as it was when this was made; the model itself is not kept.
///
///     const quern::boosting::Predictor predictor(model);
///     predictor.margins(quern::view(x), quern::view(out));     // rows x outputs
///     predictor.margins_of_row(row, margins);                  // one row, no allocation
///
/// Sums are in double, in the order of the trees, and rounded once: a row has the same bits alone
/// and in a batch, for any number of threads and at any SIMD level.
class Predictor {
 public:
  /// Throws what Model::check throws.
  explicit Predictor(const Model& model)
      : rounds_(model.rounds()),
        used_rounds_(model.used_rounds()),
        trees_per_round_(model.trees_per_round()),
        feature_names_(model.feature_names),
        linear_{model.linear_weights, model.base_margin, model.features, model.input_type} {
    model.check("quern::boosting::Predictor");
    forest_ = tree::PackedForest(tree::ForestSource{.trees = model.trees,
                                                    .tree_outputs = model.tree_outputs,
                                                    .tree_weights = model.tree_weights,
                                                    .base = model.base_margin,
                                                    .features = model.features,
                                                    .input_type = model.input_type});
  }

  [[nodiscard]] std::int64_t features() const noexcept { return forest_.features; }
  [[nodiscard]] std::int64_t outputs() const noexcept { return forest_.outputs(); }
  [[nodiscard]] std::int64_t rounds() const noexcept { return rounds_; }

  /// Margins of every row. \p features: (rows, features), dense in any order or CSR, NaN is
  /// missing; \p out: (rows, outputs) of float or double. ShapeError where shapes do not fit,
  /// ValueError for rounds that the model does not have.
  template <class Out>
  void margins(const tree::FeatureView& features, MatrixView<Out> out,
               const PredictOptions& options = {}) const {
    if (!linear_.weights.empty()) return predict_linear(linear_, features, out, options.threads);
    tree::predict(forest_, features, out,
                  {.trees = trees_of(options.rounds), .threads = options.threads});
  }

  /// The same for a data set: its own base margins, where it has some, take the place of the
  /// model's. ValueError where both have feature names and they differ.
  template <class Out>
  void margins(const tree::Dataset& data, MatrixView<Out> out,
               const PredictOptions& options = {}) const {
    check_names(data.feature_names);
    if (!data.base_margin.empty() &&
        static_cast<std::int64_t>(data.base_margin.size()) != data.rows() * outputs())
      throw ShapeError(error_text("quern::boosting::Predictor::margins", "base_margin",
                                  "rows * outputs values", data.base_margin.size()));
    if (data.base_margin.empty()) return margins(data.features, out, options);
    std::vector<double> sums(data.base_margin.size());
    const MatrixView<double> sum(sums.data(), {out.rows(), out.cols()});
    margins(data.features, sum, options);
    std::size_t i = 0;
    for (Index r = 0; r < out.rows(); ++r) {
      for (Index k = 0; k < out.cols(); ++k, ++i) {
        const double own = static_cast<double>(data.base_margin[i]);
        out(r, k) = static_cast<Out>(sums[i] - forest_.base[static_cast<std::size_t>(k)] + own);
      }
    }
  }

  /// Margins of one row, the bits that a batch would give. \p row: (features), \p out: (outputs).
  template <class T, class Out>
  void margins_of_row(std::span<const T> row, std::span<Out> out, std::int64_t rounds = -1) const {
    if (!linear_.weights.empty()) return predict_linear_one(linear_, row, out);
    tree::predict_one(forest_, row, out, trees_of(rounds));
  }

  /// Number of the leaf in every tree. \p out: (rows, trees of the rounds that are used).
  void leaves(const tree::FeatureView& features, MatrixView<std::int32_t> out,
              const PredictOptions& options = {}) const {
    tree::predict_leaves(forest_, features, out,
                         {.trees = trees_of(options.rounds), .threads = options.threads});
  }

  /// Trees that prediction with so many rounds uses.
  [[nodiscard]] std::int64_t trees_of(std::int64_t rounds) const {
    if (rounds < -1 || rounds > rounds_)
      throw ValueError(error_text("quern::boosting::Predictor", "rounds",
                                  "-1 or 0.." + std::to_string(rounds_), rounds));
    return (rounds < 0 ? used_rounds_ : rounds) * trees_per_round_;
  }

 private:
  void check_names(const std::vector<std::string>& names) const {
    if (names.empty() || feature_names_.empty()) return;
    if (names.size() != feature_names_.size())
      throw ShapeError(error_text("quern::boosting::Predictor", "feature_names",
                                  std::to_string(feature_names_.size()) + " names", names.size()));
    for (std::size_t f = 0; f < names.size(); ++f) {
      if (names[f] == feature_names_[f]) continue;
      throw ValueError(error_text("quern::boosting::Predictor",
                                  "feature_names[" + std::to_string(f) + "]",
                                  "'" + feature_names_[f] + "'", "'" + names[f] + "'"));
    }
  }

  std::int64_t rounds_ = 0;
  std::int64_t used_rounds_ = 0;
  std::int64_t trees_per_round_ = 1;
  std::vector<std::string> feature_names_;
  LinearFunction linear_;  ///< without weights: the model is one of trees
  tree::PackedForest forest_;
};

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_PREDICTOR_HPP
