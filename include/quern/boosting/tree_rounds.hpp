// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rounds of trees (boosters gbtree and dart, forests).

#ifndef QUERN_BOOSTING_TREE_ROUNDS_HPP
#define QUERN_BOOSTING_TREE_ROUNDS_HPP

#include "quern/boosting/dart.hpp"
#include "quern/boosting/leaf_values.hpp"
#include "quern/boosting/margins.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/boosting/sampling.hpp"
#include "quern/boosting/train_state.hpp"
#include "quern/core/config.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/exact.hpp"
#include "quern/tree/grow.hpp"
#include "quern/tree/linear_fit.hpp"
#include "quern/tree/row_reader.hpp"
#include "quern/tree/tree_grower.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting::detail {

/// Margins of one set while trees are dropped and come back with other weights: in double, so that
/// taking a tree out and putting it back leaves no trace.
template <class = void>
class BasicDartMargins {
 public:
  BasicDartMargins(SetState& set, const TrainState& state)
      : set_(&set), sums_(set.margins.size()), dropped_(set.margins.size(), 0.0) {
    const std::int64_t k = state.model.outputs;
    Predictor(state.model)
        .margins(*set.data, MatrixView<double>(sums_.data(), {set.rows(), k}),
                 {.threads = state.options.nthread});
  }

  /// Margins without the trees of the given numbers; the first \p foreign trees of the model were
  /// grown on other cuts.
  void drop(const TrainState& state, std::span<const std::size_t> trees, std::size_t foreign) {
    std::fill(dropped_.begin(), dropped_.end(), 0.0);
    for (const std::size_t t : trees)
      each(state, state.model.trees[t], t < foreign, [&](std::int64_t row, double value) {
        at(dropped_, state, row, t) += state.model.tree_weights[t] * value;
      });
    for (std::size_t i = 0; i < sums_.size(); ++i)
      set_->margins[i] = static_cast<float>(sums_[i] - dropped_[i]);
  }

  /// Takes the dropped trees back with their new weights, and the trees from \p first_new on.
  void settle(const TrainState& state, double dropped_factor, std::size_t first_new) {
    for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += (dropped_factor - 1) * dropped_[i];
    for (std::size_t t = first_new; t < state.model.trees.size(); ++t)
      each(state, state.model.trees[t], false, [&](std::int64_t row, double value) {
        at(sums_, state, row, t) += state.model.tree_weights[t] * value;
      });
    for (std::size_t i = 0; i < sums_.size(); ++i) set_->margins[i] = static_cast<float>(sums_[i]);
  }

 private:
  template <class Add>
  void each(const TrainState& state, const tree::Tree& tree, bool foreign, const Add& add) const {
    if (foreign) {
      for_each_foreign_value(*set_, tree, state.model.input_type, state.options.nthread, add);
    } else {
      for_each_leaf_value(*set_, tree, state.model.input_type, state.options.nthread, add);
    }
  }
  static double& at(std::vector<double>& sums, const TrainState& state, std::int64_t row,
                    std::size_t tree) {
    return sums[static_cast<std::size_t>(row * state.model.outputs +
                                         state.model.tree_outputs[tree])];
  }

  SetState* set_;
  std::vector<double> sums_;     // (rows, outputs) of all trees
  std::vector<double> dropped_;  // (rows, outputs) of this round's dropped trees
};
/// (A template, so that a program compiles it only where it uses it.)
using DartMargins = BasicDartMargins<>;

/// What grows the trees that the options ask for.
template <class Lazy = void>
inline std::unique_ptr<tree::TreeGrower> make_grower(const TrainState& state) {
  const tree::GrowOptions options = state.options.grow();
  if (state.options.is_binned())
    return std::make_unique<tree::BasicGrower<Lazy>>(state.train.binned, options);
  return std::make_unique<tree::BasicExactGrower<Lazy>>(state.train.data->features, options);
}

/// num_parallel_tree trees for each output.
template <class Lazy = void>
class BasicTreeRounds final : public RoundMaker {
 public:
  explicit BasicTreeRounds(TrainState& state)
      : state_(state),
        foreign_(state.model.trees.size()),
        grower_(make_grower(state)),
        leaves_(state) {
    if (!state.options.is_dart()) return;
    state.model.tree_weights.resize(foreign_, 1.0);
    dart_.emplace_back(state.train, state);
    for (SetState& set : state.evals) dart_.emplace_back(set, state);
  }

  void round(std::uint64_t number) override {
    Model& model = state_.model;
    const std::size_t first = model.trees.size();
    std::vector<std::size_t> dropped;
    if (!dart_.empty()) {
      dropped = dropped_trees(state_.options, model.tree_weights, number);
      for (BasicDartMargins<Lazy>& margins : dart_) margins.drop(state_, dropped, foreign_);
    }
    find_gradients(state_);
    const std::int32_t parallel = state_.options.num_parallel_tree;
    grower_->set_learning_rate(state_.learning_rate / parallel);
    std::vector<RowSample> samples;
    for (std::int32_t p = 0; p < parallel; ++p)
      samples.push_back(draw_rows(state_, number, stream(number, p)));
    for (std::int32_t c = 0; c < model.outputs; ++c) {
      for (std::int32_t p = 0; p < parallel; ++p)
        grow(number, c, p, samples[static_cast<std::size_t>(p)]);
    }
    if (!dart_.empty()) {
      weigh(dropped, first);
    } else if (parallel > 1) {
      add_round(first);
    }
  }

  void mark_best() override {
    if (!dart_.empty()) best_weights_ = state_.model.tree_weights;
  }

  /// Later rounds of dart changed the weights of the earlier ones.
  bool return_to_best(std::int64_t) override {
    if (dart_.empty() || best_weights_.empty()) return false;
    Model& model = state_.model;
    model.tree_weights = best_weights_;
    model.trees.resize(best_weights_.size());
    model.tree_outputs.resize(best_weights_.size());
    model.best_round = -1;
    return true;
  }

 private:
  /// Number of the parallel tree \p p of a round, for drawing rows.
  static std::uint64_t stream(std::uint64_t round, std::int32_t p) {
    return round + (static_cast<std::uint64_t>(p) << 40);
  }
  /// A seed of its own for every tree.
  [[nodiscard]] std::uint64_t tree_seed(std::uint64_t round, std::int32_t output,
                                        std::int32_t p) const {
    const std::uint64_t place = round * 65536 + static_cast<std::uint64_t>(output);
    return Philox(state_.options.seed, "tree", place + (static_cast<std::uint64_t>(p) << 46))
        .next_u64();
  }

  void grow(std::uint64_t number, std::int32_t output, std::int32_t p, const RowSample& sample) {
    const std::span<const tree::GradientPair> gradients = weighted(output, sample);
    tree::Tree tree =
        grower_->grow(leaves_.fitted(gradients, sample), sample.rows, tree_seed(number, output, p));
    const double rate = state_.learning_rate / state_.options.num_parallel_tree;
    leaves_.set(tree, *grower_, output, rate, gradients, sample);
    if (state_.options.linear_tree) fit_leaves(tree, gradients);
    const bool at_once = dart_.empty() && state_.options.num_parallel_tree == 1;
    if (at_once) add_to_margins(tree, output, sample.all());
    Model& model = state_.model;
    model.trees.push_back(std::move(tree));
    model.tree_outputs.push_back(output);
    if (!model.tree_weights.empty() || !dart_.empty()) model.tree_weights.push_back(1);
  }

  /// Gradients of an output with the factors of a sample; rows outside of it are 0 then.
  [[nodiscard]] std::span<const tree::GradientPair> weighted(std::int32_t output,
                                                             const RowSample& sample) {
    const std::span<const tree::GradientPair> gradients = state_.gradients_of(output);
    if (sample.factors.empty()) return gradients;
    weighted_.assign(gradients.size(), tree::GradientPair{});
    for (std::size_t i = 0; i < sample.rows.size(); ++i) {
      const auto row = static_cast<std::size_t>(sample.rows[i]);
      weighted_[row] = {gradients[row].g * sample.factors[i], gradients[row].h * sample.factors[i]};
    }
    return weighted_;
  }

  void fit_leaves(tree::Tree& tree, std::span<const tree::GradientPair> gradients) const {
    const tree::RowReader reader(state_.train.data->features, state_.model.input_type);
    tree::fit_linear_leaves(
        tree, grower_->leaf_nodes(), grower_->leaf_ranges(), grower_->partition(), gradients,
        reader,
        {.lambda = state_.options.linear_lambda,
         .learning_rate = state_.learning_rate / state_.options.num_parallel_tree,
         .threads = state_.options.nthread});
  }

  // --- margins ----------------------------------------------------------------------------------

  void weigh(std::span<const std::size_t> dropped, std::size_t first) {
    std::vector<double>& weights = state_.model.tree_weights;
    const bool forest = state_.options.normalize_type == "forest";
    const DartFactors factors =
        dart_factors(forest, dropped.size(), weights.size() - first, state_.learning_rate);
    for (const std::size_t t : dropped) weights[t] *= factors.dropped;
    for (std::size_t t = first; t < weights.size(); ++t) weights[t] = factors.added;
    for (BasicDartMargins<Lazy>& margins : dart_) margins.settle(state_, factors.dropped, first);
  }

  /// Adds the trees from \p first on, all of one round, whose gradients came from the same margins.
  void add_round(std::size_t first) {
    const Model& model = state_.model;
    for (std::size_t t = first; t < model.trees.size(); ++t)
      add_to_margins(model.trees[t], model.tree_outputs[t], false);
  }

  void add_to_margins(const tree::Tree& tree, std::int64_t output, bool by_partition) {
    if (by_partition) {
      add_by_partition(tree, output);
    } else {
      add_by_walking(state_.train, tree, output);
    }
    for (SetState& set : state_.evals) add_by_walking(set, tree, output);
  }

  /// The partition knows the leaf of every row that the tree was grown on.
  void add_by_partition(const tree::Tree& tree, std::int64_t output) {
    const std::int64_t k = state_.model.outputs;
    const std::span<const std::int32_t> nodes = grower_->leaf_nodes();
    float* margins = state_.train.margins.data() + output;
    if (tree.linear.empty()) {
      grower_->partition().for_each_slice(
          grower_->leaf_ranges(), [&](std::size_t leaf, const kernels::RowList& rows) {
            QUERN_DISPATCH(add_to_rows<float>(margins, k, rows, tree.node(nodes[leaf]).value));
          });
      return;
    }
    const tree::RowReader reader(state_.train.data->features, state_.model.input_type);
    grower_->partition().for_each_row(
        grower_->leaf_ranges(), [&](std::size_t leaf, std::int64_t row) {
          add_to_margin(margins[row * k], reader.leaf_value(tree, nodes[leaf], row));
        });
  }

  void add_by_walking(SetState& set, const tree::Tree& tree, std::int64_t output) const {
    const std::int64_t k = state_.model.outputs;
    float* margins = set.margins.data() + output;
    for_each_leaf_value(
        set, tree, state_.model.input_type, state_.options.nthread,
        [&](std::int64_t row, double value) { add_to_margin(margins[row * k], value); });
  }

  TrainState& state_;
  std::size_t foreign_;  ///< trees that the model had before
  std::unique_ptr<tree::TreeGrower> grower_;
  LeafSetter leaves_;
  std::vector<tree::GradientPair> weighted_;
  std::vector<BasicDartMargins<Lazy>>
      dart_;  ///< of the training set and each evaluation set; empty: gbtree
  std::vector<double> best_weights_;  ///< dart: of the best round
};
/// (A template, so that a program compiles it only where it uses it.)
using TreeRounds = BasicTreeRounds<>;

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_TREE_ROUNDS_HPP
