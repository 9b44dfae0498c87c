// SPDX-License-Identifier: Apache-2.0

/// \file
/// A forest compiled for explaining: built once, then only read, by any number of threads.

#ifndef QUERN_TREE_DETAIL_SHAP_FOREST_HPP
#define QUERN_TREE_DETAIL_SHAP_FOREST_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/tree_shap_types.hpp"
#include "quern/tree/detail/shap_program.hpp"
#include "quern/tree/float_key.hpp"
#include "quern/tree/forest_source.hpp"
#include "quern/tree/scratch.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {
namespace detail {

/// A split that is more than a threshold and a way for missing values: asked of the tree itself.
struct ShapSpecial {
  std::int32_t original = 0;  ///< index into ShapForest::originals
  std::int32_t node = 0;
  std::int32_t slot = 0;
  std::int32_t side = 0;
};

}  // namespace detail

/// Trees as shap_values() and shap_interactions() want them. Members are for those; all are written
/// by the constructor only.
class ShapForest : public ForestFrame {
 public:
  ShapForest() = default;
  /// Trees must have passed Tree::check. Throws ShapeError where lengths do not fit each other,
  /// ValueError for an output out of range and a tree that is deeper than 1024, tests more than 256
  /// features on a path or has linear leaves.
  explicit ShapForest(const ForestSource& source);

  /// Expected value of output \p k with the first \p used trees.
  [[nodiscard]] double mean(std::int64_t k, std::int64_t used) const {
    double sum = base[static_cast<std::size_t>(k)];
    for (const std::int32_t t : by_output[static_cast<std::size_t>(k)]) {
      const detail::ShapTree& tree = programs[static_cast<std::size_t>(t)];
      if (tree.source < used) sum += tree.mean;
    }
    return sum;
  }

  std::vector<detail::ShapTree> programs;  ///< in the order in which they are added
  std::vector<kernels::ShapStep> steps;
  std::vector<double> constants;
  std::vector<kernels::ShapTest<std::int32_t>> float_tests;
  std::vector<kernels::ShapTest<std::int64_t>> double_tests;  ///< empty unless float64
  std::vector<detail::ShapSpecial> specials;
  std::vector<Tree> originals;                               ///< trees with special splits
  std::vector<std::pair<std::int32_t, std::int32_t>> pairs;  ///< slots on one path, ascending
  std::vector<std::int32_t> pair_rows;                       ///< rows of sums, see ShapStep::pairs
  std::int64_t most_sides = 0;                               ///< of a tree
  std::int64_t most_work = 0;                                ///< shap_work_size() of a tree
  /// Working memory; copies of a forest share it.
  std::shared_ptr<detail::ScratchPool> scratch = std::make_shared<detail::ScratchPool>();

 private:
  static void expect_constant_leaves(const ForestSource& source);
  void add_tree(const ForestSource& source, std::size_t t, std::int32_t vector);
  void add_tests(const Tree& tree, const detail::ShapCode& code, std::int32_t original);
  void add_pairs();

  std::vector<std::vector<std::int32_t>> above_;  // (steps), while compiling
};

inline void ShapForest::expect_constant_leaves(const ForestSource& source) {
  for (std::size_t t = 0; t < source.trees.size(); ++t)
    if (!source.trees[t].linear.empty())
      throw ValueError(error_text("quern::tree::ShapForest", "tree " + std::to_string(t),
                                  "constant leaves",
                                  "linear ones, whose Shapley values are not defined by paths"));
}

inline void ShapForest::add_tests(const Tree& tree, const detail::ShapCode& code,
                                  std::int32_t original) {
  for (std::int32_t i = 0; i < tree.size(); ++i) {
    const Node& n = tree.node(i);
    const std::int32_t side = code.sides[static_cast<std::size_t>(i)];
    if (side < 0) continue;
    const std::int32_t slot = feature_slots[static_cast<std::size_t>(n.feature)];
    if (n.kind == SplitKind::categorical || !n.is_plain()) {
      specials.push_back({original, i, slot, side});
      continue;
    }
    const bool right = !n.missing_left();
    float_tests.push_back({float_key(round_up_to_float(n.threshold)), slot, side, right});
    if (compares_doubles()) double_tests.push_back({float_key(n.threshold), slot, side, right});
  }
}

inline void ShapForest::add_tree(const ForestSource& source, std::size_t t, std::int32_t vector) {
  const Tree& tree = source.trees[t];
  const double weight = source.tree_weights.empty() ? 1.0 : source.tree_weights[t];
  const auto value = [&](std::int32_t node) {
    return weight * detail::leaf_value(tree, node, vector);
  };
  const auto slot = [&](std::int32_t f) { return feature_slots[static_cast<std::size_t>(f)]; };
  detail::ShapCode code = detail::ShapCompiler(tree, value, slot).compile();
  detail::ShapTree out;
  out.source = static_cast<std::int32_t>(t);
  out.output = (source.tree_outputs.empty() ? 0 : source.tree_outputs[t]) + vector;
  out.points = code.points;
  out.levels = code.levels;
  out.mean = code.mean;
  out.step_begin = static_cast<std::int64_t>(steps.size());
  out.step_count = static_cast<std::int64_t>(code.steps.size());
  out.constant_begin = static_cast<std::int64_t>(constants.size());
  out.test_begin = static_cast<std::int64_t>(float_tests.size());
  out.special_begin = static_cast<std::int64_t>(specials.size());
  if (detail::has_special_splits(tree) && vector == 0) originals.push_back(tree);
  add_tests(tree, code, static_cast<std::int32_t>(originals.size()) - 1);
  out.test_count = static_cast<std::int64_t>(float_tests.size()) - out.test_begin;
  out.special_count = static_cast<std::int64_t>(specials.size()) - out.special_begin;
  most_sides = (std::max)(most_sides, std::int64_t{code.tests});
  most_work = (std::max)(most_work, kernels::shap_work_size(out.points, out.levels));
  steps.insert(steps.end(), code.steps.begin(), code.steps.end());
  constants.insert(constants.end(), code.constants.begin(), code.constants.end());
  above_.insert(above_.end(), std::make_move_iterator(code.above.begin()),
                std::make_move_iterator(code.above.end()));
  by_output[static_cast<std::size_t>(out.output)].push_back(
      static_cast<std::int32_t>(programs.size()));
  programs.push_back(out);
}

/// Gives every pair of features that meet on a path a row of sums.
inline void ShapForest::add_pairs() {
  const auto pair_of = [](std::int32_t a, std::int32_t b) {
    return std::pair((std::min)(a, b), (std::max)(a, b));
  };
  for (std::size_t s = 0; s < steps.size(); ++s) {
    for (const std::int32_t slot : above_[s])
      if (slot >= 0) pairs.push_back(pair_of(slot, steps[s].slot));
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  for (std::size_t s = 0; s < steps.size(); ++s) {
    steps[s].pairs = static_cast<std::int64_t>(pair_rows.size());
    for (const std::int32_t slot : above_[s]) {
      const auto at = std::lower_bound(pairs.begin(), pairs.end(), pair_of(slot, steps[s].slot));
      pair_rows.push_back(slot < 0 ? -1 : static_cast<std::int32_t>(at - pairs.begin()));
    }
  }
  above_.clear();
  above_.shrink_to_fit();
}

inline ShapForest::ShapForest(const ForestSource& source)
    : ForestFrame(source, "quern::tree::ShapForest") {
  expect_constant_leaves(source);
  for (std::size_t t = 0; t < source.trees.size(); ++t) {
    for (std::int32_t v = 0; v < source.trees[t].outputs; ++v) add_tree(source, t, v);
  }
  add_pairs();
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_SHAP_FOREST_HPP
