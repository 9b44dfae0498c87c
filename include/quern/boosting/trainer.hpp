// SPDX-License-Identifier: Apache-2.0

/// \file
/// The rounds of boosting: gradients, a tree for each output, margins, metrics, early stop.

#ifndef QUERN_BOOSTING_TRAINER_HPP
#define QUERN_BOOSTING_TRAINER_HPP

#include "quern/boosting/metric.hpp"
#include "quern/boosting/model.hpp"
#include "quern/boosting/objective.hpp"
#include "quern/boosting/options.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/progress.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/grow.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// Values of one metric on one data set, by round.
struct Curve {
  std::string set;
  std::string metric;
  std::vector<double> values;
};

/// What happened in training.
struct History {
  std::vector<Curve> curves;
  std::vector<double> seconds;  ///< by round
  double binning_seconds = 0;
  std::int64_t best_round = -1;  ///< of early stopping, else -1
};

/// A data set that metrics are reported on.
struct EvalSet {
  std::string name;
  const tree::Dataset* data = nullptr;
};

/// What one call of fit is given beside the data.
struct FitOptions {
  std::vector<EvalSet> eval_sets = {};
  bool eval_train = false;           ///< report metrics on the training rows too, as "train"
  ProgressCallback progress = {};    ///< after each round; false cancels
  bool continue_training = false;    ///< add rounds to the present model
  bool keep_when_cancelled = false;  ///< keep the rounds that were finished, do not throw
};

/// The result of a run.
struct Trained {
  Model model;
  History history;
  bool cancelled = false;
};

/// The objective that a model was trained with.
[[nodiscard]] inline std::unique_ptr<Objective> objective_of(const Model& model) {
  return make_objective(model.objective, model.outputs);
}

namespace detail {

/// Rows of an evaluation set as codes, and their margins so far.
struct EvalState {
  std::string name;
  Targets targets;
  tree::BinnedMatrix binned;
  std::vector<float> margins;  ///< (rows, outputs)
};

/// Adds the leaf that row \p row of \p data reaches, for every row: by codes, since every threshold
/// of \p tree is a cut.
class CodeWalker {
 public:
  CodeWalker(const tree::Tree& tree, const tree::Cuts& cuts) : tree_(&tree) {
    for (const tree::Node& node : tree.nodes) limits_.push_back(limit_of(node, cuts));
  }

  [[nodiscard]] double leaf(const tree::BinnedMatrix& data, std::int64_t row) const {
    std::int32_t i = 0;
    while (!tree_->node(i).is_leaf()) {
      const tree::Node& n = tree_->node(i);
      const int c = tree::code(data, row, n.feature);
      const bool left =
          c == tree::missing_code ? n.default_left : c <= limits_[static_cast<std::size_t>(i)];
      i = left ? n.left : n.right;
    }
    return tree_->node(i).value;
  }

 private:
  /// Highest code that goes left.
  static std::int32_t limit_of(const tree::Node& node, const tree::Cuts& cuts) {
    if (node.is_leaf()) return 0;
    const auto f = static_cast<std::size_t>(node.feature);
    const auto begin = cuts.values.begin() + cuts.offsets[f];
    const auto end = cuts.values.begin() + cuts.offsets[f + 1];
    return static_cast<std::int32_t>(std::upper_bound(begin, end, node.threshold) - begin) +
           (node.threshold >= static_cast<double>((std::numeric_limits<float>::max)()) ? 1 : 0);
  }

  const tree::Tree* tree_;
  std::vector<std::int32_t> limits_;
};

}  // namespace detail

/// One run of boosting.
class Trainer {
 public:
  /// \p before: the model to go on from, or null.
  Trainer(const Options& options, const Model* before) : options_(options), before_(before) {}

  [[nodiscard]] Trained train(const tree::Dataset& data, const FitOptions& fit) {
    prepare(data, fit);
    grower_ = std::make_unique<tree::Grower>(binned_, options_.grow());
    Trained result;
    for (std::int32_t r = 0; r < options_.num_round && !result.cancelled; ++r) {
      const auto start = std::chrono::steady_clock::now();
      round(static_cast<std::uint64_t>(model_.rounds()));
      evaluate();
      history_.seconds.push_back(seconds_since(start));
      result.cancelled = !tell(fit, r + 1);
      if (stop_early()) break;
    }
    result.model = std::move(model_);
    result.history = std::move(history_);
    return result;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr const char* function = "quern::boosting::Booster::fit";

  static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  void prepare(const tree::Dataset& data, const FitOptions& fit) {
    options_.check(function);
    data.check(function);
    if (data.rows() == 0) throw ShapeError(error_text(function, "features", "at least one row", 0));
    check_labels_given("labels", data);
    check_constraints(data);
    targets_ = {data.labels, data.weights};
    objective_ = make_objective(options_.objective, classes(data), options_.softmax_hessian,
                                options_.scale_pos_weight);
    objective_->check_labels(data.labels);
    start_model(data);
    const auto start = Clock::now();
    binned_ = tree::bin(data, options_.max_bin, {.threads = options_.nthread});
    history_.binning_seconds = seconds_since(start);
    margins_ = start_margins(data);
    gradients_ = core::Buffer<tree::GradientPair>(
        static_cast<std::size_t>(data.rows() * objective_->outputs()));
    prepare_evaluation(data, fit);
  }

  static void check_labels_given(const std::string& what, const tree::Dataset& data) {
    if (static_cast<std::int64_t>(data.labels.size()) != data.rows())
      throw ShapeError(error_text(function, what, std::to_string(data.rows()) + " (the rows)",
                                  data.labels.size()));
  }

  void check_constraints(const tree::Dataset& data) const {
    const auto given = static_cast<std::int64_t>(options_.monotone_constraints.size());
    if (given != 0 && given != data.cols())
      throw ShapeError(error_text(function, "monotone_constraints",
                                  std::to_string(data.cols()) + " (the features) or none", given));
    for (const auto& group : options_.interaction_constraints)
      for (const std::int32_t f : group)
        if (f >= data.cols())
          throw ShapeError(error_text(function, "interaction_constraints",
                                      "features below " + std::to_string(data.cols()), f));
  }

  [[nodiscard]] std::int32_t classes(const tree::Dataset& data) const {
    if (!options_.objective.starts_with("multi:")) {
      if (options_.num_class > 1)
        throw ValueError(error_text(function, "num_class", "0 or 1 for " + options_.objective,
                                    options_.num_class));
      return 1;
    }
    if (options_.num_class > 0) return options_.num_class;
    float top = 1;
    for (const float y : data.labels) top = (std::max)(top, y);
    if (!(top < 65536))
      throw ValueError(error_text(function, "labels", "classes below 65536", top));
    return static_cast<std::int32_t>(top) + 1;
  }

  void start_model(const tree::Dataset& data) {
    if (before_ != nullptr && !before_->trees.empty()) {
      model_ = *before_;
      check_continues(data);
      const auto keep = static_cast<std::size_t>(model_.used_rounds() * model_.trees_per_round());
      model_.trees.resize(keep);
      model_.tree_outputs.resize(keep);
      if (!model_.tree_weights.empty()) model_.tree_weights.resize(keep);
      model_.best_round = -1;
      return;
    }
    model_ = Model();
    model_.objective = options_.objective;
    model_.outputs = objective_->outputs();
    model_.features = data.cols();
    model_.feature_names = data.feature_names;
    model_.feature_kinds = data.feature_kinds;
    model_.categories = data.categories;
    const bool doubles = std::holds_alternative<MatrixView<const double>>(data.features) ||
                         std::holds_alternative<tree::CsrView<double>>(data.features);
    model_.input_type = doubles ? InputType::float64 : InputType::float32;
    model_.base_margin = options_.base_score
                             ? std::vector<double>(static_cast<std::size_t>(model_.outputs),
                                                   objective_->margin_of(*options_.base_score))
                             : objective_->start(targets_);
    // Margins are floats: what training starts from is what prediction starts from.
    for (double& m : model_.base_margin) m = static_cast<double>(static_cast<float>(m));
  }

  void check_continues(const tree::Dataset& data) const {
    if (model_.features != data.cols())
      throw ShapeError(error_text(function, "features",
                                  std::to_string(model_.features) + " columns, as the model has",
                                  data.cols()));
    if (model_.objective != options_.objective || model_.outputs != objective_->outputs())
      throw ValueError(error_text(function, "objective", model_.objective + ", as the model has",
                                  options_.objective));
    if (model_.parallel_trees != 1)
      throw ValueError(
          error_text(function, "model", "one tree a round and output", model_.parallel_trees));
  }

  /// Margins (rows, outputs) before the first new tree.
  [[nodiscard]] std::vector<float> start_margins(const tree::Dataset& data) const {
    const std::int64_t k = model_.outputs, rows = data.rows();
    std::vector<float> margins(static_cast<std::size_t>(rows * k));
    Predictor(model_).margins(data, MatrixView<float>(margins.data(), {rows, k}),
                              {.threads = options_.nthread});
    return margins;
  }

  void prepare_evaluation(const tree::Dataset& data, const FitOptions& fit) {
    std::vector<std::string> names = options_.eval_metric;
    if (names.empty()) names.emplace_back(objective_->default_metric());
    for (const std::string& name : names) metrics_.push_back(make_metric(name, model_.outputs));
    if (options_.early_stopping_rounds > 0 && fit.eval_sets.empty())
      throw ValueError(error_text(function, "early_stopping_rounds", "0 without evaluation sets",
                                  options_.early_stopping_rounds));
    eval_train_ = fit.eval_train;
    if (eval_train_) add_curves("train");
    for (const EvalSet& set : fit.eval_sets) {
      if (set.data == nullptr)
        throw ValueError(error_text(function, "data of " + set.name, "a data set", "null"));
      const tree::Dataset& d = *set.data;
      d.check(function);
      check_labels_given("labels of " + set.name, d);
      if (d.cols() != data.cols())
        throw ShapeError(error_text(function, "features of " + set.name,
                                    std::to_string(data.cols()) + " columns", d.cols()));
      objective_->check_labels(d.labels);
      detail::EvalState state;
      state.name = set.name;
      state.targets = {d.labels, d.weights};
      state.binned =
          tree::bin(d, binned_.cuts, {.threads = options_.nthread, .fill_blocks = false});
      state.margins = start_margins(d);
      evals_.push_back(std::move(state));
      add_curves(set.name);
    }
  }

  void add_curves(const std::string& set) {
    for (const EvalMetric& m : metrics_) history_.curves.push_back({set, std::string(m.name), {}});
  }

  void round(std::uint64_t number) {
    const std::int64_t rows = binned_.rows, k = model_.outputs;
    const std::int64_t blocks = block_count(rows, detail::objective_block);
    parallel_for(
        blocks,
        [&](std::int64_t b) {
          const BlockRange block = block_range(rows, detail::objective_block, b);
          objective_->gradients(margins_.data(), targets_, block.begin, block.end,
                                gradients_.data());
        },
        options_.nthread);
    const std::vector<std::int32_t> sample = draw_rows(number);
    for (std::int64_t c = 0; c < k; ++c) {
      const std::span<const tree::GradientPair> gradients(gradients_.data() + c * rows,
                                                          static_cast<std::size_t>(rows));
      tree::Tree tree =
          grower_->grow(gradients, sample, mix(number, static_cast<std::uint64_t>(c)));
      add_to_margins(tree, c, sample.empty());
      model_.trees.push_back(std::move(tree));
      model_.tree_outputs.push_back(static_cast<std::int32_t>(c));
      if (!model_.tree_weights.empty()) model_.tree_weights.push_back(1);
    }
  }

  /// A seed of its own for every tree.
  [[nodiscard]] std::uint64_t mix(std::uint64_t round, std::uint64_t output) const {
    return Philox(options_.seed, "tree", round * 65536 + output).next_u64();
  }

  /// Rows of this round, ascending; empty: all.
  [[nodiscard]] std::vector<std::int32_t> draw_rows(std::uint64_t number) const {
    std::vector<std::int32_t> sample;
    if (options_.subsample >= 1) return sample;
    Philox rng(options_.seed, "row sample", number);
    for (std::int64_t i = 0; i < binned_.rows; ++i) {
      if (rng.bernoulli(options_.subsample)) sample.push_back(static_cast<std::int32_t>(i));
    }
    if (sample.empty()) sample.push_back(0);
    return sample;
  }

  void add_to_margins(const tree::Tree& tree, std::int64_t output, bool all_rows) {
    const std::int64_t k = model_.outputs;
    const tree::Cuts& cuts = binned_.cuts;
    if (all_rows) {  // the partition knows every row's leaf
      const std::span<const std::int32_t> nodes = grower_->leaf_nodes();
      grower_->partition().for_each_row(
          grower_->leaf_ranges(), [&](std::size_t leaf, std::int64_t row) {
            add(margins_[static_cast<std::size_t>(row * k + output)], tree.node(nodes[leaf]).value);
          });
    } else {
      walk(tree, cuts, binned_, output, margins_);
    }
    for (detail::EvalState& e : evals_) walk(tree, cuts, e.binned, output, e.margins);
  }

  static void add(float& margin, double value) {
    margin = static_cast<float>(static_cast<double>(margin) + value);
  }

  void walk(const tree::Tree& tree, const tree::Cuts& cuts, const tree::BinnedMatrix& data,
            std::int64_t output, std::vector<float>& margins) const {
    const detail::CodeWalker walker(tree, cuts);
    const std::int64_t k = model_.outputs;
    parallel_for(
        block_count(data.rows, detail::objective_block),
        [&](std::int64_t b) {
          const BlockRange block = block_range(data.rows, detail::objective_block, b);
          for (std::int64_t row = block.begin; row < block.end; ++row)
            add(margins[static_cast<std::size_t>(row * k + output)], walker.leaf(data, row));
        },
        options_.nthread);
  }

  void evaluate() {
    std::size_t curve = 0;
    if (eval_train_) measure(margins_, targets_, curve);
    for (const detail::EvalState& e : evals_) measure(e.margins, e.targets, curve);
  }

  void measure(std::vector<float> predictions, const Targets& targets, std::size_t& curve) {
    objective_->transform(predictions.data(), targets.rows());
    for (const EvalMetric& m : metrics_)
      history_.curves[curve++].values.push_back(m.value(predictions, model_.outputs, targets));
  }

  /// False when the callback cancels.
  bool tell(const FitOptions& fit, std::int64_t done) const {
    if (!fit.progress) return true;
    std::vector<std::string> names;
    std::vector<Metric> values;
    for (const Curve& c : history_.curves) names.push_back(c.set + " " + c.metric);
    for (std::size_t i = 0; i < names.size(); ++i)
      values.push_back({names[i], history_.curves[i].values.back()});
    return fit.progress({"boosting rounds", done, options_.num_round, values});
  }

  /// True when the last curve has not improved for long enough; then the best round is kept in
  /// mind.
  bool stop_early() {
    if (options_.early_stopping_rounds == 0) return false;
    const std::vector<double>& values = history_.curves.back().values;
    const bool larger = metrics_.back().larger_is_better;
    const double now = values.back();
    // Not a number: no round could ever be told better (an empty set, one class alone for auc).
    if ((std::bit_cast<std::uint64_t>(now) << 1) > 0xffe0000000000000u)
      throw ValueError(error_text(function,
                                  history_.curves.back().set + " " + history_.curves.back().metric,
                                  "a number, as early stopping follows it", now));
    const bool better = best_round_ < 0 || (larger ? now > best_value_ : now < best_value_);
    if (better) {
      best_value_ = now;
      best_round_ = static_cast<std::int64_t>(values.size()) - 1;
    }
    const std::int64_t before = model_.rounds() - static_cast<std::int64_t>(values.size());
    model_.best_round = before + best_round_;
    history_.best_round = model_.best_round;
    return static_cast<std::int64_t>(values.size()) - 1 - best_round_ >=
           options_.early_stopping_rounds;
  }

  Options options_;
  const Model* before_;
  std::unique_ptr<Objective> objective_;
  std::vector<EvalMetric> metrics_;
  Targets targets_;
  tree::BinnedMatrix binned_;
  std::unique_ptr<tree::Grower> grower_;
  std::vector<float> margins_;                  ///< (rows, outputs)
  core::Buffer<tree::GradientPair> gradients_;  ///< (outputs, rows)
  std::vector<detail::EvalState> evals_;
  bool eval_train_ = false;
  Model model_;
  History history_;
  std::int64_t best_round_ = -1;
  double best_value_ = 0;
};

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_TRAINER_HPP
