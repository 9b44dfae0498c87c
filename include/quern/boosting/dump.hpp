// SPDX-License-Identifier: Apache-2.0

/// \file
/// Models for people to read: text as XGBoost's get_dump gives it, and Graphviz.

#ifndef QUERN_BOOSTING_DUMP_HPP
#define QUERN_BOOSTING_DUMP_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/tree.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

struct DumpOptions {
  bool with_stats = false;      ///< gain and cover of each node
  bool category_names = false;  ///< categories by their texts, where the model has them, not codes
};

namespace detail {

/// Nine digits hold a float exactly.
inline std::string dump_number(double value, int digits = 9) {
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.*g", digits, value);
  return text.data();
}

inline std::string dump_feature(const Model& model, std::int32_t feature) {
  const auto f = static_cast<std::size_t>(feature);
  return f < model.feature_names.size() ? model.feature_names[f] : "f" + std::to_string(feature);
}

/// "{0,3,7}": the categories that go right.
inline std::string dump_categories(const Model& model, const tree::Tree& tree, const tree::Node& n,
                                   bool names) {
  const auto f = static_cast<std::size_t>(n.feature);
  std::string text;
  for (std::uint32_t c = 0; c < n.category_count * 32; ++c) {
    if (!tree.in_category_set(n, c)) continue;
    const bool named = names && f < model.categories.size() && c < model.categories[f].size();
    text += text.empty() ? "" : ",";
    text += named ? model.categories[f][c] : std::to_string(c);
  }
  return "{" + text + "}";
}

/// What a split asks; rows that do are "yes". A category in the set goes right, in the model's
/// convention, so there "yes" is the right child.
inline std::string dump_test(const Model& model, const tree::Tree& tree, const tree::Node& n,
                             bool category_names) {
  const std::string name = dump_feature(model, n.feature);
  if (n.kind == tree::SplitKind::numeric) return name + "<" + dump_number(n.threshold);
  return name + ":" + dump_categories(model, tree, n, category_names);
}

/// "leaf=..."; of a tree with several outputs all of them.
inline std::string dump_leaf(const tree::Tree& tree, std::int32_t i) {
  if (tree.outputs == 1) return "leaf=" + dump_number(tree.node(i).value);
  std::string text = "leaf=[";
  for (std::int32_t k = 0; k < tree.outputs; ++k) {
    const std::int64_t at = std::int64_t{i} * tree.outputs + k;
    text += (k > 0 ? "," : "") + dump_number(tree.vector_values[static_cast<std::size_t>(at)]);
  }
  return text + "]";
}

/// Nodes from the root, left before right, with their depth.
template <class Use>
void for_each_node(const tree::Tree& tree, const Use& use) {
  std::vector<std::pair<std::int32_t, std::size_t>> stack = {{0, 0}};
  while (!stack.empty()) {
    const auto [i, depth] = stack.back();
    stack.pop_back();
    use(i, depth);
    const tree::Node& n = tree.node(i);
    if (n.is_leaf()) continue;
    stack.emplace_back(n.right, depth + 1);
    stack.emplace_back(n.left, depth + 1);
  }
}

inline std::string dump_tree(const Model& model, const tree::Tree& tree,
                             const DumpOptions& options) {
  std::string text;
  for_each_node(tree, [&](std::int32_t i, std::size_t depth) {
    const tree::Node& n = tree.node(i);
    text += std::string(depth, '\t') + std::to_string(i) + ":";
    if (n.is_leaf()) {
      text += dump_leaf(tree, i);
    } else {
      const bool numeric = n.kind == tree::SplitKind::numeric;
      text += "[" + dump_test(model, tree, n, options.category_names) + "]";
      text += " yes=" + std::to_string(numeric ? n.left : n.right);
      text += ",no=" + std::to_string(numeric ? n.right : n.left);
      text += ",missing=" + std::to_string(n.missing_left() ? n.left : n.right);
      if (options.with_stats) text += ",gain=" + dump_number(n.gain);
    }
    if (options.with_stats) text += ",cover=" + dump_number(n.cover);
    text += '\n';
  });
  return text;
}

/// A linear model: biases, then weights by feature.
inline std::string dump_linear(const Model& model) {
  const std::size_t biases = static_cast<std::size_t>(model.features * model.outputs);
  std::string text = "bias:\n";
  for (std::size_t i = biases; i < model.linear_weights.size(); ++i)
    text += dump_number(model.linear_weights[i], 6) + "\n";
  text += "weight:\n";
  for (std::size_t i = 0; i < biases; ++i) text += dump_number(model.linear_weights[i], 6) + "\n";
  return text;
}

/// Text inside the quotes of a Graphviz label.
inline std::string graphviz_text(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

inline const tree::Tree& dumped_tree(const char* function, const Model& model, std::int64_t tree) {
  if (model.is_linear())
    throw ValueError(error_text(function, "model", "trees (dump_text(model) writes a linear one)",
                                "a linear model (gblinear)"));
  if (tree < 0 || tree >= static_cast<std::int64_t>(model.trees.size()))
    throw ValueError(
        error_text(function, "tree", "a number below " + std::to_string(model.trees.size()), tree));
  return model.trees[static_cast<std::size_t>(tree)];
}

}  // namespace detail

/// One tree as text, a line a node, indented by depth: the bytes of XGBoost's get_dump for a model
/// of XGBoost. Leaves are without the tree's weight. The model must have passed Model::check.
/// ValueError for a tree that it does not have.
[[nodiscard]] inline std::string dump_text(const Model& model, std::int64_t tree,
                                           const DumpOptions& options = {}) {
  const tree::Tree& t = detail::dumped_tree("quern::boosting::dump_text", model, tree);
  return detail::dump_tree(model, t, options);
}

/// All trees; a linear model is one text.
[[nodiscard]] inline std::vector<std::string> dump_text(const Model& model,
                                                        const DumpOptions& options = {}) {
  std::vector<std::string> texts;
  if (model.is_linear()) texts.push_back(detail::dump_linear(model));
  for (const tree::Tree& tree : model.trees)
    texts.push_back(detail::dump_tree(model, tree, options));
  return texts;
}

/// One tree as a Graphviz graph (`dot -Tsvg`), as XGBoost draws it: missing values follow
/// blue. Errors as dump_text().
[[nodiscard]] inline std::string dump_graphviz(const Model& model, std::int64_t tree,
                                               const DumpOptions& options = {}) {
  const tree::Tree& t = detail::dumped_tree("quern::boosting::dump_graphviz", model, tree);
  std::string text = "digraph {\n    graph [ rankdir=TB ]\n";
  detail::for_each_node(t, [&](std::int32_t i, std::size_t) {
    const tree::Node& n = t.node(i);
    const std::string self = "\n    " + std::to_string(i);
    std::string label = n.is_leaf() ? detail::dump_leaf(t, i)
                                    : detail::dump_test(model, t, n, options.category_names);
    label = detail::graphviz_text(label);
    if (options.with_stats) {
      if (!n.is_leaf()) label += "\ngain=" + detail::dump_number(n.gain);
      label += "\ncover=" + detail::dump_number(n.cover);
    }
    text += self + " [ label=\"" + label + "\" ]";
    if (!n.is_leaf()) {
      const bool numeric = n.kind == tree::SplitKind::numeric;
      const auto edge = [&](std::int32_t child, bool yes, bool missing) {
        text += self + " -> " + std::to_string(child) + " [label=\"" + (yes ? "yes" : "no") +
                (missing ? ", missing" : "") + "\" color=\"" + (missing ? "#0000FF" : "#FF0000") +
                "\"]";
      };
      edge(n.left, numeric, n.missing_left());
      edge(n.right, !numeric, !n.missing_left());
    }
    text += "\n";
  });
  return text + "}";
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_DUMP_HPP
