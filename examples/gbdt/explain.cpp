// SPDX-License-Identifier: Apache-2.0

#include "model_file.hpp"
#include "terminal.hpp"

#include "quern/boosting/importance.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <vector>

namespace gbdt {
namespace {

using quern::boosting::Importance;
using quern::boosting::Model;
using quern::tree::Node;
using quern::tree::Tree;

std::string feature_name(const Model& model, std::int64_t feature) {
  const auto f = static_cast<std::size_t>(feature);
  return f < model.feature_names.size() ? model.feature_names[f] : "f" + std::to_string(feature);
}

void print_importances(const Model& model, const std::string& sort_by, int top) {
  const std::vector<double> key = importance(model, quern::boosting::importance_from_name(sort_by));
  const std::vector<double> gain = importance(model, Importance::gain);
  const std::vector<double> cover = importance(model, Importance::cover);
  const std::vector<double> weight = importance(model, Importance::weight);
  std::vector<std::size_t> order(key.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return key[a] > key[b]; });
  const auto used = std::count_if(weight.begin(), weight.end(), [](double w) { return w > 0; });
  std::printf("%lld of %zu features are used; by %s:\n\n%-24s %12s %12s %8s\n",
              static_cast<long long>(used), key.size(), sort_by.c_str(), "feature", "gain", "cover",
              "weight");
  for (std::size_t i = 0; i < order.size() && i < static_cast<std::size_t>(top); ++i) {
    const std::size_t f = order[i];
    if (weight[f] <= 0) break;
    const double share = key[order[0]] > 0 ? key[f] / key[order[0]] : 0;
    std::string bar;
    for (int cell = 0; cell < static_cast<int>(share * 20 + 0.5); ++cell) bar += "█";
    std::printf("%s %12.5g %12.5g %8.0f  %s\n",
                fit(feature_name(model, static_cast<std::int64_t>(f)), 24).c_str(), gain[f],
                cover[f], weight[f], bar.c_str());
  }
}

std::string categories_text(const Model& model, const Tree& tree, const Node& n) {
  std::string text;
  for (std::uint32_t c = 0; c < n.category_count * 32; ++c) {
    if (!tree.in_category_set(n, c)) continue;
    const auto f = static_cast<std::size_t>(n.feature);
    const bool named = f < model.categories.size() && c < model.categories[f].size();
    text += (text.empty() ? "" : ",") + (named ? model.categories[f][c] : std::to_string(c));
  }
  return "{" + text + "}";
}

void print_node(const Model& model, const Tree& tree, std::int32_t i, int depth) {
  const Node& n = tree.node(i);
  std::printf("%*s%d:", 2 * depth, "", i);
  if (n.is_leaf()) {
    std::printf("leaf=%.9g,cover=%.6g\n", n.value, n.cover);
    return;
  }
  const std::string name = feature_name(model, n.feature);
  // In XGBoost's words: a set goes right, so "yes" is the branch of a row that is not in it.
  if (n.kind == quern::tree::SplitKind::numeric) {
    std::printf("[%s<%.9g]", name.c_str(), n.threshold);
  } else {
    std::printf("[%s not in %s]", name.c_str(), categories_text(model, tree, n).c_str());
  }
  std::printf(" yes=%d,no=%d,missing=%d,gain=%.6g,cover=%.6g\n", n.left, n.right,
              n.default_left ? n.left : n.right, n.gain, n.cover);
  print_node(model, tree, n.left, depth + 1);
  print_node(model, tree, n.right, depth + 1);
}

void print_trees(const ModelFile& file, int count) {
  const Model& model = file.model;
  for (std::size_t t = 0; t < model.trees.size() && t < static_cast<std::size_t>(count); ++t) {
    const auto round = static_cast<long long>(t) / model.trees_per_round();
    const auto k = static_cast<std::size_t>(model.tree_outputs[t]);
    std::string of;
    if (model.outputs > 1 && k < file.meaning.classes.size()) of = ", " + file.meaning.classes[k];
    std::printf("\ntree %zu (round %lld%s): %lld leaves, depth %d\n", t, round + 1, of.c_str(),
                static_cast<long long>(model.trees[t].leaves()), model.trees[t].depth());
    print_node(model, model.trees[t], 0, 0);
  }
}

}  // namespace

int explain(const ExplainSettings& settings) {
  const ModelFile file = load(settings.model_path);
  const Model& model = file.model;
  std::printf("%s: %s, %d outputs, %lld rounds, %zu trees, %lld features\n",
              settings.model_path.c_str(), model.objective.c_str(), model.outputs,
              static_cast<long long>(model.rounds()), model.trees.size(),
              static_cast<long long>(model.features));
  print_importances(model, settings.sort_by, settings.top);
  print_trees(file, settings.dump);
  return 0;
}

}  // namespace gbdt
