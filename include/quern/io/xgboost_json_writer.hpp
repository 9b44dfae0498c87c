// SPDX-License-Identifier: Apache-2.0

/// \file
/// Writes XGBoost 3's JSON; see xgboost_json.hpp for the functions to call.

#ifndef QUERN_IO_XGBOOST_JSON_WRITER_HPP
#define QUERN_IO_XGBOOST_JSON_WRITER_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/xgboost_base_score.hpp"
#include "quern/tree/float_key.hpp"

#include <nlohmann/json.hpp>

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
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

class XgboostWriter {
 public:
  explicit XgboostWriter(const boosting::Model& model) : model_(model) {
    model.check("quern::io::save_xgboost_json");
    for (const tree::Tree& tree : model.trees) {
      if (tree.outputs > 1)
        throw ValueError(
            error_text("quern::io::save_xgboost_json", "model", "one value a leaf", tree.outputs));
      if (!tree.linear.empty())
        throw ValueError(error_text("quern::io::save_xgboost_json", "model", "constant leaves",
                                    "linear leaves, which XGBoost does not have"));
    }
    choose_base_scores();
  }

  [[nodiscard]] std::string text() {
    out_ = "{\"learner\":{\"attributes\":{";
    if (model_.best_round >= 0)
      out_ += "\"best_iteration\":\"" + std::to_string(model_.best_round) + "\"";
    out_ += "},\"feature_names\":";
    strings(model_.feature_names);
    out_ += ",\"feature_types\":";
    strings(feature_types());
    out_ += ",\"gradient_booster\":";
    booster();
    out_ += ",\"learner_model_param\":";
    learner_param();
    out_ += ",\"objective\":";
    objective();
    out_ += "},\"version\":[3,0,0]}";
    return std::move(out_);
  }

 private:
  /// Where the float of a base score is too coarse (a logistic margin of 10 moves by 1e-3), the
  /// first tree of the output takes the rest.
  void choose_base_scores() {
    const BaseScoreLink link = base_score_link(model_.objective);
    first_tree_add_.assign(model_.trees.size(), 0.0);
    for (std::size_t k = 0; k < model_.base_margin.size(); ++k) {
      float score = base_score_of_margin(link, model_.base_margin[k]);
      double rest = model_.base_margin[k] - margin_of_base_score(link, static_cast<double>(score));
      base_scores_.push_back(score);
      if (std::abs(rest) <= 1e-6 * (std::max)(1.0, std::abs(model_.base_margin[k]))) continue;
      for (std::size_t t = 0; t < model_.trees.size(); ++t) {
        if (model_.tree_outputs[t] != static_cast<std::int32_t>(k) || weight(t) == 0) continue;
        first_tree_add_[t] = rest / weight(t);
        break;
      }
    }
  }

  [[nodiscard]] double weight(std::size_t t) const {
    return model_.tree_weights.empty() ? 1.0 : model_.tree_weights[t];
  }

  void number(std::integral auto x) { out_ += std::to_string(x); }
  /// The shortest text that reads back as x. XGBoost tells "1" (an integer) from "1.0".
  void number(float x) {
    std::array<char, 32> buffer;
    const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), x);
    const std::string_view digits(buffer.data(),
                                  static_cast<std::size_t>(result.ptr - buffer.data()));
    out_ += digits;
    if (digits.find_first_of(".e") == std::string_view::npos) out_ += ".0";
  }
  void string(std::string_view s) {
    try {
      out_ += nlohmann::json(s).dump();
    } catch (const nlohmann::json::exception&) {
      throw ValueError(
          error_text("quern::io::save_xgboost_json", "feature_names", "UTF-8 text", "other bytes"));
    }
  }
  void strings(const std::vector<std::string>& list) {
    array(list.size(), [&](std::size_t i) { string(list[i]); });
  }
  template <class Write>
  void array(std::size_t size, const Write& write) {
    out_ += '[';
    for (std::size_t i = 0; i < size; ++i) {
      if (i > 0) out_ += ',';
      write(i);
    }
    out_ += ']';
  }
  /// ,"key":[one entry a node]
  template <class Value>
  void nodes(const char* key, const tree::Tree& tree, const Value& value) {
    out_ += std::string(",\"") + key + "\":";
    array(tree.nodes.size(), [&](std::size_t i) { number(value(static_cast<std::int32_t>(i))); });
  }

  [[nodiscard]] std::vector<std::string> feature_types() const {
    std::vector<std::string> types;
    for (tree::FeatureKind kind : model_.feature_kinds) {
      types.emplace_back(kind == tree::FeatureKind::categorical ? "c" : "q");
    }
    for (const tree::Tree& tree : model_.trees) {
      for (const tree::Node& n : tree.nodes) {
        if (n.is_leaf() || n.kind != tree::SplitKind::categorical) continue;
        types.resize(static_cast<std::size_t>(model_.features), "q");
        types[static_cast<std::size_t>(n.feature)] = "c";
      }
    }
    return types;
  }

  void booster() {
    const bool dart = std::any_of(model_.tree_weights.begin(), model_.tree_weights.end(),
                                  [](double w) { return w != 1.0; });
    if (dart) out_ += "{\"gbtree\":";
    out_ += "{\"model\":{\"cats\":{\"enc\":[],\"feature_segments\":[],\"sorted_idx\":[]},";
    out_ += "\"gbtree_model_param\":{\"num_parallel_tree\":\"" +
            std::to_string(model_.parallel_trees) + "\",\"num_trees\":\"" +
            std::to_string(model_.trees.size()) + "\"},\"iteration_indptr\":";
    array(static_cast<std::size_t>(model_.rounds()) + 1,
          [&](std::size_t i) { number(static_cast<std::int64_t>(i) * model_.trees_per_round()); });
    out_ += ",\"tree_info\":";
    array(model_.trees.size(), [&](std::size_t t) { number(model_.tree_outputs[t]); });
    out_ += ",\"trees\":";
    array(model_.trees.size(), [&](std::size_t t) { tree(t); });
    out_ += "},\"name\":\"gbtree\"}";
    if (!dart) return;
    out_ += ",\"name\":\"dart\",\"weight_drop\":";
    array(model_.trees.size(), [&](std::size_t t) { number(static_cast<float>(weight(t))); });
    out_ += '}';
  }

  void tree(std::size_t t) {
    const tree::Tree& tree = model_.trees[t];
    constexpr std::int64_t nobody = 2147483647;  // of roots; deleted nodes test such a feature
    const auto categorical = [&](std::int32_t i) {
      return !tree.node(i).is_leaf() && tree.node(i).kind == tree::SplitKind::categorical;
    };
    const auto value = [&](std::int32_t i) {
      return static_cast<float>(tree.node(i).value + first_tree_add_[t]);
    };
    std::int64_t deleted = 0;
    for (std::int32_t i = 0; i < tree.size(); ++i) deleted += tree.in_use(i) ? 0 : 1;
    out_ += "{\"id\":" + std::to_string(t);
    nodes("base_weights", tree, [&](std::int32_t i) {
      return tree.node(i).is_leaf() ? value(i) : static_cast<float>(tree.node(i).value);
    });
    categories(tree);
    nodes("default_left", tree,
          [&](std::int32_t i) { return tree.node(i).default_left || !tree.in_use(i) ? 1 : 0; });
    nodes("left_children", tree, [&](std::int32_t i) { return tree.node(i).left; });
    nodes("loss_changes", tree,
          [&](std::int32_t i) { return static_cast<float>(tree.node(i).gain); });
    nodes("parents", tree, [&](std::int32_t i) {
      return i == 0 ? nobody : (std::max)(std::int64_t{tree.node(i).parent}, std::int64_t{0});
    });
    nodes("right_children", tree, [&](std::int32_t i) { return tree.node(i).right; });
    nodes("split_conditions", tree, [&](std::int32_t i) {
      if (tree.node(i).is_leaf()) return value(i);
      return categorical(i) ? 0.0f : threshold(tree.node(i).threshold);
    });
    nodes("split_indices", tree, [&](std::int32_t i) {
      if (!tree.in_use(i)) return nobody;
      return (std::max)(std::int64_t{tree.node(i).feature}, std::int64_t{0});
    });
    nodes("split_type", tree, [&](std::int32_t i) { return categorical(i) ? 1 : 0; });
    nodes("sum_hessian", tree,
          [&](std::int32_t i) { return static_cast<float>(tree.node(i).cover); });
    out_ += ",\"tree_param\":{\"num_deleted\":\"" + std::to_string(deleted) +
            "\",\"num_feature\":\"" + std::to_string(model_.features) + "\",\"num_nodes\":\"" +
            std::to_string(tree.size()) + "\",\"size_leaf_vector\":\"1\"}}";
  }

  /// JSON has no infinities: the ends of the floats stand in, which only input as large can tell.
  [[nodiscard]] static float threshold(double t) {
    constexpr float largest = (std::numeric_limits<float>::max)();
    return (std::clamp)(tree::round_up_to_float(t), -largest, largest);
  }

  void categories(const tree::Tree& tree) {
    std::vector<std::uint32_t> all;
    std::vector<std::int64_t> owners;
    std::vector<std::size_t> begins;
    std::vector<std::size_t> sizes;
    for (std::int32_t i = 0; i < tree.size(); ++i) {
      const tree::Node& n = tree.node(i);
      if (n.is_leaf() || n.kind != tree::SplitKind::categorical) continue;
      owners.push_back(i);
      begins.push_back(all.size());
      for (std::uint32_t c = 0; c < 32 * n.category_count; ++c) {
        if (tree.in_category_set(n, c)) all.push_back(c);
      }
      sizes.push_back(all.size() - begins.back());
    }
    const auto list = [&](const char* key, const auto& values) {
      out_ += std::string(",\"") + key + "\":";
      array(values.size(), [&](std::size_t i) { number(values[i]); });
    };
    list("categories", all);
    list("categories_nodes", owners);
    list("categories_segments", begins);
    list("categories_sizes", sizes);
  }

  [[nodiscard]] bool classes() const { return model_.objective.starts_with("multi:"); }

  void learner_param() {
    out_ += "{\"base_score\":\"";
    array(base_scores_.size(), [&](std::size_t k) { number(base_scores_[k]); });
    out_ += "\",\"boost_from_average\":\"1\",\"num_class\":\"" +
            std::to_string(classes() ? model_.outputs : 0) + "\",\"num_feature\":\"" +
            std::to_string(model_.features) + "\",\"num_target\":\"" +
            std::to_string(classes() ? 1 : model_.outputs) + "\"}";
  }

  /// XGBoost wants each objective's parameters; those that prediction does not need are its
  /// defaults.
  void objective() {
    const std::string& name = model_.objective;
    out_ += "{\"name\":";
    string(name);
    if (classes()) {
      out_ += ",\"softmax_multiclass_param\":{\"num_class\":\"" + std::to_string(model_.outputs) +
              "\"}";
    } else if (name == "count:poisson") {
      out_ += ",\"poisson_regression_param\":{\"max_delta_step\":\"0.7\"}";
    } else if (name == "reg:tweedie") {
      out_ += ",\"tweedie_regression_param\":{\"tweedie_variance_power\":\"1.5\"}";
    } else if (name == "reg:pseudohubererror") {
      out_ += ",\"pseudo_huber_param\":{\"huber_slope\":\"1\"}";
    } else if (name == "survival:aft") {
      out_ +=
          ",\"aft_loss_param\":{\"aft_loss_distribution\":\"normal\","
          "\"aft_loss_distribution_scale\":\"1\"}";
    } else if (name == "reg:quantileerror") {
      out_ += ",\"quantile_loss_param\":{\"quantile_alpha\":\"";
      array(base_scores_.size(), [&](std::size_t k) {
        number((static_cast<float>(k) + 1.0f) / (static_cast<float>(model_.outputs) + 1.0f));
      });
      out_ += "\"}";
    } else if (name.starts_with("rank:")) {
      out_ += ",\"lambdarank_param\":{}";
    } else if (name.starts_with("reg:") || name.starts_with("binary:")) {
      out_ += ",\"reg_loss_param\":{\"scale_pos_weight\":\"1\"}";
    }
    out_ += '}';
  }

  const boosting::Model& model_;
  std::string out_;
  std::vector<float> base_scores_;
  std::vector<double> first_tree_add_;  // to every leaf
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_XGBOOST_JSON_WRITER_HPP
