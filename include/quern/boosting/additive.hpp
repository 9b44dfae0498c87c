// SPDX-License-Identifier: Apache-2.0

/// \file
/// Boosting of any weak learner: whatever can be fitted to weighted targets.

#ifndef QUERN_BOOSTING_ADDITIVE_HPP
#define QUERN_BOOSTING_ADDITIVE_HPP

#include "quern/boosting/evaluation.hpp"
#include "quern/boosting/history.hpp"
#include "quern/boosting/metric.hpp"
#include "quern/boosting/model.hpp"
#include "quern/boosting/model_io.hpp"
#include "quern/boosting/objective.hpp"
#include "quern/boosting/options.hpp"
#include "quern/boosting/train_state.hpp"
#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/random.hpp"
#include "quern/core/saving.hpp"
#include "quern/tree/dataset.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// A regression on weighted targets. `fit` learns from the features (rows, features), targets
/// (rows), weights (rows, >= 0; a row of weight 0 is to be ignored) and a seed for what is random
/// in it; `predict` is const, overwrites (rows) values and may be called from several threads.
template <class L>
concept WeakLearner = std::copyable<L> &&
    requires(L learner, const L& fitted, const tree::FeatureView& features,
             std::span<const float> column, std::uint64_t seed, std::span<float> out) {
  learner.fit(features, column, column, seed);
  fitted.predict(features, out);
};

/// Gradient boosting of a learner of the user's. A round fits, for each output, a copy of the
/// learner to the targets -g / h with the weights h: the weighted least squares are the
/// second-order approximation of the loss, so the learner makes a Newton step in function space;
/// the learning rate shortens it.
///
///     AdditiveBooster<Stump> booster({.objective = "binary:logistic", .num_round = 50}, Stump());
///     booster.fit(data);
///     auto p = booster.predict(data.features);
///
/// Of the options, those of trees are not used; subsample draws rows by giving the others weight 0.
template <WeakLearner Learner>
class AdditiveBooster {
 public:
  explicit AdditiveBooster(Options options = {}, Learner learner = {})
      : options_(std::move(options)), prototype_(std::move(learner)) {
    options_.check(function);
  }

  /// Trains from the beginning. Callbacks and checkpoints are for models of trees; evaluation sets,
  /// early stopping and progress are as Booster::fit has them. Errors and cancelled runs leave the
  /// booster as it was.
  const History& fit(const tree::Dataset& data, const FitOptions& fit = {}) {
    if (!fit.callbacks.empty())
      throw ValueError(error_text(function, "callbacks", "none", fit.callbacks.size()));
    Run run;
    prepare(run, data, fit);
    bool go_on = true;
    for (std::int32_t r = 0; r < options_.num_round && go_on; ++r) {
      round(run, static_cast<std::uint64_t>(r));
      run.evaluation.measure(run.state, run.history);
      go_on = !detail::tell_progress(fit, run.history, r + 1, options_.num_round) ? cancelled(fit)
                                                                                  : !stop(run);
    }
    objective_ = std::move(run.state.objective);
    named_ = Model();
    named_.objective = options_.objective;
    named_.objective_params = options_.objective_params();
    rate_ = options_.learning_rate;
    base_ = std::move(run.state.model.base_margin);
    learners_ = std::move(run.learners);
    features_ = data.cols();
    history_ = std::move(run.history);
    used_ = history_.best_round >= 0 ? history_.best_round + 1 : rounds();
    return history_;
  }

  /// Margins (rows, outputs), with the rounds up to the best one.
  [[nodiscard]] NdArray<float, 2> predict_margin(const tree::FeatureView& features) const {
    if (objective_ == nullptr)
      throw ValueError(error_text(function, "booster", "a fitted one", "one that is not"));
    const std::int64_t k = outputs();
    const std::int64_t rows = rows_of(features), cols = cols_of(features);
    if (cols != features_)
      throw ShapeError(
          error_text(function, "features", std::to_string(features_) + " columns", cols));
    NdArray<float, 2> out({rows, k});
    std::vector<float> values(static_cast<std::size_t>(rows));
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t c = 0; c < k; ++c)
        out(i, c) = static_cast<float>(base_[static_cast<std::size_t>(c)]);
    }
    for (std::int64_t i = 0; i < used_ * k; ++i) {
      const Learner& learner = learners_[static_cast<std::size_t>(i)];
      learner.predict(features, std::span<float>(values));
      add(out.data(), values, i % k, k, rate_);
    }
    return out;
  }
  /// Predictions (rows, outputs): values or probabilities.
  [[nodiscard]] NdArray<float, 2> predict(const tree::FeatureView& features) const {
    NdArray<float, 2> out = predict_margin(features);
    objective_->transform(out.data(), out.extent(0));
    return out;
  }

  /// Saves what prediction needs, exactly; an existing file is replaced at the end or not at all.
  /// ValueError before fit. Does not compile for learners that are not Saveable.
  void save(const std::string& path) const {
    expect_saveable();
    if (objective_ == nullptr)
      throw ValueError(error_text("quern::boosting::AdditiveBooster::save", "booster",
                                  "a fitted one", "one that is not"));
    ArchiveWriter out(archive_kind, archive_version);
    detail::write_objective(out, named_);
    out.array<double>("base_margin", base_);
    out.scalar<double>("learning_rate", rate_);
    out.scalar<std::int64_t>("features", features_);
    out.scalar<std::int64_t>("used_rounds", used_);
    out.scalar<std::int64_t>("learners", static_cast<std::int64_t>(learners_.size()));
    for (std::size_t i = 0; i < learners_.size(); ++i)
      save_member(out, "learner " + std::to_string(i), learners_[i]);
    out.save(path);
  }
  /// Loads what save() wrote; IoError or ParseError leave the booster as it was. Its history is not
  /// kept, and training starts from the beginning.
  void load(const std::string& path) {
    expect_saveable();
    const ArchiveReader in = ArchiveReader::load(path);
    in.expect(archive_kind, archive_version);
    AdditiveBooster loaded(options_, prototype_);
    detail::read_objective(in, loaded.named_);
    loaded.base_ = in.array<double>("base_margin");
    loaded.rate_ = in.scalar<double>("learning_rate");
    loaded.features_ = in.scalar<std::int64_t>("features");
    loaded.used_ = in.scalar<std::int64_t>("used_rounds");
    loaded.read_learners(in);
    *this = std::move(loaded);
  }

  [[nodiscard]] std::int64_t outputs() const noexcept {
    return static_cast<std::int64_t>(base_.size());
  }
  [[nodiscard]] std::int64_t rounds() const noexcept {
    return base_.empty() ? 0 : static_cast<std::int64_t>(learners_.size()) / outputs();
  }
  /// The fitted learners, round-major, then by output.
  [[nodiscard]] std::span<const Learner> learners() const noexcept { return learners_; }
  [[nodiscard]] const History& history() const noexcept { return history_; }

 private:
  static constexpr const char* function = "quern::boosting::AdditiveBooster";
  static constexpr const char* archive_kind = "boosting.additive";
  static constexpr std::uint32_t archive_version = 1;

  static constexpr void expect_saveable() {
    static_assert(Saveable<Learner>,
                  "saving and loading need kind(), save(ArchiveWriter&) const and "
                  "load(const ArchiveReader&) of the learner");
  }

  void read_learners(const ArchiveReader& in) {
    const auto count = in.scalar<std::int64_t>("learners");
    const auto k = static_cast<std::int64_t>(base_.size());
    for (const double b : base_)
      if (!is_finite_bits(b)) in.fail_section("base_margin", "finite numbers", std::to_string(b));
    if (!is_finite_bits(rate_))
      in.fail_section("learning_rate", "a finite number", std::to_string(rate_));
    if (k == 0) in.fail_section("base_margin", "at least one number", "none");
    if (count < 0 || count % k != 0)
      in.fail_section("learners", "whole rounds of " + std::to_string(k), std::to_string(count));
    if (used_ < 0 || used_ > count / k)
      in.fail_section("used_rounds", "rounds that are there", std::to_string(used_));
    if (features_ < 0) in.fail_section("features", "0 or more", std::to_string(features_));
    try {
      objective_ =
          make_objective(named_.objective, static_cast<std::int32_t>(k), named_.objective_params);
    } catch (const ValueError& e) {
      in.fail_section("objective", "one that is known", e.what());
    }
    if (objective_->outputs() != k)
      in.fail_section("base_margin", std::to_string(objective_->outputs()) + " numbers",
                      std::to_string(k));
    for (std::int64_t i = 0; i < count; ++i) {
      learners_.push_back(prototype_);
      load_member(in, "learner " + std::to_string(i), learners_.back());
    }
  }

  struct Run {
    detail::TrainState state;
    detail::Evaluation evaluation;
    std::optional<detail::StopWatch> watch;
    std::size_t followed = 0;
    std::vector<Learner> learners;
    std::vector<float> targets, weights, values;
    History history;
  };

  static std::int64_t rows_of(const tree::FeatureView& features) {
    return std::visit([](const auto& x) { return tree::detail::rows_of(x); }, features);
  }
  static std::int64_t cols_of(const tree::FeatureView& features) {
    return std::visit([](const auto& x) { return tree::detail::cols_of(x); }, features);
  }

  static void add(float* margins, const std::vector<float>& values, std::int64_t output,
                  std::int64_t outputs, double learning_rate) {
    const auto rate = static_cast<float>(learning_rate);
    for (std::size_t i = 0; i < values.size(); ++i)
      margins[static_cast<std::int64_t>(i) * outputs + output] += rate * values[i];
  }

  detail::SetState set_state(const std::string& name, const tree::Dataset& data,
                             const Run& run) const {
    data.check(function);
    detail::SetState set;
    set.name = name;
    set.data = &data;
    set.targets = detail::targets_of(data);
    if (set.rows() != data.rows() || data.rows() == 0)
      throw ShapeError(error_text(function, "labels of " + name,
                                  std::to_string(data.rows()) + " (the rows, at least one)",
                                  set.rows()));
    run.state.objective->check(set.targets);
    tree::detail::check_base_margin(function, "base_margin of " + name, data,
                                    run.state.objective->outputs());
    set.margins = data.base_margin;
    return set;
  }

  void start_margins(detail::SetState& set, const std::vector<double>& base) const {
    if (!set.margins.empty()) return;
    for (std::int64_t i = 0; i < set.rows(); ++i) {
      for (const double b : base) set.margins.push_back(static_cast<float>(b));
    }
  }

  void prepare(Run& run, const tree::Dataset& data, const FitOptions& fit) const {
    detail::TrainState& state = run.state;
    state.options = options_;
    state.objective =
        options_.make_objective(detail::classes_of(function, options_, detail::targets_of(data)));
    state.train = set_state("train", data, run);
    state.model.outputs = state.objective->outputs();
    const auto k = static_cast<std::size_t>(state.model.outputs);
    state.model.base_margin =
        options_.base_score
            ? std::vector<double>(k, state.objective->margin_of(*options_.base_score))
            : state.objective->start(state.train.targets);
    for (double& m : state.model.base_margin) m = static_cast<double>(static_cast<float>(m));
    start_margins(state.train, state.model.base_margin);
    const auto rows = static_cast<std::size_t>(data.rows());
    state.gradients = core::Buffer<tree::GradientPair>(rows * k);
    for (const EvalSet& set : fit.eval_sets) {
      if (set.data == nullptr || set.data->cols() != data.cols())
        throw ShapeError(error_text(function, "data of " + set.name,
                                    std::to_string(data.cols()) + " columns", "others"));
      state.evals.push_back(set_state(set.name, *set.data, run));
      start_margins(state.evals.back(), state.model.base_margin);
    }
    run.targets.resize(rows);
    run.weights.resize(rows);
    run.evaluation.prepare(state, fit.eval_train, run.history);
    if (options_.early_stopping_rounds == 0) return;
    if (fit.eval_sets.empty() || run.history.curves.empty())
      throw ValueError(error_text(function, "early_stopping_rounds",
                                  "0 without evaluation sets and metrics",
                                  options_.early_stopping_rounds));
    run.followed = detail::followed_curve(function, run.history, fit.early_stopping);
    run.watch.emplace(
        options_.early_stopping_rounds, fit.early_stopping.min_delta,
        fit.early_stopping.maximize.value_or(run.history.curves[run.followed].larger_is_better));
  }

  void round(Run& run, std::uint64_t number) const {
    detail::TrainState& state = run.state;
    state.round = number;
    detail::find_gradients(state);
    const std::int64_t k = state.model.outputs;
    for (std::int64_t c = 0; c < k; ++c) {
      const auto pairs = state.gradients_of(c);
      Philox rng(options_.seed, "weak learner rows", number);
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        const bool in = options_.subsample >= 1 || rng.bernoulli(options_.subsample);
        const bool useful = in && pairs[i].h > 0;
        run.targets[i] = useful ? -pairs[i].g / pairs[i].h : 0.0f;
        run.weights[i] = useful ? pairs[i].h : 0.0f;
      }
      const std::uint64_t stream = number * 65536 + static_cast<std::uint64_t>(c);
      run.learners.push_back(prototype_);
      run.learners.back().fit(state.train.data->features, std::span<const float>(run.targets),
                              std::span<const float>(run.weights),
                              Philox(options_.seed, "weak learner", stream).next_u64());
      add_learner(run, state.train, c, k);
      for (detail::SetState& set : state.evals) add_learner(run, set, c, k);
    }
  }

  void add_learner(Run& run, detail::SetState& set, std::int64_t output, std::int64_t k) const {
    run.values.resize(static_cast<std::size_t>(set.rows()));
    const Learner& learner = run.learners.back();
    learner.predict(set.data->features, std::span<float>(run.values));
    add(set.margins.data(), run.values, output, k, options_.learning_rate);
  }

  static bool cancelled(const FitOptions& fit) {
    if (!fit.keep_when_cancelled)
      throw Cancelled(std::string(function) + "::fit: cancelled by the progress callback");
    return false;
  }

  static bool stop(Run& run) {
    if (!run.watch) return false;
    run.watch->take(run.history.curves[run.followed].values.back());
    run.history.best_round = run.watch->best();
    return run.watch->done();
  }

  Options options_;
  Learner prototype_;
  std::unique_ptr<Objective> objective_;
  Model named_;               // of which only the objective is used, for saving
  double rate_ = 0;           // learning rate of the learners
  std::vector<double> base_;  // (outputs)
  std::vector<Learner> learners_;
  std::int64_t features_ = 0;
  std::int64_t used_ = 0;  // rounds that prediction uses
  History history_;
};

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_ADDITIVE_HPP
