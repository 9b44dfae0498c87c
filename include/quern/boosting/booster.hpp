// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradient boosting: train, predict, save, load.

#ifndef QUERN_BOOSTING_BOOSTER_HPP
#define QUERN_BOOSTING_BOOSTER_HPP

#include "quern/boosting/metric.hpp"
#include "quern/boosting/model.hpp"
#include "quern/boosting/model_io.hpp"
#include "quern/boosting/objective.hpp"
#include "quern/boosting/options.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/boosting/trainer.hpp"
#include "quern/boosting/transform.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/progress.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/eigen_dataset.hpp"
#include "quern/tree/paged_dataset.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// A gradient boosting machine over trees.
///
///     quern::boosting::Booster booster({.objective = "binary:logistic", .num_round = 50});
///     booster.fit(quern::tree::make_dataset(x, y));
///     auto p = booster.predict(quern::tree::make_dataset(x_test));
///     booster.save("model.quern");
///
/// Prediction is const, thread-safe and allocates nothing but its result.
template <class = void>
class BasicBooster {
 public:
  explicit BasicBooster(Options options = {}) : options_(options.settled()) {
    options_.check("quern::boosting::Booster");
  }
  /// A booster around a model, say one that another system trained.
  explicit BasicBooster(Model model, Options options = {}) : options_(options.settled()) {
    adopt(std::move(model));
  }

  /// Trains from the beginning, or goes on from the present model with `fit.continue_training`.
  /// Errors leave the model as it was; so does a cancelled run (Cancelled), unless
  /// `fit.keep_when_cancelled`.
  const History& fit(const tree::Dataset& train, const FitOptions& fit = {}) {
    return fit_rows(train, fit);
  }
  /// The same on rows that are larger than memory (tree::page_rows()): the bits of training in
  /// memory. max_bin is that of the pages. ValueError for boosters that need the rows' values:
  /// dart, gblinear, linear leaves, and to go on from a model.
  const History& fit(const tree::PagedDataset& train, const FitOptions& fit = {}) {
    return fit_rows(train, fit);
  }

  /// Predictions (rows, outputs): values, probabilities; for multi:softmax (rows, 1), the class.
  [[nodiscard]] NdArray<float, 2> predict(const tree::Dataset& data) const {
    NdArray<float, 2> out = predict_margin(data);
    if (link_of(model_.objective) == Link::argmax) {
      apply_link(Link::argmax, out.data(), out.extent(0), out.extent(1));
      NdArray<float, 2> classes({out.extent(0), 1});
      std::copy_n(out.data(), out.extent(0), classes.data());
      return classes;
    }
    objective_of(model_)->transform(out.data(), out.extent(0));
    return out;
  }
  template <class Derived>
  [[nodiscard]] NdArray<float, 2> predict(const Eigen::DenseBase<Derived>& features) const {
    return predict(tree::make_dataset(features.derived()));
  }

  /// Margins (rows, outputs), before any transformation. ShapeError when the number of features is
  /// not the model's, ValueError when both have feature names and they differ.
  [[nodiscard]] NdArray<float, 2> predict_margin(const tree::Dataset& data) const {
    expect_model("predict");
    NdArray<float, 2> out({data.rows(), std::int64_t{model_.outputs}});
    predictor_.margins(data, out.view(), {.threads = options_.nthread});
    return out;
  }

  /// Margins of one row, without allocating: \p row (features), \p out (outputs). The same bits as
  /// in a batch.
  template <class T>
  void predict_one(std::span<const T> row, std::span<float> out) const {
    expect_model("predict_one");
    predictor_.margins_of_row(row, out);
  }

  /// (rows, trees): the leaf that each row reaches, as node numbers.
  [[nodiscard]] NdArray<std::int32_t, 2> predict_leaves(const tree::Dataset& data) const {
    expect_model("predict_leaves");
    NdArray<std::int32_t, 2> out({data.rows(), predictor_.trees_of(-1)});
    predictor_.leaves(data.features, out.view(), {.threads = options_.nthread});
    return out;
  }

  /// Saves to quern's own format, exactly; an existing file is replaced at the end or not at all.
  /// ValueError before there is a model.
  void save(const std::string& path) const {
    expect_model("save");
    save_model(model_, path);
  }
  /// Loads what save() wrote; ParseError for anything else.
  void load(const std::string& path) { adopt(load_model(path)); }

  [[nodiscard]] const Model& model() const noexcept { return model_; }
  [[nodiscard]] const History& history() const noexcept { return history_; }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

 private:
  /// A model that nobody trained has no columns.
  void expect_model(const char* function) const {
    if (model_.features > 0 || model_.rounds() > 0) return;
    throw ValueError(error_text("quern::boosting::Booster::" + std::string(function), "model",
                                "one that was trained or loaded", "none"));
  }

  template <class Rows>
  const History& fit_rows(const Rows& train, const FitOptions& fit) {
    Trainer trainer(options_, fit.continue_training ? &model_ : nullptr);
    Trained trained = trainer.train(train, fit);
    if (trained.cancelled && !fit.keep_when_cancelled)
      throw Cancelled("quern::boosting::Booster::fit: cancelled by the progress callback");
    adopt(std::move(trained.model));
    history_ = std::move(trained.history);
    return history_;
  }

  void adopt(Model model) {
    Predictor predictor(model);  // throws before anything is given up
    model_ = std::move(model);
    predictor_ = std::move(predictor);
  }

  Options options_;
  Model model_;
  Predictor predictor_{Model()};
  History history_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Booster = BasicBooster<>;

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_BOOSTER_HPP
