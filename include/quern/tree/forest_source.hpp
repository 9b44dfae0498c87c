// SPDX-License-Identifier: Apache-2.0

/// \file
/// Trees that add up to margins, as prediction and explanation are given them, and what the forests
/// they compile have in common.

#ifndef QUERN_TREE_FOREST_SOURCE_HPP
#define QUERN_TREE_FOREST_SOURCE_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// What a forest is compiled from; only looked at meanwhile. Trees must have passed Tree::check.
struct ForestSource {
  std::span<const Tree> trees = {};
  std::span<const std::int32_t> tree_outputs = {};  ///< (trees), or empty: all add to output 0
  std::span<const double> tree_weights = {};        ///< (trees), or empty: all one
  std::span<const double> base = {};                ///< (outputs): where the sums start
  std::int64_t features = 0;
  InputType input_type = InputType::float32;
};

namespace detail {

/// Whether some split is more than a threshold and a way for missing values.
[[nodiscard]] inline bool has_special_splits(const Tree& tree) {
  return std::any_of(tree.nodes.begin(), tree.nodes.end(), [](const Node& n) {
    return !n.is_leaf() && (n.kind == SplitKind::categorical || !n.is_plain());
  });
}

/// What a leaf adds to output number \p vector of its tree.
[[nodiscard]] inline double leaf_value(const Tree& tree, std::int32_t node, std::int32_t vector) {
  if (tree.outputs == 1) return tree.node(node).value;
  return tree
      .vector_values[static_cast<std::size_t>(node) * static_cast<std::size_t>(tree.outputs) +
                     static_cast<std::size_t>(vector)];
}

}  // namespace detail

/// Shape of a compiled forest, and the features that its trees test. Written by the constructor
/// only.
class ForestFrame {
 public:
  ForestFrame() = default;
  /// \p function is named in errors: ShapeError where lengths do not fit each other, ValueError for
  /// an output out of range.
  ForestFrame(const ForestSource& source, const char* function)
      : features(source.features),
        source_trees(static_cast<std::int64_t>(source.trees.size())),
        input_type(source.input_type),
        base(source.base.begin(), source.base.end()),
        by_output(source.base.size()) {
    check(source, function);
    assign_slots(source);
  }

  [[nodiscard]] std::int64_t trees() const noexcept { return source_trees; }
  [[nodiscard]] std::int64_t outputs() const noexcept {
    return static_cast<std::int64_t>(base.size());
  }
  /// Slot of feature \p f, -1 where no tree tests it.
  [[nodiscard]] std::int32_t slot_of(std::int32_t f) const noexcept {
    const auto i = static_cast<std::size_t>(f);
    return i < feature_slots.size() ? feature_slots[i] : -1;
  }
  [[nodiscard]] std::int64_t slots() const noexcept {
    return static_cast<std::int64_t>(slot_features.size());
  }
  /// Whether double features are compared as doubles.
  [[nodiscard]] bool compares_doubles() const noexcept { return input_type == InputType::float64; }

  std::int64_t features = 0;
  std::int64_t source_trees = 0;
  InputType input_type = InputType::float32;
  std::vector<double> base;                          ///< (outputs)
  std::vector<std::int32_t> slot_features;           ///< (slots): the features that are tested
  std::vector<std::int32_t> feature_slots;           ///< (last tested feature + 1): slot, or -1
  std::vector<std::vector<std::int32_t>> by_output;  ///< (outputs): numbers of compiled trees

 private:
  static void check(const ForestSource& source, const char* function) {
    const std::size_t n = source.trees.size();
    const auto length = [&](const char* field, std::size_t got) {
      if (got == 0 || got == n) return;
      throw ShapeError(error_text(function, field, std::to_string(n) + " entries", got));
    };
    if (source.base.empty())
      throw ShapeError(error_text(function, "base", "at least one output", 0));
    length("tree_outputs", source.tree_outputs.size());
    length("tree_weights", source.tree_weights.size());
    for (std::size_t t = 0; t < n; ++t) {
      const std::int64_t output = source.tree_outputs.empty() ? 0 : source.tree_outputs[t];
      if (output < 0 ||
          output + source.trees[t].outputs > static_cast<std::int64_t>(source.base.size()))
        throw ValueError(error_text(function, "tree_outputs", "outputs that have a base", output));
    }
  }

  void assign_slots(const ForestSource& source) {
    // Only as long as it has to be: a model may say that it has two billion features.
    std::int32_t last = -1;
    for (const Tree& tree : source.trees) {
      for (const Node& n : tree.nodes) last = (std::max)(last, n.is_leaf() ? -1 : n.feature);
      for (const std::int32_t f : tree.linear.features) last = (std::max)(last, f);
    }
    feature_slots.assign(static_cast<std::size_t>(last + 1), -1);
    for (const Tree& tree : source.trees) {
      for (const Node& n : tree.nodes) {
        if (!n.is_leaf()) feature_slots[static_cast<std::size_t>(n.feature)] = 0;
      }
      for (const std::int32_t f : tree.linear.features)
        feature_slots[static_cast<std::size_t>(f)] = 0;
    }
    for (std::size_t f = 0; f < feature_slots.size(); ++f) {
      if (feature_slots[f] < 0) continue;
      feature_slots[f] = static_cast<std::int32_t>(slot_features.size());
      slot_features.push_back(static_cast<std::int32_t>(f));
    }
  }
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_FOREST_SOURCE_HPP
