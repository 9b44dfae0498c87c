// SPDX-License-Identifier: Apache-2.0

/// \file
/// The rounds of boosting: prepares data and model, makes rounds, measures, calls back, stops.

#ifndef QUERN_BOOSTING_TRAINER_HPP
#define QUERN_BOOSTING_TRAINER_HPP

#include "quern/boosting/evaluation.hpp"
#include "quern/boosting/history.hpp"
#include "quern/boosting/linear_rounds.hpp"
#include "quern/boosting/model.hpp"
#include "quern/boosting/objective.hpp"
#include "quern/boosting/options.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/boosting/train_state.hpp"
#include "quern/boosting/tree_rounds.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/progress.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/paged_dataset.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// The objective that a model was trained with.
template <class = void>
[[nodiscard]] inline std::unique_ptr<Objective> objective_of(const Model& model) {
  return make_objective(model.objective, model.outputs, model.objective_params);
}

/// One run of boosting.
template <class Lazy = void>
class BasicTrainer {
 public:
  /// \p before: the model to go on from, or null.
  BasicTrainer(const Options& options, const Model* before) : before_(before) {
    state_.options = options.settled();
  }

  [[nodiscard]] Trained train(const tree::Dataset& data, const FitOptions& fit) {
    prepare(data, nullptr, fit);
    return run(fit);
  }

  /// On rows in pages. The cuts are theirs: max_bin is not looked at.
  [[nodiscard]] Trained train(const tree::PagedDataset& rows, const FitOptions& fit) {
    prepare(rows.data, &rows, fit);
    return run(fit);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr const char* function = "quern::boosting::Booster::fit";

  [[nodiscard]] Trained run(const FitOptions& fit) {
    const std::int32_t rounds = state_.options.num_round;
    Trained result;
    bool go_on = true;
    for (std::int32_t r = 0; r < rounds && go_on; ++r) {
      const auto start = Clock::now();
      round(r, fit);
      evaluation_.measure(state_, history_);
      history_.seconds.push_back(seconds_since(start));
      result.cancelled = !detail::tell_progress(fit, history_, r + 1, rounds);
      const bool stop = stop_early(), wanted = call_back(r + 1, fit);
      go_on = !result.cancelled && !stop && wanted;
    }
    if (watch_ && watch_->best() >= 0) settle_best(fit.early_stopping.save_best);
    result.model = std::move(state_.model);
    result.history = std::move(history_);
    return result;
  }

  static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  // --- before the first round -------------------------------------------------------------------

  /// What needs the values of the training rows.
  void check_paged() const {
    const Options& options = state_.options;
    if (options.is_linear() || options.is_dart())
      throw ValueError(
          error_text(function, "booster", "gbtree for rows in pages", options.booster));
    if (options.linear_tree)
      throw ValueError(error_text(function, "linear_tree", "false for rows in pages", "true"));
    if (!options.is_binned())
      throw ValueError(
          error_text(function, "tree_method", "hist for rows in pages", options.tree_method));
    if (before_ != nullptr)
      throw ValueError(
          error_text(function, "continue_training", "false for rows in pages", "true"));
  }

  /// \p paged: null where \p data has the features.
  void prepare(const tree::Dataset& data, const tree::PagedDataset* paged, const FitOptions& fit) {
    const Options& options = state_.options;
    options.check(function);
    if (paged != nullptr) check_paged();
    data.check(function);
    if (data.rows() == 0) throw ShapeError(error_text(function, "features", "at least one row", 0));
    check_labels_given("labels", data, detail::targets_of(data));
    check_weights(data);
    check_constraints(data);
    detail::SetState& train = state_.train;
    train.name = "train";
    train.data = &data;
    train.targets = detail::targets_of(data);
    state_.objective = options.make_objective(detail::classes_of(function, options, train.targets));
    state_.objective->check(train.targets);
    weigh_classes();
    start_model(data);
    tree::detail::check_base_margin(function, "base_margin", data, state_.model.outputs);
    first_round_ = static_cast<std::uint64_t>(state_.model.rounds());
    if (options.is_binned()) {
      const auto start = Clock::now();
      train.binned = paged != nullptr
                         ? paged->matrix()
                         : tree::bin(data, options.max_bin, {.threads = options.nthread});
      history_.binning_seconds = seconds_since(start);
    }
    train.margins = paged != nullptr ? constant_margins(data) : start_margins(data);
    state_.gradients = core::Buffer<tree::GradientPair>(
        static_cast<std::size_t>(data.rows() * state_.objective->outputs()));
    for (const EvalSet& set : fit.eval_sets) add_eval_set(set);
    evaluation_.prepare(state_, fit.eval_train, history_);
    prepare_early_stopping(fit);
    if (options.is_linear()) {
      rounds_ = std::make_unique<detail::BasicLinearRounds<Lazy>>(state_);
    } else {
      rounds_ = std::make_unique<detail::BasicTreeRounds<Lazy>>(state_);
    }
  }

  static void check_labels_given(const std::string& what, const tree::Dataset& data,
                                 const Targets& targets) {
    if (targets.rows() != data.rows())
      throw ShapeError(
          error_text(function, what, std::to_string(data.rows()) + " (the rows)", targets.rows()));
  }

  /// Rows without any weight teach nothing.
  static void check_weights(const tree::Dataset& data) {
    if (!data.weights.empty() &&
        std::all_of(data.weights.begin(), data.weights.end(), [](float w) { return w == 0.0f; }))
      throw ValueError(error_text(function, "weights", "one above 0 at least", "zeros only"));
  }

  /// Training weights: the rows' own times those of their classes.
  void weigh_classes() {
    const std::vector<double>& by_class = state_.options.class_weight;
    if (by_class.empty()) return;
    const bool binary = state_.options.objective.starts_with("binary:");
    if (!binary && !state_.options.objective.starts_with("multi:"))
      throw ValueError(error_text(function, "class_weight", "none for " + state_.options.objective,
                                  by_class.size()));
    const auto classes = static_cast<std::size_t>(binary ? 2 : state_.objective->outputs());
    if (by_class.size() != classes)
      throw ShapeError(error_text(function, "class_weight",
                                  std::to_string(classes) + " (the classes)", by_class.size()));
    Targets& targets = state_.train.targets;
    for (std::int64_t i = 0; i < targets.rows(); ++i) {
      const auto c = static_cast<std::size_t>(targets.label(i) + 0.5f);
      state_.class_weights.push_back(targets.weight(i) * static_cast<float>(by_class[c]));
    }
    targets.weights = state_.class_weights;
  }

  void check_constraints(const tree::Dataset& data) const {
    const auto given = static_cast<std::int64_t>(state_.options.monotone_constraints.size());
    if (given != 0 && given != data.cols())
      throw ShapeError(error_text(function, "monotone_constraints",
                                  std::to_string(data.cols()) + " (the features) or none", given));
    for (std::size_t f = 0; given != 0 && f < data.feature_kinds.size(); ++f)
      if (data.feature_kinds[f] == tree::FeatureKind::categorical &&
          state_.options.monotone_constraints[f] != 0)
        throw ValueError(error_text(function, "monotone_constraints",
                                    "0 for categorical feature " + std::to_string(f),
                                    static_cast<int>(state_.options.monotone_constraints[f])));
    for (std::size_t f = 0; f < data.feature_kinds.size(); ++f) {
      if (data.feature_kinds[f] != tree::FeatureKind::categorical) continue;
      const std::string feature = " for categorical feature " + std::to_string(f);
      if (state_.options.tree_method == "exact")
        throw ValueError(error_text(function, "tree_method", "hist" + feature, "exact"));
      if (state_.options.is_linear())
        throw ValueError(error_text(function, "booster", "trees" + feature, "gblinear"));
    }
    for (const auto& group : state_.options.interaction_constraints)
      for (const std::int32_t f : group)
        if (f >= data.cols())
          throw ShapeError(error_text(function, "interaction_constraints",
                                      "features below " + std::to_string(data.cols()), f));
  }

  void start_model(const tree::Dataset& data) {
    Model& model = state_.model;
    if (before_ != nullptr && (!before_->trees.empty() || before_->is_linear())) {
      model = *before_;
      check_continues(data);
      keep_rounds(model.used_rounds());
      model.objective_params = state_.options.objective_params();
      return;
    }
    const Objective& objective = *state_.objective;
    model = Model();
    model.objective = state_.options.objective;
    model.objective_params = state_.options.objective_params();
    model.outputs = objective.outputs();
    if (!state_.options.is_linear()) model.parallel_trees = state_.options.num_parallel_tree;
    model.features = data.cols();
    model.feature_names = data.feature_names;
    model.feature_kinds = data.feature_kinds;
    model.categories = data.categories;
    const bool doubles = std::holds_alternative<MatrixView<const double>>(data.features) ||
                         std::holds_alternative<tree::CsrView<double>>(data.features);
    model.input_type = doubles ? InputType::float64 : InputType::float32;
    const std::optional<double> score = state_.options.base_score;
    model.base_margin = score ? std::vector<double>(static_cast<std::size_t>(model.outputs),
                                                    objective.margin_of(*score))
                              : objective.start(state_.train.targets);
    // Margins are floats: what training starts from is what prediction starts from.
    for (double& m : model.base_margin) m = static_cast<double>(static_cast<float>(m));
  }

  void check_continues(const tree::Dataset& data) const {
    const Model& model = state_.model;
    if (model.features != data.cols())
      throw ShapeError(error_text(function, "features",
                                  std::to_string(model.features) + " columns, as the model has",
                                  data.cols()));
    if (model.objective != state_.options.objective || model.outputs != state_.objective->outputs())
      throw ValueError(error_text(function, "objective", model.objective + ", as the model has",
                                  state_.options.objective));
    if (model.is_linear() != state_.options.is_linear())
      throw ValueError(error_text(function, "booster",
                                  model.is_linear() ? "gblinear, as the model is linear"
                                                    : "gbtree or dart, as the model has trees",
                                  state_.options.booster));
    if (!model.is_linear() && model.parallel_trees != state_.options.num_parallel_tree)
      throw ValueError(error_text(function, "num_parallel_tree",
                                  std::to_string(model.parallel_trees) + ", as the model has",
                                  state_.options.num_parallel_tree));
  }

  /// Cuts the model after its first \p rounds rounds.
  void keep_rounds(std::int64_t rounds) {
    Model& model = state_.model;
    const auto keep = static_cast<std::size_t>(rounds * model.trees_per_round());
    model.trees.resize(keep);
    model.tree_outputs.resize(keep);
    if (!model.tree_weights.empty()) model.tree_weights.resize(keep);
    model.best_round = -1;
  }

  /// start_margins() of a model without trees.
  [[nodiscard]] std::vector<float> constant_margins(const tree::Dataset& data) const {
    const auto k = static_cast<std::size_t>(state_.model.outputs);
    std::vector<float> margins(static_cast<std::size_t>(data.rows()) * k);
    const bool own = !data.base_margin.empty();
    for (std::size_t i = 0; i < margins.size(); ++i)
      margins[i] = own ? data.base_margin[i] : static_cast<float>(state_.model.base_margin[i % k]);
    return margins;
  }

  /// Margins (rows, outputs) before the first new tree.
  [[nodiscard]] std::vector<float> start_margins(const tree::Dataset& data) const {
    const std::int64_t k = state_.model.outputs, rows = data.rows();
    std::vector<float> margins(static_cast<std::size_t>(rows * k));
    Predictor(state_.model)
        .margins(data, MatrixView<float>(margins.data(), {rows, k}),
                 {.threads = state_.options.nthread});
    return margins;
  }

  /// Kinds that an evaluation set states are those of the training rows.
  void check_kinds(const EvalSet& set) const {
    const std::vector<tree::FeatureKind>& kinds = set.data->feature_kinds;
    const std::vector<tree::FeatureKind>& own = state_.model.feature_kinds;
    for (std::size_t f = 0; f < kinds.size(); ++f) {
      const tree::FeatureKind expected = own.empty() ? tree::FeatureKind::numeric : own[f];
      if (kinds[f] == expected) continue;
      const bool numeric = expected == tree::FeatureKind::numeric;
      throw ValueError(
          error_text(function, "kind of feature " + std::to_string(f) + " of " + set.name,
                     numeric ? "numeric, as in training" : "categorical, as in training",
                     numeric ? "categorical" : "numeric"));
    }
  }

  void add_eval_set(const EvalSet& set) {
    if (set.data == nullptr)
      throw ValueError(error_text(function, "data of " + set.name, "a data set", "null"));
    const tree::Dataset& d = *set.data;
    d.check(function);
    const Targets targets = detail::targets_of(d);
    check_labels_given("labels of " + set.name, d, targets);
    if (d.cols() != state_.model.features)
      throw ShapeError(error_text(function, "features of " + set.name,
                                  std::to_string(state_.model.features) + " columns", d.cols()));
    check_kinds(set);
    tree::detail::check_base_margin(function, "base_margin of " + set.name, d,
                                    state_.model.outputs);
    state_.objective->check(targets);
    detail::SetState state;
    state.name = set.name;
    state.data = &d;
    state.targets = targets;
    if (state_.options.is_binned())
      state.binned = tree::bin(d, state_.train.binned.cuts,
                               {.threads = state_.options.nthread, .fill_blocks = false});
    state.margins = start_margins(d);
    state_.evals.push_back(std::move(state));
  }

  void prepare_early_stopping(const FitOptions& fit) {
    const std::int32_t patience = state_.options.early_stopping_rounds;
    if (patience == 0) return;
    if (fit.eval_sets.empty())
      throw ValueError(
          error_text(function, "early_stopping_rounds", "0 without evaluation sets", patience));
    const EarlyStopping& wanted = fit.early_stopping;
    detail::expect_option(detail::is_nonnegative(wanted.min_delta), function, "min_delta",
                          "a finite number >= 0", wanted.min_delta);
    if (history_.curves.empty())
      throw ValueError(
          error_text(function, "early_stopping_rounds", "0 without a metric", patience));
    followed_ = detail::followed_curve(function, history_, wanted);
    const bool larger = evaluation_.metric_of(followed_).larger_is_better;
    watch_.emplace(patience, wanted.min_delta, wanted.maximize.value_or(larger));
  }

  // --- a round ----------------------------------------------------------------------------------

  void round(std::int64_t done, const FitOptions& fit) {
    state_.learning_rate = state_.options.learning_rate;
    for (const std::shared_ptr<Callback>& callback : fit.callbacks)
      callback->before_round(view(done), state_.learning_rate);
    if (!(state_.learning_rate > 0 && detail::is_nonnegative(state_.learning_rate)))
      throw ValueError(error_text(function, "learning rate of round " + std::to_string(done),
                                  "a finite number > 0", state_.learning_rate));
    state_.round = first_round_ + static_cast<std::uint64_t>(done);
    rounds_->round(state_.round);
  }

  [[nodiscard]] RoundView view(std::int64_t done) const {
    return {done, state_.options.num_round, state_.model, history_};
  }

  /// False when a callback wants to stop.
  bool call_back(std::int64_t done, const FitOptions& fit) const {
    bool go_on = true;
    for (const std::shared_ptr<Callback>& callback : fit.callbacks)
      go_on = callback->after_round(view(done)) && go_on;
    return go_on;
  }

  /// True when the curve has not improved for long enough; the best round is kept in mind.
  bool stop_early() {
    if (!watch_) return false;
    const Curve& curve = history_.curves[followed_];
    // Not a number: no round could ever be told better (an empty set, one class alone for auc).
    if (is_nan_bits(curve.values.back()))
      throw ValueError(error_text(function, curve.set + " " + curve.metric,
                                  "a number, as early stopping follows it", curve.values.back()));
    if (watch_->take(curve.values.back())) rounds_->mark_best();
    history_.best_round = static_cast<std::int64_t>(first_round_) + watch_->best();
    if (!state_.model.is_linear()) state_.model.best_round = history_.best_round;
    return watch_->done();
  }

  void settle_best(bool save_best) {
    if (rounds_->return_to_best(history_.best_round)) return;
    if (save_best) keep_rounds(history_.best_round + 1);
  }

  const Model* before_;
  detail::TrainState state_;
  detail::Evaluation evaluation_;
  std::unique_ptr<detail::RoundMaker> rounds_;
  std::uint64_t first_round_ = 0;  ///< rounds that the model had before
  std::optional<detail::StopWatch> watch_;
  std::size_t followed_ = 0;  ///< the curve of early stopping
  History history_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Trainer = BasicTrainer<>;

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_TRAINER_HPP
