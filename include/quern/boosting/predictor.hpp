// SPDX-License-Identifier: Apache-2.0

/// \file
/// A model compiled for prediction: const, thread-safe, fast for batches and for single rows.

#ifndef QUERN_BOOSTING_PREDICTOR_HPP
#define QUERN_BOOSTING_PREDICTOR_HPP

#include "quern/boosting/linear_predict.hpp"
#include "quern/boosting/model.hpp"
#include "quern/boosting/transform.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/packed_forest.hpp"
#include "quern/tree/predict.hpp"
#include "quern/tree/scratch.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

struct PredictOptions {
  std::int64_t rounds = -1;  ///< only the first so many rounds; -1: the best, else all
  int threads = 0;           ///< 0: the default number
};

/// What a predictor reads rows from: a MatrixView or CsrView of float or double, or a FeatureView.
template <class View>
concept Features = std::convertible_to<const View&, tree::FeatureView>;

/// Predicts with a model as it was when this was made; the model itself is not kept.
///
///     const quern::boosting::Predictor predictor(model);
///     predictor.predict(rows, n, out);                // n rows of floats, probabilities and such
///     predictor.predict_row(row, out);                // one row, no allocation
///     predictor.margins(quern::view(x), quern::view(out));      // any matrix: rows x outputs
///
/// Sums are in double, in the order of the trees, and rounded once: a row has the same bits alone
/// and in a batch, for any number of threads and at any SIMD level. (Predictions at the level that
/// is active: e^x of softmax differs between levels within 2 units of the last place.) Every method
/// is const and thread-safe, takes no lock, and allocates nothing once it was called with so many
/// threads (batches of linear models excepted).
class Predictor {
 public:
  /// Throws what Model::check throws.
  explicit Predictor(const Model& model)
      : rounds_(model.rounds()),
        used_rounds_(model.used_rounds()),
        trees_per_round_(model.trees_per_round()),
        objective_(model.objective),
        link_(link_of(model.objective)),
        feature_names_(model.feature_names),
        linear_{model.linear_weights, model.base_margin, model.features, model.input_type} {
    const std::vector<double>& levels = model.objective_params.quantile_alpha;
    if (link_ == Link::sorted && !std::is_sorted(levels.begin(), levels.end()))
      link_ = Link::identity;
    model.check("quern::boosting::Predictor");
    forest_ = tree::PackedForest(forest_source(model));
  }

  [[nodiscard]] std::int64_t features() const noexcept { return forest_.features; }
  /// Margins that a row has.
  [[nodiscard]] std::int64_t outputs() const noexcept { return forest_.outputs(); }
  /// Numbers that a row's prediction has: 1 for multi:softmax, else as many as margins.
  [[nodiscard]] std::int64_t prediction_outputs() const noexcept {
    return link_outputs(link_.value_or(Link::identity), outputs());
  }
  [[nodiscard]] std::int64_t rounds() const noexcept { return rounds_; }

  /// Margins of every row. \p features: (rows, features), dense in any order or CSR, NaN is
  /// missing; \p out: (rows, outputs) of float or double. ShapeError where shapes do not fit,
  /// ValueError for rounds that the model does not have.
  template <Features View, class Out>
  void margins(const View& features, MatrixView<Out> out,
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
    tree::detail::check_base_margin("quern::boosting::Predictor::margins", "base_margin", data,
                                    outputs());
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

  /// The same for \p n rows of floats or doubles one after the other: \p rows (n * features), \p
  /// out (n * outputs).
  template <class T, class Out>
  void margins(std::span<const T> rows, std::int64_t n, std::span<Out> out,
               const PredictOptions& options = {}) const {
    margins(rows_view("margins", rows, n), out_view("margins", out, n, outputs()), options);
  }

  /// Predictions of every row: values, probabilities, counts; the class for multi:softmax. \p
  /// features as in margins(), \p out: (rows, prediction_outputs()). ValueError where the model's
  /// objective is not one that link_of() knows.
  template <Features View, class Out>
  void predict(const View& features, MatrixView<Out> out,
               const PredictOptions& options = {}) const {
    const Link link = known_link();
    if (out.cols() != prediction_outputs())
      throw ShapeError(error_text("quern::boosting::Predictor::predict", "out",
                                  std::to_string(prediction_outputs()) + " columns", out.cols()));
    const std::int64_t k = outputs();
    if (!linear_.weights.empty()) return predict_linear_model(features, out, link, options.threads);
    tree::predict_tiles("quern::boosting::Predictor::predict", forest_, features, out.rows(),
                        {.trees = trees_of(options.rounds), .threads = options.threads},
                        [&](std::int64_t first, std::int64_t rows, const double* sums) {
                          const tree::detail::ScratchLease lease(*forest_.scratch);
                          Out* margins = room<Out>(lease, rows * k);
                          tree::gather_sums(sums, rows, k, margins);
                          apply_link(link, margins, rows, k);
                          for (std::int64_t r = 0; r < rows; ++r) {
                            for (Index c = 0; c < out.cols(); ++c)
                              out(first + r, c) = margins[r * out.cols() + c];
                          }
                        });
  }
  /// The same for \p n rows of floats or doubles one after the other: \p rows (n * features), \p
  /// out (n * prediction_outputs()).
  template <class T, class Out>
  void predict(std::span<const T> rows, std::int64_t n, std::span<Out> out,
               const PredictOptions& options = {}) const {
    predict(rows_view("predict", rows, n), out_view("predict", out, n, prediction_outputs()),
            options);
  }

  /// Prediction of one row, the bits that a batch would give. \p row: (features), \p out:
  /// (prediction_outputs()).
  template <class T, class Out>
  void predict_row(std::span<const T> row, std::span<Out> out, std::int64_t rounds = -1) const {
    const Link link = known_link();
    if (link != Link::argmax) {
      margins_of_row(row, out, rounds);
      return apply_link(link, out.data(), 1, outputs());
    }
    const tree::detail::ScratchLease lease(*forest_.scratch);
    const std::span<Out> margins(room<Out>(lease, outputs()), static_cast<std::size_t>(outputs()));
    if (out.size() != 1)
      throw ShapeError(
          error_text("quern::boosting::Predictor::predict_row", "out", "1 value", out.size()));
    margins_of_row(row, margins, rounds);
    apply_link(link, margins.data(), 1, outputs());
    out[0] = margins[0];
  }

  /// Number of the leaf in every tree. \p out: (rows, trees of the rounds that are used).
  template <Features View>
  void leaves(const View& features, MatrixView<std::int32_t> out,
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
  template <class View, class Out>
  void predict_linear_model(const View& features, MatrixView<Out> out, Link link,
                            int threads) const {
    std::vector<Out> margins(static_cast<std::size_t>(out.rows() * outputs()));
    predict_linear(linear_, features, MatrixView<Out>(margins.data(), {out.rows(), outputs()}),
                   threads);
    apply_link(link, margins.data(), out.rows(), outputs());
    std::size_t i = 0;
    for (Index r = 0; r < out.rows(); ++r) {
      for (Index c = 0; c < out.cols(); ++c) out(r, c) = margins[i++];
    }
  }
  [[nodiscard]] Link known_link() const {
    if (link_) return *link_;
    throw ValueError(error_text("quern::boosting::Predictor::predict", "objective",
                                "one whose predictions are known (else ask for margins)",
                                "'" + objective_ + "'"));
  }
  template <class T>
  [[nodiscard]] MatrixView<const T> rows_view(const char* function, std::span<const T> rows,
                                              std::int64_t n) const {
    check_count(function, "rows", rows.size(), n, features());
    return MatrixView<const T>(rows.data(), {n, features()});
  }
  template <class Out>
  [[nodiscard]] static MatrixView<Out> out_view(const char* function, std::span<Out> out,
                                                std::int64_t n, std::int64_t columns) {
    check_count(function, "out", out.size(), n, columns);
    return MatrixView<Out>(out.data(), {n, columns});
  }
  static void check_count(const char* function, const char* argument, std::size_t size,
                          std::int64_t n, std::int64_t columns) {
    // Divides, since n * columns may be more than a number holds.
    const auto count = static_cast<std::int64_t>(size);
    const bool fits =
        n >= 0 && (columns == 0 ? count == 0 : count % columns == 0 && count / columns == n);
    if (fits) return;
    throw ShapeError(error_text("quern::boosting::Predictor::" + std::string(function), argument,
                                std::to_string(n) + " times " + std::to_string(columns) + " values",
                                size));
  }
  template <class T>
  [[nodiscard]] static T* room(const tree::detail::ScratchLease& lease, std::int64_t size) {
    return reinterpret_cast<T*>(
        lease.scratch().at_least(static_cast<std::size_t>(size) * sizeof(T)));
  }

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
  std::string objective_;
  std::optional<Link> link_;
  std::vector<std::string> feature_names_;
  LinearFunction linear_;  ///< without weights: the model is one of trees
  tree::PackedForest forest_;
};

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_PREDICTOR_HPP
