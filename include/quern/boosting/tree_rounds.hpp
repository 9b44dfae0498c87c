// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rounds of trees (booster gbtree).

#ifndef QUERN_BOOSTING_TREE_ROUNDS_HPP
#define QUERN_BOOSTING_TREE_ROUNDS_HPP

#include "quern/boosting/margins.hpp"
#include "quern/boosting/sampling.hpp"
#include "quern/boosting/train_state.hpp"
#include "quern/core/config.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/grow.hpp"
#include "quern/tree/row_reader.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace boosting::detail {

/// A tree for each output.
class TreeRounds final : public RoundMaker {
 public:
  explicit TreeRounds(TrainState& state)
      : state_(state), grower_(state.train.binned, state.options.grow()) {}

  void round(std::uint64_t number) override {
    find_gradients(state_);
    grower_.set_learning_rate(state_.learning_rate);
    const RowSample sample = draw_rows(state_, number);
    for (std::int64_t c = 0; c < state_.model.outputs; ++c) {
      tree::Tree tree = grower_.grow(state_.gradients_of(c), sample.rows,
                                     tree_seed(number, static_cast<std::uint64_t>(c)));
      add_to_margins(tree, c, sample.all());
      state_.model.trees.push_back(std::move(tree));
      state_.model.tree_outputs.push_back(static_cast<std::int32_t>(c));
      if (!state_.model.tree_weights.empty()) state_.model.tree_weights.push_back(1);
    }
  }

 private:
  /// A seed of its own for every tree.
  [[nodiscard]] std::uint64_t tree_seed(std::uint64_t round, std::uint64_t output) const {
    return Philox(state_.options.seed, "tree", round * 65536 + output).next_u64();
  }

  void add_to_margins(const tree::Tree& tree, std::int64_t output, bool all_rows) {
    if (all_rows) {
      add_by_partition(tree, output);
    } else {
      add_by_walking(state_.train, tree, output);
    }
    for (SetState& set : state_.evals) add_by_walking(set, tree, output);
  }

  /// The partition knows the leaf of every row that the tree was grown on.
  void add_by_partition(const tree::Tree& tree, std::int64_t output) {
    const std::int64_t k = state_.model.outputs;
    const std::span<const std::int32_t> nodes = grower_.leaf_nodes();
    const tree::RowReader reader(state_.train.data->features, state_.model.input_type);
    float* margins = state_.train.margins.data() + output;
    grower_.partition().for_each_row(
        grower_.leaf_ranges(), [&](std::size_t leaf, std::int64_t row) {
          const std::int32_t node = nodes[leaf];
          add_to_margin(margins[row * k], tree.linear.empty() ? tree.node(node).value
                                                              : reader.leaf_value(tree, node, row));
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
  tree::Grower grower_;
};

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_TREE_ROUNDS_HPP
