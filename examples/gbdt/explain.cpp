// SPDX-License-Identifier: Apache-2.0

#include "csv_text.hpp"
#include "learner.hpp"
#include "model_file.hpp"
#include "terminal.hpp"

#include "quern/boosting/dump.hpp"
#include "quern/boosting/importance.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <vector>

namespace gbdt {
namespace {

using quern::boosting::Importance;
using quern::boosting::Model;

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

void print_trees(const ModelFile& file, const ExplainSettings& settings) {
  const Model& model = file.model;
  const std::size_t count =
      (std::min)(model.trees.size(), static_cast<std::size_t>(settings.trees));
  for (std::size_t t = 0; t < count; ++t) {
    const auto index = static_cast<std::int64_t>(t);
    const quern::boosting::DumpOptions options = {.with_stats = true, .category_names = true};
    if (settings.dump == "dot") {
      std::printf("%s\n", dump_graphviz(model, index, options).c_str());
      continue;
    }
    const auto k = static_cast<std::size_t>(model.tree_outputs[t]);
    std::string of;
    if (model.outputs > 1 && k < file.meaning.classes.size()) of = ", " + file.meaning.classes[k];
    std::printf("\ntree %zu (round %lld%s): %lld leaves, depth %d\n%s", t,
                static_cast<long long>(index / model.trees_per_round()) + 1, of.c_str(),
                static_cast<long long>(model.trees[t].leaves()), model.trees[t].depth(),
                dump_text(model, index, options).c_str());
  }
}

std::string output_name(const ModelFile& file, std::int64_t k) {
  const auto i = static_cast<std::size_t>(k);
  return i < file.meaning.classes.size() ? file.meaning.classes[i] : std::to_string(k);
}

/// "17," or, with several outputs, "17,Bag,".
std::string row_start(const ModelFile& file, std::int64_t row, std::int64_t k) {
  std::string text = std::to_string(row) + ",";
  if (file.model.outputs > 1) text += quoted(output_name(file, k)) + ",";
  return text;
}

const char* row_header(const ModelFile& file) {
  return file.model.outputs > 1 ? "row,output," : "row,";
}

/// A line a row and output: what each feature adds, and the mean.
void write_shap(const ModelFile& file, const Data& data, const ExplainSettings& settings) {
  const auto values = shap_values(file.model, data.set, settings.threads);
  std::string text = row_header(file);
  for (std::int64_t f = 0; f < file.model.features; ++f)
    text += quoted(feature_name(file.model, f)) + ",";
  text += "mean\n";
  for (std::int64_t r = 0; r < values.extent(0); ++r) {
    for (std::int64_t k = 0; k < values.extent(1); ++k) {
      text += row_start(file, r, k);
      for (std::int64_t f = 0; f < values.extent(2); ++f) {
        append_number(text, values(r, k, f));
        text += f + 1 < values.extent(2) ? ',' : '\n';
      }
    }
  }
  write_text(settings.shap_path, text);
}

/// A line for each pair of features that interact in a row, and for each feature by itself.
void write_interactions(const ModelFile& file, const Data& data, const ExplainSettings& settings) {
  constexpr std::int64_t at_once = 16;  // a row is a matrix of all features
  std::string text = std::string(row_header(file)) + "feature,with,value\n";
  for (std::int64_t first = 0; first < data.rows(); first += at_once) {
    std::vector<std::int64_t> rows;
    for (std::int64_t r = first; r < (std::min)(first + at_once, data.rows()); ++r)
      rows.push_back(r);
    const Data part = take_rows(data, rows);
    const auto values = shap_interactions(file.model, part.set, settings.threads);
    for (std::int64_t i = 0; i < values.extent(0) * values.extent(1); ++i) {
      const std::int64_t r = i / values.extent(1), k = i % values.extent(1);
      for (std::int64_t f = 0; f < file.model.features; ++f) {
        for (std::int64_t g = f; g < file.model.features; ++g) {
          const double value = values(r, k, f, g) + (f == g ? 0 : values(r, k, g, f));
          if (value == 0) continue;
          text += row_start(file, first + r, k) + quoted(feature_name(file.model, f)) + "," +
                  quoted(feature_name(file.model, g)) + ",";
          append_number(text, value);
          text += '\n';
        }
      }
    }
  }
  write_text(settings.interactions_path, text);
}

void print_permutation(const ModelFile& file, const Data& data, const ExplainSettings& settings) {
  if (!data.has_labels()) throw UsageError("--permutation: the data have no labels");
  const Shuffled got = shuffle_features(file.model, data.set, settings.permutation,
                                        settings.repeats, settings.seed, settings.threads);
  std::vector<std::size_t> order(got.mean.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return got.mean[a] > got.mean[b]; });
  std::printf(
      "\n%s %.6g on %s rows; by how much it gets worse when a feature is shuffled:\n\n"
      "%-24s %12s %12s\n",
      settings.permutation.c_str(), got.score, count_text(data.rows()).c_str(), "feature",
      "worse by", "+-");
  for (std::size_t i = 0; i < order.size() && i < static_cast<std::size_t>(settings.top); ++i) {
    const std::size_t f = order[i];
    if (got.mean[f] == 0 && got.deviation[f] == 0) continue;
    std::printf("%s %12.5g %12.3g\n",
                fit(feature_name(file.model, static_cast<std::int64_t>(f)), 24).c_str(),
                got.mean[f], got.deviation[f]);
  }
}

}  // namespace

int explain(const ExplainSettings& settings) {
  const bool wants_data = !settings.shap_path.empty() || !settings.interactions_path.empty() ||
                          !settings.permutation.empty();
  if (wants_data && settings.data.path.empty())
    throw UsageError("--shap, --interactions and --permutation need a data file");
  const ModelFile file = load(settings.model_path);
  const Model& model = file.model;
  // What goes to standard output stays free of other words.
  const bool only_data = settings.shap_path == "-" || settings.interactions_path == "-";
  if (!only_data && settings.dump != "dot") {
    std::printf("%s: %s, %d outputs, %lld rounds, %zu trees, %lld features\n",
                settings.model_path.c_str(), model.objective.c_str(), model.outputs,
                static_cast<long long>(model.rounds()), model.trees.size(),
                static_cast<long long>(model.features));
    print_importances(model, settings.sort_by, settings.top);
  }
  if (!settings.dump.empty() && !only_data) print_trees(file, settings);
  if (!wants_data) return 0;
  const Data data = read_data(settings.data, model, file.meaning);
  if (!settings.permutation.empty() && !only_data) print_permutation(file, data, settings);
  if (!settings.shap_path.empty()) write_shap(file, data, settings);
  if (!settings.interactions_path.empty()) write_interactions(file, data, settings);
  return 0;
}

}  // namespace gbdt
