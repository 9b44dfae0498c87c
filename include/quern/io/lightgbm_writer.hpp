// SPDX-License-Identifier: Apache-2.0

/// \file
/// Writes LightGBM's text models; see lightgbm_text.hpp for the functions to call.

#ifndef QUERN_IO_LIGHTGBM_WRITER_HPP
#define QUERN_IO_LIGHTGBM_WRITER_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/detail/lightgbm_layout.hpp"
#include "quern/io/detail/scalar_trees.hpp"
#include "quern/io/lightgbm_objective.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

class LightgbmWriter {
 public:
  /// \p function names the public function that was called.
  LightgbmWriter(const boosting::Model& model, std::string function)
      : function_(std::move(function)), scalar_(model, function_), model_(scalar_.get()) {
    if (model.is_linear())
      throw ValueError(error_text(function_, "model", "trees", "a linear model"));
  }

  [[nodiscard]] std::string write() {
    std::vector<std::string> blocks;
    const auto outputs = static_cast<std::size_t>(model_.outputs);
    const std::vector<std::vector<std::int64_t>> lists = trees_by_output();
    std::size_t rounds = 0;
    for (const auto& list : lists) rounds = (std::max)(rounds, list.size());
    const bool starts = std::any_of(model_.base_margin.begin(), model_.base_margin.end(),
                                    [](double b) { return b != 0; });
    if (starts) rounds = (std::max)(rounds, std::size_t{1});
    for (std::size_t r = 0; r < rounds; ++r) {
      for (std::size_t k = 0; k < outputs; ++k) {
        const std::int64_t t = r < lists[k].size() ? lists[k][r] : -1;
        blocks.push_back(block(blocks.size(), t, r == 0 ? model_.base_margin[k] : 0.0));
      }
    }
    return document(blocks);
  }

 private:
  /// The trees that predictions use.
  [[nodiscard]] std::vector<std::vector<std::int64_t>> trees_by_output() const {
    std::vector<std::vector<std::int64_t>> lists(static_cast<std::size_t>(model_.outputs));
    const std::int64_t used = model_.used_rounds() * model_.trees_per_round();
    for (std::int64_t t = 0; t < used; ++t) {
      const auto output = model_.tree_outputs[static_cast<std::size_t>(t)];
      lists[static_cast<std::size_t>(output)].push_back(t);
    }
    return lists;
  }

  [[nodiscard]] std::string document(const std::vector<std::string>& blocks) {
    out_ = "tree\nversion=v4\n";
    const std::int64_t features = (std::max)(model_.features, std::int64_t{1});
    line("num_class", std::to_string(model_.outputs));
    line("num_tree_per_iteration", std::to_string(model_.outputs));
    line("label_index", "0");
    line("max_feature_idx", std::to_string(features - 1));
    const std::string objective = objective_to_lightgbm(model_.objective, model_.outputs);
    if (!objective.empty()) line("objective", objective);
    const auto columns = static_cast<std::size_t>(features);
    list("feature_names", columns, [&](std::size_t f) { return feature_name(f); });
    list("feature_infos", columns, [](std::size_t) { return std::string("none"); });
    list("tree_sizes", blocks.size(), [&](std::size_t t) { return blocks[t].size(); });
    out_ += '\n';
    for (const std::string& block : blocks) out_ += block;
    out_ += "end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n\n";
    out_ += "pandas_categorical:null\n";
    return std::move(out_);
  }

  /// Names are parted by blanks there: LightGBM, too, makes underscores of theirs.
  [[nodiscard]] std::string feature_name(std::size_t f) const {
    const std::string fallback = "Column_" + std::to_string(f);
    std::string name = f < model_.feature_names.size() ? model_.feature_names[f] : fallback;
    for (char& c : name) c = static_cast<unsigned char>(c) <= 32 ? '_' : c;
    return name.empty() ? fallback : name;
  }

  void line(std::string_view key, std::string_view value) {
    out_ += key;
    out_ += '=';
    out_ += value;
    out_ += '\n';
  }
  void put(const std::string& text) { out_ += text; }
  void put(std::integral auto x) { out_ += std::to_string(x); }
  /// The shortest text that reads back as x.
  void put(double x) {
    constexpr double most = (std::numeric_limits<double>::max)();
    std::array<char, 32> buffer;
    const double finite = (std::clamp)(x, -most, most);
    const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), finite);
    out_.append(buffer.data(), result.ptr);
  }
  template <class Value>
  void list(std::string_view key, std::size_t size, const Value& value) {
    out_ += key;
    out_ += '=';
    for (std::size_t i = 0; i < size; ++i) {
      if (i > 0) out_ += ' ';
      put(value(i));
    }
    out_ += '\n';
  }

  /// Tree \p t of the model, or none (-1), with \p add on every leaf.
  [[nodiscard]] std::string block(std::size_t number, std::int64_t t, double add) {
    static const tree::Tree nothing;
    const auto index = static_cast<std::size_t>((std::max)(t, std::int64_t{0}));
    const tree::Tree& source = t < 0 ? nothing : model_.trees[index];
    weight_ = t < 0 || model_.tree_weights.empty() ? 1.0 : model_.tree_weights[index];
    add_ = add;
    const LightgbmLayout layout(source, function_ + ": tree " + std::to_string(t));
    out_ = "Tree=" + std::to_string(number) + "\n";
    line("num_leaves", std::to_string(layout.leaves().size()));
    splits(layout);
    values(layout);
    linear(layout, source);
    out_ += "shrinkage=1\n\n\n";
    return std::exchange(out_, std::string());
  }

  template <class Value>
  void of_splits(const char* key, const LightgbmLayout& layout, const Value& value) {
    const auto& splits = layout.splits();
    list(key, splits.size(), [&](std::size_t i) { return value(layout.tree().node(splits[i])); });
  }
  template <class Value>
  void of_leaves(const char* key, const LightgbmLayout& layout, const Value& value) {
    const auto& leaves = layout.leaves();
    list(key, leaves.size(), [&](std::size_t i) { return value(layout.tree().node(leaves[i])); });
  }

  [[nodiscard]] static bool categorical(const tree::Node& n) {
    return n.kind == tree::SplitKind::categorical;
  }

  void splits(const LightgbmLayout& layout) {
    std::vector<std::uint32_t> words;
    std::vector<std::size_t> boundaries = {0};
    for (const std::int32_t i : layout.splits()) {
      const tree::Node& n = layout.tree().node(i);
      if (!categorical(n)) continue;
      const auto first = layout.tree().category_words.begin() + n.category_begin;
      words.insert(words.end(), first, first + n.category_count);
      if (n.category_count == 0) words.push_back(0);
      boundaries.push_back(words.size());
    }
    const std::size_t sets = boundaries.size() - 1;
    line("num_cat", std::to_string(sets));
    of_splits("split_feature", layout, [](const tree::Node& n) { return n.feature; });
    of_splits("split_gain", layout, [](const tree::Node& n) { return n.gain; });
    double set = 0;
    of_splits("threshold", layout, [&](const tree::Node& n) {
      return categorical(n) ? set++ : last_left(n.threshold, model_.input_type);
    });
    of_splits("decision_type", layout, [](const tree::Node& n) { return decision(n); });
    // A category in the set goes right here, left there.
    of_splits("left_child", layout, [&](const tree::Node& n) {
      return layout.number(categorical(n) ? n.right : n.left);
    });
    of_splits("right_child", layout, [&](const tree::Node& n) {
      return layout.number(categorical(n) ? n.left : n.right);
    });
    if (sets == 0) return;
    list("cat_boundaries", boundaries.size(), [&](std::size_t i) { return boundaries[i]; });
    list("cat_threshold", words.size(), [&](std::size_t i) { return words[i]; });
  }

  [[nodiscard]] static int decision(const tree::Node& n) {
    if (categorical(n)) return 1;
    const int type = n.missing == tree::MissingRule::nan ? 2 : n.missing == tree::MissingRule::zero;
    return 4 * type + (n.default_left ? 2 : 0);
  }

  void values(const LightgbmLayout& layout) {
    const auto value = [&](const tree::Node& n) { return n.value * weight_ + add_; };
    const auto cover = [](const tree::Node& n) { return n.cover; };
    // Counts of rows are not known: the nearest whole cover, and never none, as they divide.
    const auto count = [](const tree::Node& n) {
      return static_cast<std::int64_t>((std::clamp)(std::round(n.cover), 1.0, 2147483647.0));
    };
    of_leaves("leaf_value", layout, value);
    of_leaves("leaf_weight", layout, cover);
    of_leaves("leaf_count", layout, count);
    of_splits("internal_value", layout, value);
    of_splits("internal_weight", layout, cover);
    of_splits("internal_count", layout, count);
  }

  void linear(const LightgbmLayout& layout, const tree::Tree& source) {
    const tree::LinearLeaves& functions = source.linear;
    line("is_linear", functions.empty() ? "0" : "1");
    if (functions.empty()) return;
    std::vector<std::size_t> from;  // the leaves' places in the functions
    std::vector<std::int64_t> terms;
    std::vector<std::size_t> sizes;
    for (const std::int32_t leaf : layout.leaves()) {
      from.push_back(static_cast<std::size_t>(layout.source(leaf)));
      const std::int64_t begin = functions.offsets[from.back()];
      const std::int64_t end = functions.offsets[from.back() + 1];
      for (std::int64_t i = begin; i < end; ++i) terms.push_back(i);
      sizes.push_back(static_cast<std::size_t>(end - begin));
    }
    list("leaf_const", from.size(),
         [&](std::size_t i) { return functions.constants[from[i]] * weight_ + add_; });
    list("num_features", sizes.size(), [&](std::size_t i) { return sizes[i]; });
    const auto term = [&](std::size_t i) { return static_cast<std::size_t>(terms[i]); };
    list("leaf_features", terms.size(), [&](std::size_t i) { return functions.features[term(i)]; });
    list("leaf_coeff", terms.size(),
         [&](std::size_t i) { return functions.coefficients[term(i)] * weight_; });
  }

  std::string function_;
  ScalarModel scalar_;
  const boosting::Model& model_;
  std::string out_;
  double weight_ = 1;  // of the tree in work
  double add_ = 0;     // to its leaves
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_LIGHTGBM_WRITER_HPP
